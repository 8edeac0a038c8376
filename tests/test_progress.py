"""Progress bars: counts, resumed counts, and few lines in Kaggle's log."""

from __future__ import annotations

from kernel_lib.runtime.progress import progress_bar


def test_a_bar_shows_what_is_done_of_how_much_on_standard_error(capsys, monkeypatch) -> None:
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    with progress_bar(4, "fold 0", unit="batch") as bar:
        bar.update(4)
    out, err = capsys.readouterr()
    assert out == ""  # a notebook's printed results stay readable
    assert "fold 0" in err and "4/4" in err and "100%" in err


def test_a_resumed_bar_goes_on_where_the_last_one_stopped(capsys) -> None:
    with progress_bar(10, "fold 1", done=6) as bar:
        assert bar.n == 6
        bar.update(1)
    assert "7/10" in capsys.readouterr().err


def test_a_batch_run_on_kaggle_writes_few_lines(capsys, monkeypatch) -> None:
    """Every redrawing stays in the log; 25 seconds of steps are a begin and an end."""
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])

    def redrawings(kind: str) -> int:
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", kind)
        with progress_bar(500, "train") as bar:
            for _ in range(500):
                now[0] += 0.05
                bar.update(1)
        return capsys.readouterr().err.count("train")

    assert redrawings("Batch") <= 3
    assert redrawings("Interactive") > 20
