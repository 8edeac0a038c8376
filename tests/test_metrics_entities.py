"""The whole set of scores, what is refused, the standard error, and figures known beforehand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from kernel_lib.errors import DataError, SettingsError
from kernel_lib.metrics.entities import (
    entity_scores,
    f1_standard_error,
    micro_f1_standard_error,
    sentence_counts,
)
from kernel_lib.metrics.entity_definitions import DefinitionScores
from kernel_lib.metrics.tags import Span, convert_tags
from kernel_lib.tasks.viterbi import decode
from tests.conftest import SHARED

NER = SHARED / "data/ner"
COURSE_TYPES = ["PERSON", "LOCATION", "TIME", "ORGANIZATION"]


def test_counts_of_tokens_tags_and_sentences() -> None:
    gold = [["B-P", "I-P", "O"], [], ["O", "O"]]
    predicted = [["I-P", "I-P", "I-L"], [], ["O", "B-P"]]
    found = entity_scores(gold, predicted)
    assert (found.sentences, found.tokens, found.right_tokens) == (3, 5, 2)
    assert found.token_accuracy == 2 / 5
    assert (found.illegal_gold, found.illegal_predicted) == (0, 2)
    assert found.types == ("L", "P") and found.course is None


def test_a_type_only_predicted_adds_a_zero_to_the_mean_and_one_never_seen_does_not() -> None:
    gold, predicted = [["B-P", "O", "O"]], [["B-P", "O", "B-L"]]
    found = entity_scores(gold, predicted, types=["X", "P", "L"], texts=["abc"])
    assert found.lenient.macro_f1 == found.strict.macro_f1 == 1 / 2
    assert list(found.strict.by_type) == ["X", "P", "L"]
    assert found.strict.by_type["X"].gold == 0
    assert found.course is not None and found.course.macro_f1 == 0  # of one character all


def test_entities_of_other_types_do_not_count() -> None:
    gold, predicted = [["B-P", "O", "B-L"]], [["B-P", "O", "B-P"]]
    found = entity_scores(gold, predicted, types=["L"])
    assert (found.strict.micro.predicted, found.strict.micro.gold) == (0, 1)
    assert found.partial["exact"].missed == 1
    assert found.token_accuracy == 2 / 3


def test_nothing_predicted_and_nothing_there() -> None:
    found = entity_scores([["O"], []], [["O"], []], texts=["a", ""])
    for scores in (found.strict, found.lenient, found.course):
        assert scores is not None and scores.micro.f1 == scores.macro_f1 == 0
    assert entity_scores([[]], [[]]).token_accuracy == 0


def test_other_schemes_have_the_same_figures() -> None:
    gold = [["B-P", "I-P", "B-P", "O", "B-L"], ["O", "B-L"]]
    predicted = [["B-P", "I-P", "O", "O", "B-L"], ["B-P", "B-L"]]
    texts = ["abcde", "fg"]
    expected = entity_scores(gold, predicted, texts=texts)
    assert expected.strict.micro.correct == 3
    for scheme in ("IOB1", "BIOES"):
        other = [
            [convert_tags(tags, from_scheme="BIO", to_scheme=scheme) for tags in each]
            for each in (gold, predicted)
        ]
        found = entity_scores(*other, scheme=scheme, texts=texts)
        for name in ("strict", "lenient", "partial", "course"):
            assert getattr(found, name) == getattr(expected, name)


def test_the_course_compares_surfaces_of_tokens_too() -> None:
    gold, predicted = [["B-P", "I-P", "O", "O"]], [["O", "O", "B-P", "I-P"]]
    tokens = [["New", "York", "Ne", "wYork"]]
    found = entity_scores(gold, predicted, texts=tokens)
    assert found.course is not None and found.course.micro.correct == 1


def test_unequal_lengths_are_an_error_that_names_the_sentence() -> None:
    gold = [["O"], ["O", "B-P"], ["O"]]
    with pytest.raises(DataError, match=r"1 of 3 sentences .*sentence 1: 2 gold tags, 1 predicted"):
        entity_scores(gold, [["O"], ["O"], ["O"]])
    with pytest.raises(DataError, match="sentence b7: 2 gold tags, 3 tokens"):
        entity_scores(gold, gold, texts=["a", "abc", "a"], ids=["a1", "b7", "c"])
    with pytest.raises(DataError, match="3 gold sentences, 2 predictions"):
        entity_scores(gold, gold[:2])
    with pytest.raises(DataError, match="3 gold sentences, 1 ids"):
        entity_scores(gold, gold, ids=[7])
    with pytest.raises(DataError, match="no sentence"):
        entity_scores([], [])
    with pytest.raises(DataError, match="sentence 1: 2 gold tags"):
        micro_f1_standard_error(gold, [["O"], ["O"], ["O"]])


def test_unknown_tags_schemes_and_readings_are_errors() -> None:
    with pytest.raises(DataError, match="Sentence b, tag 2: 'X-P' is no tag of BIO"):
        entity_scores([["O"], ["O", "O"]], [["O"], ["O", "X-P"]], ids=["a", "b"])
    with pytest.raises(SettingsError, match="scheme is 'IOBES'"):
        entity_scores([["O"]], [["O"]], scheme="IOBES")
    with pytest.raises(SettingsError, match="reading is 'default'; choose one of 'strict', 'len"):
        micro_f1_standard_error([["O"]], [["O"]], reading="default")


HIT, WRONG, MISSED = (["B-P"], ["B-P"]), (["B-P"], ["B-L"]), (["B-P"], ["O"])
ORPHAN, SPURIOUS, NOTHING = (["B-P"], ["I-P"]), (["O"], ["B-P"]), (["O"], ["O"])
KINDS = ((HIT, 150), (WRONG, 60), (MISSED, 90), (ORPHAN, 30), (SPURIOUS, 40), (NOTHING, 260))


def lists(*counts: tuple[tuple[list[str], list[str]], int]) -> list[list[list[str]]]:
    """Gold and predicted tags of so many sentences of each kind."""
    return [[pair[side] for pair, n in counts for _ in range(n)] for side in (0, 1)]


@pytest.mark.parametrize(
    ("reading", "correct", "predicted"),
    [("strict", [1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 1, 0]), ("lenient", [1, 0, 0, 1, 0, 0], None)],
)
def test_the_standard_error_is_that_of_sentences_drawn_one_by_one(
    reading: Any, correct: list[int], predicted: list[int] | None
) -> None:
    flags = np.array([correct, predicted or [1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 0, 0]])
    kind = np.repeat(np.arange(6), [n for _, n in KINDS])
    random, scores = np.random.default_rng(11), []
    for _ in range(3000):
        hit, said, there = flags[:, random.choice(kind, size=len(kind))].sum(axis=1)
        scores.append(2 * hit / (said + there))
    found = micro_f1_standard_error(*lists(*KINDS), reading=reading, resamples=4000)
    assert found == pytest.approx(np.std(scores, ddof=1), rel=0.05)


def test_the_standard_error_shrinks_with_the_root_of_the_sentences_and_repeats() -> None:
    counts = sentence_counts(
        [[Span("P", 0, 1)], [Span("P", 0, 1)], []] * 20, [[Span("P", 0, 1)], [], []] * 20
    )
    assert counts[:3].tolist() == [[1, 1, 1], [0, 0, 1], [0, 0, 0]]
    few, more = f1_standard_error(counts), f1_standard_error(np.tile(counts, (16, 1)))
    assert more == pytest.approx(few / math.sqrt(16), rel=0.1)
    assert few == f1_standard_error(counts) != f1_standard_error(counts, seed=1)
    assert f1_standard_error(counts[:1]) == f1_standard_error(counts[2:3]) == 0.0


def test_the_standard_error_is_of_the_types_asked_for() -> None:
    pairs = lists((HIT, 20), ((["B-L"], ["O"]), 20))
    assert micro_f1_standard_error(*pairs) > 0.02
    assert micro_f1_standard_error(*pairs, types=["P"]) == 0.0


@pytest.mark.parametrize(("name", "constrained"), [("argmax", False), ("viterbi_BIO", True)])
def test_one_set_of_emissions_has_the_known_figures(name: str, constrained: bool) -> None:
    if not NER.is_dir():
        pytest.skip(f"needs {NER.relative_to(SHARED.parent)}")
    lines = (NER / "badou/dev.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    ids = json.loads((NER / "badou/labels.json").read_text(encoding="utf-8"))
    expected = json.loads((NER / "emissions_badou_dev.expected.json").read_text(encoding="utf-8"))
    with np.load(NER / "emissions_badou_dev.npz") as file:
        emissions = np.split(file["logp"], np.cumsum(file["lengths"])[:-1])
    predicted = decode(emissions, sorted(ids, key=ids.get), constrained=constrained)
    found = entity_scores(
        [row["tags"] for row in rows],
        predicted,
        types=COURSE_TYPES,
        texts=["".join(row["tokens"]) for row in rows],
    )
    illegal = 0 if constrained else expected["illegal_transitions_in_argmax"]
    assert (found.illegal_predicted, found.illegal_gold) == (illegal, 0)
    assert (found.sentences, found.tokens) == (209, 10_001)
    for definition, scores in (
        ("default", found.lenient),
        ("strict", found.strict),
        ("course", found.course),
    ):
        assert isinstance(scores, DefinitionScores)
        *figures, correct, said, there = expected[name][f"{definition}_micro"]
        micro = scores.micro
        assert (micro.correct, micro.predicted, micro.gold) == (correct, said, there)
        assert [micro.precision, micro.recall, micro.f1] == pytest.approx(figures, rel=1e-13)
        macro = expected[name][f"{definition}_macro"]
        assert scores.macro_f1 == pytest.approx(macro, rel=1e-13)
