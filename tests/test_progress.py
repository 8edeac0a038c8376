"""Progress bars: counts, resumed counts, and few lines in Kaggle's log."""

from __future__ import annotations

import pytest

from kernel_lib.runtime import progress
from kernel_lib.runtime.progress import WIDTH, BarState, JointBars, progress_bar, send_bars


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


# Bars of other processes.


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of all bars, in a list so that a test can move it."""
    moment = [100.0]
    monkeypatch.setattr("kernel_lib.runtime.progress.time.monotonic", lambda: moment[0])
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    return moment


@pytest.fixture
def sent(now, monkeypatch: pytest.MonkeyPatch) -> list[BarState]:
    """What this process tells of its bars."""
    states: list[BarState] = []
    monkeypatch.setattr(progress, "_send_elsewhere", None)
    send_bars(states.append)
    return states


def state(name: str, done: int = 120, *, closed: bool = False, note: str = "loss 0.12") -> BarState:
    return BarState(name, 340, done, 20, 50.0, "batch", note, closed)


def test_a_bar_for_another_process_is_told_and_not_shown(sent, now, capsys) -> None:
    with progress_bar(10, "fold 1", done=4) as bar:
        for step in range(3):
            now[0] += 0.3
            bar.set_postfix_str(f"loss {step}", refresh=False)
            bar.update(1)
        assert bar.n == 7
        bar.write("a line")
    out, err = capsys.readouterr()
    assert (out, err) == ("a line\n", "")
    assert [(s.done, s.note, s.closed) for s in sent] == [
        (4, "", False),
        (6, "loss 1", False),  # not more often than twice a second
        (7, "loss 2", True),
    ]
    assert (sent[-1].total, sent[-1].before, sent[-1].description) == (10, 4, "fold 1")
    assert sent[-1].seconds == pytest.approx(0.9)
    bar.close()
    assert len(sent) == 3


def test_a_bar_counts_speed_and_time_left_from_what_was_done_here() -> None:
    assert state("fold 0", note="loss 0.12, best 0.5").texts() == (
        "fold 0:  35% 120/340 [00:50<01:50, 2.00 batch/s, loss 0.12, best 0.5]",
        "fold 0:  35% 120/340 [00:50<01:50, loss 0.12]",
        "fold 0:  35%",
    )
    assert state("fold 0", 45).texts()[0].startswith("fold 0:  13% 45/340 [00:50<09:50, 2.00 s/b")
    assert state("fold 0", 20, note="").texts()[0] == "fold 0:   5% 20/340 [00:50<?]"
    assert BarState("x", 0, 0, 0, 0.0, "text", "", True).texts()[0] == "x:   0% 0/0 [00:00<?]"


def test_several_bars_stand_in_one_line_that_fits(now, capsys) -> None:
    bars = JointBars()
    for key in (1, 0):
        bars.show(key, state(f"fold {key}"))
        now[0] += 1
    assert capsys.readouterr().err.split("\r")[-1].rstrip() == (
        "fold 0:  35% 120/340 [00:50<01:50, loss 0.12]  "
        "fold 1:  35% 120/340 [00:50<01:50, loss 0.12]"
    )
    for key in range(8):
        now[0] += 1
        bars.show(key, state(f"fold {key}"))
    drawn = [line.rstrip() for line in capsys.readouterr().err.split("\r")]
    assert max(map(len, drawn)) <= WIDTH
    assert drawn[-1] == "  ".join(f"fold {key}:  35%" for key in range(8))[:WIDTH]


def test_a_line_takes_the_place_of_the_bars_and_a_closed_bar_stays(now, capsys) -> None:
    bars = JointBars()
    bars.show(0, state("fold 0"))
    bars.show(1, state("fold 1"))  # too early to be drawn again
    bars.write("a line")
    bars.show(1, state("fold 1", 340, closed=True))
    now[0] += 1
    bars.show(0, state("fold 0", 130))
    bars.remove(0)
    bars.close()
    out, err = capsys.readouterr()
    assert out == "a line\n"
    first, empty, last, again, nothing, end = err.split("\r")[1:]
    assert first.startswith("fold 0") and "fold 1" not in first
    assert empty == " " * len(first) and nothing == " " * len(again) and end == ""
    assert last.startswith("fold 1: 100%") and last.endswith("\n")
    assert again.startswith("fold 0:  38%")


def test_on_kaggle_the_line_is_drawn_twice_a_minute(now, capsys, monkeypatch) -> None:
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    bars = JointBars()
    for _ in range(120):
        now[0] += 0.5
        bars.show(0, state("fold 0"))
    assert capsys.readouterr().err.count("fold 0") == 2
