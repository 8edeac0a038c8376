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
    """Every redrawing stays in the log; 500 steps in well under 30 seconds are begin and end."""

    def redrawings(kind: str) -> int:
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", kind)
        clock = iter(range(10_000))
        monkeypatch.setattr("tqdm.std.time", lambda: next(clock) * 0.02)
        with progress_bar(500, "train") as bar:
            bar._time = lambda: next(clock) * 0.02
            for _ in range(500):
                bar.update(1)
        return capsys.readouterr().err.count("\r")

    assert redrawings("Batch") <= 4
    assert redrawings("Interactive") > 10
