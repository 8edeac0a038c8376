"""From proposals to changes, and which way of deciding is best by the out-of-fold predictions."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kernel_lib.errors import ArtifactError
from kernel_lib.tasks.proposals import Proposal, proposals_from_json
from kernel_lib.text.characters import is_chinese
from kernel_lib.text.confusion import ConfusionSet
from kernel_lib.text.corrections import Change

THRESHOLDS = np.round(np.arange(0.0, 1.0, 0.02), 2)


@dataclass(frozen=True)
class Decoding:
    """When a character is changed: if another is likelier than keeping it, and all of this holds.

    Attributes:
        threshold: least probability of the other character.
        chinese_only: only Chinese characters are changed.
        confusion_only: only into one that the confusion set allows in its place.
        passes: how often the text is read, with the changes of the pass before.
    """

    threshold: float = 0.0
    chinese_only: bool = True
    confusion_only: bool = False
    passes: int = 1

    @classmethod
    def from_record(cls, values: Any) -> Self:
        """What ``dataclasses.asdict`` made and ``run.json`` kept; each value in its type.

        Raises:
            ArtifactError: it is of another form.
        """
        one = {"chinese_only": (bool,), "confusion_only": (bool,), "passes": (int,)}
        kinds = {"threshold": (float, int), **one}
        right = isinstance(values, dict) and all(
            type(value) in kinds.get(name, ()) for name, value in values.items()
        )
        decoding = cls(**values) if right else None
        if decoding is None or not (0 <= decoding.threshold <= 1 and decoding.passes >= 1):
            raise ArtifactError(f"the decoding in it is damaged ({values!r}). Copy it again.")
        return decoding

    def overridden(self, settings: object) -> Self:
        """With what an object has under the same names, but for None."""
        names = [field.name for field in dataclasses.fields(self)]
        values = {name: getattr(settings, name, None) for name in names}
        return dataclasses.replace(
            self, **{name: value for name, value in values.items() if value is not None}
        )


def find_changes(
    text: str,
    passes: Sequence[Sequence[Proposal]],
    decoding: Decoding,
    confusion: ConfusionSet | None = None,
) -> list[Change]:
    """What is to be changed in a text.

    Args:
        text: as it was written.
        passes: the proposals of each pass.
        decoding: when a character is changed.
        confusion: for ``confusion_only``.
    """
    found = []
    for proposal in passes[min(decoding.passes, len(passes)) - 1]:
        wrong = text[proposal.position]
        for right, probability in proposal.others:
            if probability <= proposal.keep or probability < decoding.threshold:
                break
            if decoding.chinese_only and not is_chinese(wrong):
                break
            if decoding.confusion_only and not (confusion and confusion.allows(wrong, right)):
                continue
            found.append(Change(proposal.position, wrong, right, probability))
            break
    return found


@dataclass(frozen=True)
class Outcomes:
    """What each sentence's changes lead to, at any threshold; arrays ``(sentences,)``.

    A sentence is right at a threshold that lets all of its right changes through and none that is
    wrong.

    Attributes:
        least_right: the least probability of a right change; 0 where not all errors have one.
        most_wrong: the highest probability of a wrong change; 0: there is none.
        most: the highest probability of any change.
        has_errors: whether there is something to change.
    """

    least_right: NDArray[np.float64]
    most_wrong: NDArray[np.float64]
    most: NDArray[np.float64]
    has_errors: NDArray[np.bool_]

    def only(self, rows: NDArray[np.bool_]) -> Outcomes:
        """The outcomes of some of the sentences."""
        return Outcomes(*(values[rows] for values in vars(self).values()))

    def counts(self, thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
        """Sentences that are right, changed, and changed though clean; ``(3, thresholds)``."""
        at = thresholds[:, None]
        changed = (self.most > 0) & (self.most >= at)
        right = (self.least_right > 0) & (self.least_right >= at)
        right &= (self.most_wrong == 0) | (self.most_wrong < at)
        return np.stack([right, changed, changed & ~self.has_errors]).sum(axis=2)

    def curve(self) -> pd.DataFrame:
        """Strict correction precision, recall and F1, and the false positive rate, at each of
        ``THRESHOLDS``."""
        hits, changed, clean_changed = self.counts(THRESHOLDS)
        positives = int(self.has_errors.sum())
        return pd.DataFrame(
            {
                "threshold": THRESHOLDS,
                "precision": hits / np.maximum(changed, 1),
                "recall": hits / max(positives, 1),
                "f1": strict_f1(hits, changed, positives),
                "fpr": clean_changed / max(len(self.has_errors) - positives, 1),
            }
        )


def strict_f1(hits: Any, changed: Any, positives: int) -> Any:
    """F1 of hits among changed sentences and among those with errors; 0 where there is none."""
    return 2 * hits / np.maximum(changed + positives, 1)


@dataclass(frozen=True)
class Choice:
    """The way of deciding that is best by some sentences.

    Attributes:
        decoding: the way.
        curve: precision, recall, F1 and false positive rate of that way at all thresholds.
        f1: strict correction F1 of ways chosen fold by fold without the fold they are scored on:
            what the choice is worth on sentences that had no part in it. NaN for a single fold.
    """

    decoding: Decoding
    curve: pd.DataFrame
    f1: float


def choose_decoding(oof: pd.DataFrame, confusion: ConfusionSet | None, *, passes: int) -> Choice:
    """Chooses by strict correction F1; of equal ones the way that changes fewer clean sentences.

    Args:
        oof: columns ``fold``, ``source``, ``target`` and ``proposals``.
        confusion: allows ``confusion_only`` to be tried.
        passes: how many there are to choose from.
    """
    parsed = [_likelier(proposals_from_json(text)) for text in oof["proposals"]]
    ways = [
        Decoding(chinese_only=chinese, confusion_only=restricted, passes=count)
        for chinese, restricted, count in itertools.product(
            (True, False), (False, True) if confusion else (False,), range(1, passes + 1)
        )
    ]
    counted = oof.assign(errors=list(map(_errors, oof["source"], oof["target"])))
    outcomes = {way: find_outcomes(counted, parsed, way, confusion) for way in ways}
    best = _best(outcomes)
    folds = oof["fold"].to_numpy()
    totals = np.zeros(3, dtype=np.int64)
    for fold in np.unique(folds):
        inside = folds == fold
        if inside.all():
            break
        chosen = _best({way: found.only(~inside) for way, found in outcomes.items()})
        totals += (
            outcomes[dataclasses.replace(chosen, threshold=0.0)]
            .only(inside)
            .counts(np.array([chosen.threshold]))[:, 0]
        )
    way = dataclasses.replace(best, threshold=0.0)
    positives = int(outcomes[way].has_errors.sum())
    honest = float(strict_f1(totals[0], totals[1], positives))
    alone = len(np.unique(folds)) < 2
    return Choice(best, outcomes[way].curve(), np.nan if alone else honest)


def _errors(source: str, target: str) -> int:
    return 0 if source == target else sum(map(str.__ne__, source, target))


def _likelier(passes: Sequence[Sequence[Proposal]]) -> list[list[Proposal]]:
    """Those that can lead to a change: most doubts do not, and would be looked at for each way."""
    return [[p for p in proposals if p.others[0][1] > p.keep] for proposals in passes]


def _best(outcomes: dict[Decoding, Outcomes]) -> Decoding:
    """The best way with the best threshold; of equal ones the first."""

    def rank(way_at: tuple[Decoding, int]) -> tuple[float, int]:
        way, at = way_at
        return f1[way][at], -clean_changed[way][at]

    f1, clean_changed = {}, {}
    for way, found in outcomes.items():
        hits, changed, clean_changed[way] = found.counts(THRESHOLDS)
        f1[way] = strict_f1(hits, changed, int(found.has_errors.sum()))
    way, at = max(itertools.product(outcomes, range(len(THRESHOLDS))), key=rank)
    return dataclasses.replace(way, threshold=float(THRESHOLDS[at]))


def find_outcomes(
    oof: pd.DataFrame,
    proposals: Sequence[Sequence[Sequence[Proposal]]],
    decoding: Decoding,
    confusion: ConfusionSet | None,
) -> Outcomes:
    """The outcomes of a way of deciding without a threshold.

    Args:
        oof: columns ``source``, ``target`` and ``errors``, the number of characters that differ.
        proposals: of each sentence, for each pass.
        decoding: the way.
        confusion: for ``confusion_only``.
    """
    rows = []
    columns = (oof[name] for name in ("source", "target", "errors"))
    for source, target, errors, passes in zip(*columns, proposals, strict=True):
        changes = find_changes(source, passes, decoding, confusion)
        right = [c.probability for c in changes if target[c.position] == c.right]
        wrong = [c.probability for c in changes if target[c.position] != c.right]
        rows.append(
            (
                min(right) if errors and len(right) == errors else 0.0,
                max(wrong, default=0.0),
                max(right + wrong, default=0.0),
                errors > 0,
            )
        )
    return Outcomes(*map(np.array, zip(*rows, strict=True)))
