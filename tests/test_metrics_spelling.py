"""The whole set of scores, the false positive rate, and the standard error."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

import numpy as np
import pytest

from kernel_lib.errors import DataError
from kernel_lib.metrics.spelling import correction_f1_standard_error, spelling_scores
from kernel_lib.metrics.spelling_definitions import Score
from tests.conftest import SHARED

SIGHAN15 = SHARED / "data/csc/sighan15_test.jsonl"
FIXED, WRONG_REPAIR, MISSED = ("ab", "xb", "xb"), ("ab", "xb", "zb"), ("ab", "xb", "ab")
CHANGED, KEPT = ("ab", "ab", "zb"), ("ab", "ab", "ab")


def lists(*counts: tuple[tuple[str, str, str], int]) -> Iterable[list[str]]:
    """Sources, targets and predictions of so many sentences of each kind."""
    return map(list, zip(*(triple for triple, n in counts for _ in range(n)), strict=True))


def test_the_false_positive_rate_is_over_clean_sentences() -> None:
    scores = spelling_scores(*lists((FIXED, 5), (WRONG_REPAIR, 4), (CHANGED, 3), (KEPT, 9)))
    assert scores.fpr == 3 / 12
    assert (scores.sentences, scores.positives, scores.clean_changed) == (21, 9, 3)
    assert (scores.characters, scores.wrong_characters) == (42, 9)


def test_without_a_clean_sentence_the_rate_is_zero() -> None:
    assert spelling_scores(*lists((FIXED, 2))).fpr == 0.0


def test_no_changed_sentence_gives_zeros_and_the_accuracy_of_doing_nothing() -> None:
    scores = spelling_scores(*lists((MISSED, 3), (KEPT, 1)))
    for name, score in vars(scores).items():
        if isinstance(score, Score):
            assert (score.precision, score.recall, score.f1) == (0.0, 0.0, 0.0), name
    assert scores.fpr == 0.0
    assert scores.strict_correction.accuracy == 1 / 4
    assert scores.character_correction_log.accuracy == 5 / 8


def test_texts_without_any_error_and_without_any_character() -> None:
    scores = spelling_scores(["", "ab"], ["", "ab"], ["", "ab"])
    assert scores.strict_correction.accuracy == 1.0 and scores.strict_correction.f1 == 0.0
    empty = spelling_scores([""], [""], [""])
    assert empty.character_detection.accuracy == 0.0 and empty.strict_detection.accuracy == 1.0


def test_bad_input_is_an_error_of_the_entry_too() -> None:
    for score in (spelling_scores, correction_f1_standard_error):
        with pytest.raises(DataError, match="index 0: source 2, target 2, prediction 1"):
            score(["ab"], ["ab"], ["a"])


def test_doing_nothing_on_sighan15() -> None:
    if not SIGHAN15.is_file():
        pytest.skip(f"needs {SIGHAN15.relative_to(SHARED.parent)}")
    rows = [json.loads(line) for line in SIGHAN15.read_text(encoding="utf-8").splitlines()]
    sources, targets = [row["source"] for row in rows], [row["target"] for row in rows]
    nothing = spelling_scores(sources, targets, sources)
    assert (nothing.sentences, nothing.positives, nothing.wrong_characters) == (1100, 541, 703)
    assert nothing.strict_correction.recall == nothing.loose_detection.recall == nothing.fpr == 0
    assert nothing.strict_correction.accuracy == 559 / 1100
    everything = spelling_scores(sources, targets, targets)
    assert all(score.f1 == 1.0 for score in vars(everything).values() if isinstance(score, Score))
    assert everything.fpr == 0


KINDS = ((FIXED, 150), (WRONG_REPAIR, 60), (MISSED, 90), (CHANGED, 40), (KEPT, 260))
HIT, FLAGGED, WANTED = [1, 0, 0, 0, 0], [1, 1, 0, 1, 0], [1, 1, 1, 0, 0]


def test_the_standard_error_is_that_of_sentences_drawn_one_by_one() -> None:
    kind = np.repeat(np.arange(5), [n for _, n in KINDS])
    random, scores = np.random.default_rng(11), []
    for _ in range(4000):
        drawn = random.choice(kind, size=len(kind))
        hit, flagged, wanted = (np.array(flags)[drawn].sum() for flags in (HIT, FLAGGED, WANTED))
        precision, recall = hit / flagged, hit / wanted
        scores.append(2 * precision * recall / (precision + recall))
    found = correction_f1_standard_error(*lists(*KINDS), resamples=4000)
    assert found == pytest.approx(np.std(scores, ddof=1), rel=0.05)


def test_the_standard_error_shrinks_with_the_root_of_the_sentences_and_repeats() -> None:
    few = correction_f1_standard_error(*lists(*KINDS), resamples=4000)
    more = ((triple, 16 * n) for triple, n in KINDS)
    assert correction_f1_standard_error(*lists(*more), resamples=4000) == pytest.approx(
        few / math.sqrt(16), rel=0.1
    )
    assert few == correction_f1_standard_error(*lists(*KINDS), resamples=4000)
    assert few != correction_f1_standard_error(*lists(*KINDS), resamples=4000, seed=1)


def test_where_all_sentences_go_alike_there_is_no_standard_error() -> None:
    assert correction_f1_standard_error(*lists((FIXED, 20))) == 0.0
    assert correction_f1_standard_error(*lists((KEPT, 20))) == 0.0
    assert correction_f1_standard_error(*lists((FIXED, 9), (KEPT, 9))) == 0.0


def test_the_standard_error_knows_the_particles() -> None:
    wrong_particle = ("跑的快", "跑得快", "跑地快")
    texts = [list(each) for each in lists((wrong_particle, 10), (FIXED, 10))]
    assert correction_f1_standard_error(*texts) > 0.05
    assert correction_f1_standard_error(*texts, particles="give_gold") == 0.0
