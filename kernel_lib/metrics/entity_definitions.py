"""The definitions by which predicted entities are scored, each with its counts.

==========  ========================================  ========================================
definition  what an entity is                         what is correct
==========  ========================================  ========================================
strict      only what the scheme lets open and close  type, start and end agree
lenient     as conlleval and seqeval's default read:  type, start and end agree
            a tag that cannot continue opens
course      B-X and at least one I-X behind it        the type and the SURFACE are among the
                                                      sentence's gold ones, wherever
==========  ========================================  ========================================

``course`` is what the reference log printed: one-character entities are left out of gold and
prediction alike, a right string in the wrong place is correct, and recall can exceed 1. It is here
to compare with that log only.

Partial matches, as nervaluate 1.2.1 counts them, on entities read leniently: predictions choose in
order, each one gold entity not taken yet that it overlaps, and where it overlaps none it is
spurious. What was chosen is correct, incorrect or, in one of them, half correct:

========  =============================  ================================  ====================
name      chosen first                   correct                           any other overlap
========  =============================  ================================  ====================
strict    same type and boundaries       same type and boundaries          incorrect
exact     same boundaries                same boundaries, whatever type    incorrect
partial   same boundaries                same boundaries, whatever type    half correct
ent_type  same type, nearest boundaries  same type                         incorrect
========  =============================  ================================  ====================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kernel_lib.metrics.spelling_definitions import ratio
from kernel_lib.metrics.tags import Span

# nervaluate sees no overlap below this share of the gold entity's length.
LEAST_OVERLAP_PERCENT = 1
COURSE_EPSILON = 1e-5  # added to each denominator


@dataclass(frozen=True)
class EntityScore:
    """Figures and the counts they are made of; a division by zero gives 0.

    Attributes:
        precision: ``correct / predicted``.
        recall: ``correct / gold``.
        f1: their harmonic mean.
        correct: predicted entities that are right; the half correct ones count a half.
        predicted: predicted entities.
        gold: entities there are.
    """

    precision: float
    recall: float
    f1: float
    correct: float
    predicted: int
    gold: int

    @classmethod
    def from_counts(cls, correct: float, predicted: int, gold: int) -> EntityScore:
        """The figures of these counts.

        Example:
            127 correct, 187 predicted, 264 gold: precision .6791, recall .4811, F1 .5632.
        """
        f1 = 2 * correct / (predicted + gold) if predicted + gold else 0.0
        precision, recall = (correct / whole if whole else 0.0 for whole in (predicted, gold))
        return cls(precision, recall, f1, correct, predicted, gold)

    @classmethod
    def of_the_course(cls, correct: int, predicted: int, gold: int) -> EntityScore:
        """The same with 1e-5 in every denominator."""
        precision = correct / (predicted + COURSE_EPSILON)
        recall = correct / (gold + COURSE_EPSILON)
        f1 = 2 * precision * recall / (precision + recall + COURSE_EPSILON)
        return cls(precision, recall, f1, correct, predicted, gold)


@dataclass(frozen=True)
class DefinitionScores:
    """One definition on one set of sentences.

    Attributes:
        micro: over all entities.
        by_type: of each type.
        macro_precision: mean over the types seen in gold or prediction.
        macro_recall: likewise.
        macro_f1: likewise; a type only predicted adds a 0.
    """

    micro: EntityScore
    by_type: dict[str, EntityScore]
    macro_precision: float
    macro_recall: float
    macro_f1: float


@dataclass(frozen=True)
class MatchScore(EntityScore):
    """A partial definition: the figures, and what the entities came to.

    Attributes:
        incorrect: predicted entities that overlap one, but do not agree with it.
        partial: half correct.
        missed: gold entities that no prediction chose.
        spurious: predicted entities that overlap none that was free.
    """

    incorrect: int
    partial: int
    missed: int
    spurious: int


def span_scores(
    gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]], types: Iterable[str]
) -> DefinitionScores:
    """Entities as sets of (type, start, end) a sentence; types never seen are left out of the mean.

    Args:
        gold: the entities of each sentence, read strictly or leniently.
        predicted: of the same sentences.
        types: that count, in the order of ``by_type``.
    """
    right, said, there = Counter[str](), Counter[str](), Counter[str]()
    for wanted, found in zip(map(set, gold), map(set, predicted), strict=True):
        right.update(span.type for span in wanted & found)
        said.update(span.type for span in found)
        there.update(span.type for span in wanted)
    by_type = {
        type: EntityScore.from_counts(right[type], said[type], there[type]) for type in types
    }
    seen = [score for score in by_type.values() if score.predicted or score.gold]
    return _averaged(by_type, EntityScore.from_counts(*_totals(by_type)), seen)


def course_scores(
    gold: Sequence[Sequence[Span]],
    predicted: Sequence[Sequence[Span]],
    texts: Sequence[Sequence[str]],
    types: Iterable[str],
) -> DefinitionScores:
    """The reference course's figures; the mean is over all the types given, seen or not.

    The course matched ``04+`` and the like in the sentence's label ids written one behind the
    other: that is a B-X and one or more I-X. With ten labels or more, or a -1, its code reads
    wrongly; this one does not.

    Args:
        gold: the entities of each sentence, read strictly from BIO.
        predicted: of the same sentences.
        texts: the tokens of each sentence, or a string of one-character tokens.
        types: that count, in the order of ``by_type``.
    """
    right, said, there = Counter[str](), Counter[str](), Counter[str]()
    for text, *both in zip(texts, gold, predicted, strict=True):
        wanted, found = (
            [(type, "".join(text[start:end])) for type, start, end in spans if end - start > 1]
            for spans in both
        )
        right.update(type for type, surface in found if (type, surface) in wanted)
        said.update(type for type, _ in found)
        there.update(type for type, _ in wanted)
    by_type = {
        type: EntityScore.of_the_course(right[type], said[type], there[type]) for type in types
    }
    micro = EntityScore.of_the_course(*_totals(by_type))
    return _averaged(by_type, micro, list(by_type.values()))


def match_scores(
    gold: Sequence[Sequence[Span]], predicted: Sequence[Sequence[Span]]
) -> dict[str, MatchScore]:
    """The four definitions of nervaluate: ``strict``, ``exact``, ``partial``, ``ent_type``.

    Args:
        gold: the entities of each sentence, read leniently; of one type only for its figures.
        predicted: of the same sentences.
    """
    counts = {name: Counter[str]() for name in ("strict", "exact", "partial", "ent_type")}
    for wanted, found in zip(gold, predicted, strict=True):
        wanted, found = (sorted(spans, key=lambda span: span[1:]) for spans in (wanted, found))
        overlaps = [[i for i, span in enumerate(wanted) if _overlap(span, one)] for one in found]
        for name, count in counts.items():
            count.update(_match(name, wanted, found, overlaps))
    return {name: _match_score(count) for name, count in counts.items()}


def _overlap(gold: Span, predicted: Span) -> bool:
    shared = min(gold.end, predicted.end) - max(gold.start, predicted.start)
    return shared > 0 and 100 * shared >= LEAST_OVERLAP_PERCENT * (gold.end - gold.start)


def _match(
    name: str, gold: list[Span], predicted: list[Span], overlaps: list[list[int]]
) -> Counter[str]:
    """What the entities of one sentence come to by one of the four definitions."""
    counts, taken = Counter[str](), set[int]()
    for span, overlapped in zip(predicted, overlaps, strict=True):
        free = [index for index in overlapped if index not in taken]
        if name == "ent_type":
            right = [index for index in free if gold[index].type == span.type]
            right.sort(key=lambda index: _distance(gold[index], span))
        else:
            same = (lambda one: one) if name == "strict" else (lambda one: one[1:])
            right = [index for index in free if same(gold[index]) == same(span)]
        chosen = (right or free)[:1]
        taken.update(chosen)
        other = "partial" if name == "partial" else "incorrect"
        counts["correct" if right else other if chosen else "spurious"] += 1
    counts["missed"] = len(gold) - len(taken)
    return counts


def _distance(gold: Span, predicted: Span) -> int:
    return abs(gold.start - predicted.start) + abs(gold.end - predicted.end)


def _match_score(counts: Counter[str]) -> MatchScore:
    chosen = counts["correct"] + counts["incorrect"] + counts["partial"]
    figures = EntityScore.from_counts(
        counts["correct"] + 0.5 * counts["partial"],
        chosen + counts["spurious"],
        chosen + counts["missed"],
    )
    kinds = ("incorrect", "partial", "missed", "spurious")
    return MatchScore(**vars(figures), **{kind: counts[kind] for kind in kinds})


def _totals(by_type: dict[str, EntityScore]) -> tuple[int, int, int]:
    scores = by_type.values()
    correct = int(sum(score.correct for score in scores))
    return correct, sum(score.predicted for score in scores), sum(score.gold for score in scores)


def _averaged(
    by_type: dict[str, EntityScore], micro: EntityScore, seen: list[EntityScore]
) -> DefinitionScores:
    means = {
        f"macro_{name}": ratio(sum(getattr(score, name) for score in seen), len(seen))
        for name in ("precision", "recall", "f1")
    }
    return DefinitionScores(micro=micro, by_type=by_type, **means)
