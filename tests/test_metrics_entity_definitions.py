"""Each definition against a table counted by hand, a slow reading, and libraries that have it."""

from __future__ import annotations

import random
import re
import warnings
from dataclasses import dataclass

import pytest

from kernel_lib.metrics.entities import EntityScores, entity_scores
from kernel_lib.metrics.entity_definitions import DefinitionScores, EntityScore, match_scores
from kernel_lib.metrics.tags import Span
from tests.test_metrics_tags import random_tags, slow_spans

NAMES = {"P": "PERSON", "L": "LOCATION", "T": "TIME", "G": "ORGANIZATION"}
MODES = ("strict", "exact", "partial", "ent_type")


@dataclass(frozen=True)
class Case:
    """Text, gold and predicted tags, then P, R, F1 by three definitions, and nervaluate's F1s."""

    name: str
    text: str
    gold: str
    predicted: str
    lenient: tuple[float, float, float]
    strict: tuple[float, float, float]
    course: tuple[float, float, float]
    partial: tuple[float, float, float, float]


ONE, NIL = (1, 1, 1), (0, 0, 0)
HALF = (1 / 2, 1 / 2, 1 / 2)
TOUCHED = (0, 0, 1 / 3, 2 / 3)
CASES = [
    Case("orphan I-", "张三说", "BP IP O", "IP IP O", ONE, NIL, NIL, (1, 1, 1, 1)),
    Case("type switch", "张三丰说", "BP IP IP O", "BP IL IL O", NIL, NIL, NIL, TOUCHED),
    Case("merged", "北京上海", "BL IL BL IL", "BL IL IL IL", NIL, NIL, NIL, TOUCHED),
    Case("hole", "新华总社", "BG IG IG IG", "BG O IG IG", NIL, NIL, NIL, TOUCHED),
    Case("place", "北京到北京", "BL IL O O O", "O O O BL IL", NIL, NIL, ONE, (0, 0, 0, 0)),
    Case(
        "recall above one",
        "北京到北京",
        "BL IL O O O",
        "BL IL O BL IL",
        (1 / 2, 1, 2 / 3),
        (1 / 2, 1, 2 / 3),
        (1, 2, 4 / 3),
        (2 / 3, 2 / 3, 2 / 3, 2 / 3),
    ),
    Case(
        "type", "今年北京市", "BT IT BL IL IL", "BT IT BG IG IG", HALF, HALF, HALF, (0.5, 1, 1, 0.5)
    ),
    Case("IOB1", "北京到张三", "IL IL O IP IP", "BL IL O BP IP", ONE, NIL, NIL, (1, 1, 1, 1)),
]


def tags(short: str) -> list[str]:
    return [tag if tag == "O" else f"{tag[0]}-{NAMES[tag[1]]}" for tag in short.split()]


def score(cases: list[Case]) -> EntityScores:
    return entity_scores(
        [tags(case.gold) for case in cases],
        [tags(case.predicted) for case in cases],
        texts=[case.text for case in cases],
    )


def figures(definition: DefinitionScores) -> tuple[float, float, float]:
    micro = definition.micro
    return micro.precision, micro.recall, micro.f1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_row_of_the_table(case: Case) -> None:
    found = score([case])
    assert figures(found.lenient) == case.lenient
    assert figures(found.strict) == case.strict
    assert found.course is not None
    assert figures(found.course) == pytest.approx(case.course, abs=3e-5)  # 1e-5 in denominators
    assert tuple(found.partial[mode].f1 for mode in MODES) == pytest.approx(case.partial)


def test_the_eight_rows_together() -> None:
    found = score(CASES)
    assert found.course is not None
    assert figures(found.lenient) == (5 / 13, 5 / 11, 10 / 24)
    assert figures(found.strict) == (2 / 10, 2 / 9, 4 / 19)
    assert figures(found.course) == pytest.approx((4 / 8, 4 / 9, 8 / 17), abs=2e-5)
    assert [round(x, 3) for x in figures(found.course)] == [0.5, 0.444, 0.471]
    macros = [found.lenient.macro_f1, found.strict.macro_f1, found.course.macro_f1]
    assert [round(macro, 4) for macro in macros] == [0.5, 0.3, 0.4]
    assert [round(found.partial[mode].f1, 3) for mode in MODES] == [0.417, 0.5, 0.625, 0.667]


def test_what_partial_matches_come_to() -> None:
    gold = [Span("P", 0, 3), Span("L", 4, 6), Span("T", 8, 9)]
    predicted = [Span("P", 1, 3), Span("G", 4, 6), Span("T", 9, 10)]
    found = match_scores([gold], [predicted])
    counts = {
        mode: (each.correct, each.incorrect, each.partial, each.missed, each.spurious)
        for mode, each in found.items()
    }
    assert counts == {
        "strict": (0, 2, 0, 1, 1),
        "exact": (1, 1, 0, 1, 1),
        "partial": (1.5, 0, 1, 1, 1),
        "ent_type": (1, 1, 0, 1, 1),
    }
    assert all((each.predicted, each.gold) == (3, 3) for each in found.values())


def test_of_entities_of_the_right_type_the_nearest_is_chosen() -> None:
    gold, predicted = [Span("P", 0, 2), Span("P", 2, 7)], [Span("P", 1, 6), Span("P", 6, 7)]
    found = match_scores([gold], [predicted])["ent_type"]
    # The first prediction takes the second entity, and the second prediction has none left.
    assert (found.correct, found.missed, found.spurious) == (1, 1, 1)


def test_one_token_of_a_very_long_entity_is_no_overlap() -> None:
    for length, shared in ((100, 1), (101, 0)):
        found = match_scores([[Span("P", 0, length)]], [[Span("P", 0, 1)]])["ent_type"]
        assert (found.correct, found.spurious) == (shared, 1 - shared)


def test_zero_denominators_give_zero() -> None:
    for counts in ((0, 0, 0), (0, 3, 0), (0, 0, 3)):
        for make in (EntityScore.from_counts, EntityScore.of_the_course):
            found = make(*counts)
            assert (found.precision, found.recall, found.f1) == (0, 0, 0)
    assert all(each.f1 == 0 for each in match_scores([], []).values())


def corpus(generator: random.Random) -> tuple[list[list[str]], list[list[str]], list[str]]:
    """Gold and predicted tags of some sentences, many the same; texts of three letters."""
    gold = [random_tags(generator, "BIO", types="PLTG") for _ in range(generator.randrange(1, 6))]
    predicted = [
        [tag if generator.random() < 0.5 else other for tag, other in zip(one, two, strict=True)]
        for one in gold
        for two in [generator.choices([tag for tags in gold for tag in tags] or ["O"], k=len(one))]
    ]
    texts = ["".join(generator.choices("abc", k=len(one))) for one in gold]
    return gold, predicted, texts


def test_the_figures_are_those_of_a_slow_reading() -> None:
    generator = random.Random(5)
    for _ in range(400):
        gold, predicted, texts = corpus(generator)
        found = entity_scores(gold, predicted, texts=texts)
        for strict, scores in ((True, found.strict), (False, found.lenient)):
            both = [
                {
                    (n, *span)
                    for n, tags in enumerate(each)
                    for span in slow_spans(tags, "BIO", strict)
                }
                for each in (gold, predicted)
            ]
            seen = sorted({type for spans in both for _, type, *_ in spans})
            f1s = [
                slow_f1(*({s for s in spans if s[1] == type} for spans in both)) for type in seen
            ]
            assert scores.micro.f1 == pytest.approx(slow_f1(*both))
            assert scores.macro_f1 == pytest.approx(sum(f1s) / max(len(f1s), 1))
            assert scores.micro.correct == len(both[0] & both[1])
            assert [scores.by_type[type].f1 for type in seen] == pytest.approx(f1s)
        assert found.course is not None
        assert vars(found.course.micro) == pytest.approx(slow_course(gold, predicted, texts))


def slow_f1(gold: set[tuple], predicted: set[tuple]) -> float:
    right = len(gold & predicted)
    precision, recall = right / max(len(predicted), 1), right / max(len(gold), 1)
    return 2 * precision * recall / (precision + recall) if right else 0.0


def slow_course(gold: list[list[str]], predicted: list[list[str]], texts: list[str]) -> dict:
    """As the course does it: patterns over label ids written one behind the other, and ``in``."""
    ids = {
        tag: str(n)
        for n, tag in enumerate(f"{prefix}-{type}" for prefix in "BI" for type in "PLTG")
    }
    right = said = there = 0
    for text, *both in zip(texts, gold, predicted, strict=True):
        joined = ["".join(ids.get(tag, "8") for tag in tags) for tags in both]
        for pattern in ("04+", "15+", "26+", "37+"):
            wanted, found = (
                [text[match.start() : match.end()] for match in re.finditer(pattern, each)]
                for each in joined
            )
            right += sum(entity in wanted for entity in found)
            said, there = said + len(found), there + len(wanted)
    precision, recall = right / (said + 1e-5), right / (there + 1e-5)
    f1 = 2 * precision * recall / (precision + recall + 1e-5)
    names = ("precision", "recall", "f1", "correct", "predicted", "gold")
    return dict(zip(names, (precision, recall, f1, right, said, there), strict=True))


def test_the_figures_are_seqevals() -> None:
    reason = "needs seqeval 1.2.2, whose figures these should equal"
    metrics = pytest.importorskip("seqeval.metrics", reason=reason)
    scheme = pytest.importorskip("seqeval.scheme", reason=reason)
    generator = random.Random(6)
    for _ in range(300):
        gold, predicted, _ = corpus(generator)
        found = entity_scores(gold, predicted)
        for scores, options in (
            (found.lenient, {}),
            (found.strict, {"mode": "strict", "scheme": scheme.IOB2}),
        ):
            if not scores.micro.gold + scores.micro.predicted:
                continue  # seqeval takes the mean of nothing
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                report = metrics.classification_report(
                    gold, predicted, output_dict=True, zero_division=0, **options
                )
            macro = (scores.macro_precision, scores.macro_recall, scores.macro_f1)
            for name, ours in (("micro avg", figures(scores)), ("macro avg", macro)):
                its = [report[name][key] for key in ("precision", "recall", "f1-score")]
                assert ours == pytest.approx(its)
            for type, each in scores.by_type.items():
                if each.predicted or each.gold:
                    assert each.f1 == pytest.approx(report[type]["f1-score"])


def test_the_partial_matches_are_nervaluates() -> None:
    reason = "needs nervaluate >= 1.2.1, whose figures these should equal"
    nervaluate = pytest.importorskip("nervaluate", reason=reason)
    generator = random.Random(7)
    for _ in range(400):
        gold, predicted, _ = corpus(generator)
        results = nervaluate.Evaluator(gold, predicted, tags=list("PLTG"), loader="list").evaluate()
        for mode, ours in entity_scores(gold, predicted).partial.items():
            its = results["overall"][mode]
            names = ("precision", "recall", "f1", "incorrect", "partial", "missed", "spurious")
            for name in names:
                assert getattr(ours, name) == pytest.approx(getattr(its, name)), (mode, name)
            assert ours.correct == its.correct + 0.5 * its.partial
        only = entity_scores(gold, predicted, types=["P"])
        for mode, ours in only.partial.items():
            if "P" in results["entities"]:
                assert ours.f1 == pytest.approx(results["entities"]["P"][mode].f1)
