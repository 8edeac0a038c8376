"""How long things take, measured as they are done, so that nothing is begun that ends too late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kernel_lib.artifacts import Run, read_manifest
from kernel_lib.config import TrainingSettings
from kernel_lib.runtime.clock import Clock, format_seconds
from kernel_lib.training.awp import batches_before_awp
from kernel_lib.training.state import Progress

GO_ON = "attach this output and set resume_from to go on"
KNOWN_AFTER_UPDATES = 10
KNOWN_AFTER_SHARE = 0.02  # of a fold's batches
# A fold that takes more of a budget than this is begun with whatever is left: were it held back for
# a session of its own, tokenizing before it could use up what it needs, again and again.
LARGE_SHARE = 0.8


def work(batches: int, counts: Sequence[int], settings: TrainingSettings) -> int:
    """What the first so many batches of a fold take, in batches without AWP.

    With ``two_pass`` each one from where AWP begins counts twice. FGM's second pass is in all of
    them, and counts with the first.

    Args:
        batches: how many.
        counts: batches of each epoch.
        settings: for AWP.
    """
    if settings.awp != "two_pass":
        return batches
    return batches + max(0, batches - batches_before_awp(counts, settings))


@dataclass
class Pace:
    """What the steps of a fold take in this session. Batches are counted as :func:`work` does.

    Attributes:
        batches: of all epochs together.
        evaluations: of all epochs together.
        evaluation_batches: how many training batches take as long as an evaluation; a guess that
            counts until one is measured.
        update_seconds: of the last update.
        evaluation_seconds: of the last evaluation; before the first, from the guess.
        save_seconds: of the last save; 0 before the first.
        updates: made in this session.
    """

    batches: int
    evaluations: int
    evaluation_batches: float
    update_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    save_seconds: float = 0.0
    updates: int = 0
    _batches_done: int = field(default=0, init=False)
    _batches_timed: int = field(default=0, init=False)
    _seconds: float = field(default=0.0, init=False)
    _evaluated: bool = field(default=False, init=False)

    def count_update(self, batches: int, seconds: float) -> None:
        """An update of so many batches was made."""
        self.update_seconds = seconds
        if self.updates == 1:  # the first one also warms up
            self._batches_timed, self._seconds = 0, 0.0
        self.updates += 1
        self._batches_done += batches
        self._batches_timed += batches
        self._seconds += seconds
        if not self._evaluated:
            self.evaluation_seconds = self.evaluation_batches * self.batch_seconds

    def count_evaluation(self, seconds: float) -> None:
        """An evaluation was made."""
        self.evaluation_seconds, self._evaluated = seconds, True

    @property
    def batch_seconds(self) -> float:
        """Mean of a training batch; 0 before the first."""
        return self._seconds / max(1, self._batches_timed)

    @property
    def has_begun(self) -> bool:
        """Whether anything was done in this session."""
        return self.updates > 0 or self._evaluated

    @property
    def is_known(self) -> bool:
        """Whether enough was done to say what is to come."""
        enough = self._batches_done >= KNOWN_AFTER_SHARE * self.batches
        return enough and self.updates >= KNOWN_AFTER_UPDATES

    @property
    def fold_seconds(self) -> float:
        """Of a whole fold: updates and evaluations."""
        return self.batches * self.batch_seconds + self.evaluations * self.evaluation_seconds

    def left_seconds(self, progress: Progress, batches_done: int) -> float:
        """Of what is left of the fold under way."""
        evaluations = self.evaluations - len(progress.history)
        batches = self.batches - batches_done
        return batches * self.batch_seconds + evaluations * self.evaluation_seconds


def projection(
    fold: int, *, fold_seconds: float, left_seconds: float, folds: int, clock: Clock
) -> str:
    """The line that says early on whether the budget is enough, and what to do if it is not.

    Args:
        fold: the number of the fold under way.
        fold_seconds: of a whole fold.
        left_seconds: of what is left of this one.
        folds: how many are still to be finished, this one included.
        clock: the budget, and how many processes train a fold each at the same time.
    """
    side_by_side = min(folds, clock.shared_by)
    all_seconds = left_seconds + (-(-folds // side_by_side) - 1) * fold_seconds
    takes = f"fold {fold} takes about {about(left_seconds)} more"
    if folds > 1:
        takes += f", all {folds} folds {about(all_seconds)}"
    budget = clock.left_seconds
    if clock.allows(all_seconds):
        return f"{takes}; the budget has {about(budget)} left"
    if left_seconds > budget:
        reached = f"fold {fold} will be stopped and saved before its end"
    else:
        rounds = 1 + int((budget - left_seconds) // fold_seconds)
        reached = f"{min(folds, rounds * side_by_side)} of {folds} folds will be finished"
    return (
        f"THE TIME BUDGET IS TOO SHORT: {takes}; the budget has {about(budget)} left. "
        f"{reached[0].upper()}{reached[1:]}; then {GO_ON}"
    )


def reason_not_to_begin(
    run: Run,
    saved: Progress | None,
    *,
    batches: Sequence[int],
    settings: TrainingSettings,
    longest_seconds: float,
    clock: Clock,
) -> str:
    """Why a fold is left to another session; empty when it is to be begun.

    What is not known is begun: so is the first fold of a run, with an update at least, even when
    the clock is over. It stops with its state saved.

    Args:
        run: its finished folds say what a fold takes.
        saved: where the fold stands, if it was begun before.
        batches: of each epoch of the fold.
        settings: of the run.
        longest_seconds: of the folds finished in this session; 0: none was.
        clock: the budget.
    """
    finished = run.finished_folds()
    if not clock.allows(0):
        return "the time budget is used up" if finished or saved else ""
    done = 0.0
    if saved:
        behind, all_batches = saved.batches_done(batches), sum(batches)
        done = work(behind, batches, settings) / work(all_batches, batches, settings)
    whole = longest_seconds
    if not whole and finished:
        whole = max(float(read_manifest(run, fold)["seconds"]) for fold in finished)
    if not whole and saved and done:
        whole = saved.seconds / done
    needed = whole * (1 - done)
    if clock.allows(needed) or needed > LARGE_SHARE * clock.budget_seconds:
        return ""
    what = "the rest of it" if saved else "a fold"
    return f"{what} takes about {about(needed)} and {about(clock.left_seconds)} are left"


def about(seconds: float) -> str:
    """Seconds for a reader who plans with them: ``45 s``, ``38 min``, ``2 h 32 min``."""
    if seconds < 120:
        return format_seconds(seconds)
    return format_seconds(60 * round(seconds / 60)).removesuffix(" 00 s")
