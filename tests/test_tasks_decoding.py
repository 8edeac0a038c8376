"""Every switch of decoding does what it says, and the best way is found as by trying them all."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kernel_lib.errors import ArtifactError
from kernel_lib.metrics.spelling import spelling_scores
from kernel_lib.tasks.decoding import (
    THRESHOLDS,
    Choice,
    Decoding,
    choose_decoding,
    find_changes,
    strict_f1,
)
from kernel_lib.tasks.proposals import Proposal, proposals_from_json, proposals_to_json
from kernel_lib.tasks.spelling_settings import SpellingInferenceSettings
from kernel_lib.text.confusion import ConfusionSet
from kernel_lib.text.corrections import Change, apply_changes

CONFUSION = ConfusionSet.from_dict({"在": "再", "地": "的得"})
TEXT = "我在a地"
FIRST = [
    Proposal(0, 0.6, (("你", 0.4),)),  # keeping is likelier
    Proposal(1, 0.1, (("才", 0.5), ("再", 0.4), ("材", 0.05))),
    Proposal(2, 0.1, (("的", 0.9),)),  # no Chinese character
    Proposal(3, 0.3, (("的", 0.35), ("得", 0.32))),
]
SECOND = [Proposal(3, 0.1, (("得", 0.9),))]


def found(**changes: Any) -> list[tuple[int, str, float]]:
    decoding = Decoding(**changes)
    made = find_changes(TEXT, [FIRST, SECOND], decoding, CONFUSION)
    assert all(change.wrong == TEXT[change.position] for change in made)
    return [(change.position, change.right, change.probability) for change in made]


def test_every_switch() -> None:
    assert found() == [(1, "才", 0.5), (3, "的", 0.35)]
    assert found(chinese_only=False) == [(1, "才", 0.5), (2, "的", 0.9), (3, "的", 0.35)]
    assert found(threshold=0.5) == [(1, "才", 0.5)]  # the threshold itself is enough
    assert found(threshold=0.51) == []
    assert found(confusion_only=True) == [(1, "再", 0.4), (3, "的", 0.35)]
    assert found(confusion_only=True, threshold=0.4) == [(1, "再", 0.4)]
    assert found(confusion_only=True, chinese_only=False) == found(confusion_only=True)
    assert found(passes=2) == found(passes=9) == [(3, "得", 0.9)]  # the last there is


def test_without_a_confusion_set_none_of_its_changes_is_allowed() -> None:
    assert find_changes(TEXT, [FIRST], Decoding(confusion_only=True)) == []
    assert find_changes("", [[]], Decoding()) == []
    equal = [Proposal(0, 0.5, (("你", 0.5),))]
    assert find_changes(TEXT, [equal], Decoding()) == []  # as likely is not likelier
    assert find_changes(TEXT, [[Proposal(1, 0.0, (("再", 0.3),))]], Decoding()) == [
        Change(1, "在", "再", 0.3)
    ]


CHARACTERS = "在再地的得做a"


def make_oof(sentences: int, folds: int, seed: int, digits: int = 4) -> pd.DataFrame:
    """Short texts, most of them with errors, and what two passes propose: often what is right."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(sentences):
        target = "".join(random.choice(list(CHARACTERS), 4))
        source = list(target)
        for _ in range(number % 3):  # none, one or two errors
            source[random.integers(4)] = str(random.choice(list(CHARACTERS)))
        passes = []
        for _ in range(2):
            places = np.flatnonzero(random.random(4) < 0.5)
            proposals = []
            for at in places.tolist():
                keep, *shares = np.round(random.dirichlet(np.ones(4)), digits).tolist()
                others = random.permutation(list(set(CHARACTERS) - {source[at]})).tolist()[:3]
                if random.random() < 0.6 and source[at] != target[at]:
                    others = [target[at], *(o for o in others if o != target[at])]
                pairs = zip(others, sorted(shares, reverse=True), strict=False)
                proposals.append(Proposal(at, keep, tuple((o, p) for o, p in pairs)))
            passes.append(proposals)
        rows.append((number % folds, "".join(source), target, proposals_to_json(passes)))
    return pd.DataFrame(rows, columns=["fold", "source", "target", "proposals"])


parsed_once = functools.cache(proposals_from_json)


def decoded(oof: pd.DataFrame, decoding: Decoding) -> list[str]:
    parsed = map(parsed_once, oof["proposals"])
    return [
        apply_changes(source, find_changes(source, passes, decoding, CONFUSION))
        for source, passes in zip(oof["source"], parsed, strict=True)
    ]


def counted(oof: pd.DataFrame, decoding: Decoding) -> tuple[int, int, int, int]:
    """Sentences that are right after all, changed, changed though clean, and with errors."""
    rows = list(zip(oof["source"], oof["target"], decoded(oof, decoding), strict=True))
    return (
        sum(s != t == c for s, t, c in rows),
        sum(s != c for s, t, c in rows),
        sum(s == t != c for s, t, c in rows),
        sum(s != t for s, t, c in rows),
    )


def try_all(oof: pd.DataFrame, passes: int) -> Decoding:
    """The best by decoding every sentence in every way at every threshold; of equal ones the one
    that changes fewer clean sentences, then the first."""
    best, best_rank = None, None
    ways = itertools.product((True, False), (False, True), range(1, passes + 1), THRESHOLDS)
    for chinese, restricted, count, threshold in ways:
        decoding = Decoding(float(threshold), chinese, restricted, count)
        hits, changed, clean, positives = counted(oof, decoding)
        rank = (strict_f1(hits, changed, positives), -clean)
        if best_rank is None or rank > best_rank:
            best, best_rank = decoding, rank
    return best


@pytest.mark.parametrize(("seed", "digits", "passes"), [(0, 4, 2), (1, 1, 2), (2, 2, 1)])
def test_the_choice_is_that_of_trying_all(seed: int, digits: int, passes: int) -> None:
    """With one digit many probabilities equal a threshold, and each other."""
    oof = make_oof(30, folds=3, seed=seed, digits=digits)
    choice = choose_decoding(oof, CONFUSION, passes=passes)
    assert choice.decoding == try_all(oof, passes)
    totals = np.zeros(4)
    for fold in range(3):
        inside = oof["fold"] == fold
        totals += counted(oof[inside], try_all(oof[~inside], passes))
    assert choice.f1 == strict_f1(totals[0], totals[1], totals[3])


def test_the_curve_is_that_of_the_metrics() -> None:
    oof = make_oof(40, folds=2, seed=5)
    choice = choose_decoding(oof, CONFUSION, passes=2)
    assert choice.curve["threshold"].tolist() == THRESHOLDS.tolist()
    for _, row in choice.curve.iterrows():
        way = dataclasses.replace(choice.decoding, threshold=float(row["threshold"]))
        scores = spelling_scores(oof["source"].tolist(), oof["target"].tolist(), decoded(oof, way))
        strict = scores.strict_correction
        expected = [strict.precision, strict.recall, strict.f1, scores.fpr]
        assert row[["precision", "recall", "f1", "fpr"]].tolist() == pytest.approx(expected)
    at = choice.curve.set_index("threshold")["f1"]
    assert at[choice.decoding.threshold] == at.max()


def one_proposal(source: str, target: str, right: str, probability: float, fold: int) -> tuple:
    passes = [[Proposal(0, 0.01, ((right, probability),))]]
    return fold, source, target, proposals_to_json(passes)


def oof_of(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["fold", "source", "target", "proposals"])


def test_the_worth_of_a_choice_leaves_out_the_fold_it_is_scored_on() -> None:
    """In each fold another threshold is right; on the other fold it does harm."""
    first = [one_proposal("在", "再", "再", 0.3, 0)] * 4 + [one_proposal("地", "地", "的", 0.2, 0)]
    second = [one_proposal("在", "再", "再", 0.9, 1)] * 4 + [
        one_proposal("地", "地", "的", 0.5, 1)
    ] * 40
    choice = choose_decoding(oof_of(first + second), None, passes=1)
    # Fold 0 by fold 1's threshold (.52): nothing. Fold 1 by fold 0's (.22): 4 hits of 44 changed.
    assert choice.f1 == pytest.approx(2 * 4 / (44 + 8))
    assert choice.f1 < choice.curve["f1"].max()


def test_of_equal_ways_the_one_that_changes_fewer_clean_sentences_then_the_first() -> None:
    rows = [one_proposal("在", "再", "再", 0.9, 0), one_proposal("地", "地", "的", 0.5, 1)]
    assert choose_decoding(oof_of(rows), None, passes=1).decoding == Decoding(threshold=0.52)
    in_vain = [one_proposal("在", "再", "才", 0.9, 0), one_proposal("地", "地", "的", 0.5, 1)]
    assert choose_decoding(oof_of(in_vain), None, passes=1).decoding == Decoding(threshold=0.52)
    nothing = [(0, "在", "在", "[[]]"), (1, "地", "地", "[[]]")]
    choice = choose_decoding(oof_of(nothing), CONFUSION, passes=3)
    assert choice.decoding == Decoding() and choice.f1 == 0
    assert (choice.curve["f1"] == 0).all()


def test_a_single_fold_says_nothing_of_its_worth() -> None:
    choice = choose_decoding(make_oof(10, folds=1, seed=0), None, passes=1)
    assert np.isnan(choice.f1) and isinstance(choice, Choice)


def test_without_a_confusion_set_it_is_not_tried() -> None:
    for seed in range(4):
        choice = choose_decoding(make_oof(30, folds=2, seed=seed), None, passes=2)
        assert not choice.decoding.confusion_only


def test_a_decoding_goes_to_the_record_and_back() -> None:
    decoding = Decoding(0.34, False, True, 2)
    kept = json.loads(json.dumps(dataclasses.asdict(decoding)))
    assert Decoding.from_record(kept) == decoding
    assert Decoding.from_record({}) == Decoding()


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        "0.5",
        {"threshold": "0.5"},
        {"threshold": 1.5},
        {"threshold": True},
        {"threshold": float("nan")},
        {"chinese_only": 1},
        {"passes": 0},
        {"passes": True},
        {"passes": 1.0},
        {"treshold": 0.5},
    ],
)
def test_a_damaged_decoding_is_an_artifact_error(values: Any) -> None:
    with pytest.raises(ArtifactError, match="decoding in it is damaged"):
        Decoding.from_record(values)


def test_the_notebook_overrides_what_it_sets_and_nothing_else() -> None:
    chosen = Decoding(0.34, False, True, 2)
    assert chosen.overridden(SpellingInferenceSettings()) == chosen
    settings = SpellingInferenceSettings(threshold=0.0, chinese_only=True, confusion_only=False)
    assert chosen.overridden(settings) == Decoding(0.0, True, False, 2)
    assert chosen.overridden(SpellingInferenceSettings(passes=1)).passes == 1
