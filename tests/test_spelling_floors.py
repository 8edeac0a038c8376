"""The n-gram floor mends what trigrams can tell, leaves the rest, and keeps every place."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kernel_lib.bench import spelling_floors
from kernel_lib.bench.spelling_floors import MARGINS, NgramCorrector, _highest_nearby, choose_margin

RIGHT = [
    f"{who}在图书馆{what}。" for who in "我你他她" for what in ("看书", "写字", "上课", "等人")
]
CONFUSIONS = {"管": "馆官", "馆": "管", "官": "管", "克": "课", "课": "克", "再": "在", "在": "再"}


@pytest.fixture(scope="module")
def corrector() -> NgramCorrector:
    return NgramCorrector(RIGHT, CONFUSIONS)


def test_errors_are_mended_and_right_sentences_stay(corrector: NgramCorrector) -> None:
    wrong = ["我在图书管上克。", "他再图书馆看书。", "她在图书管等人。"]
    assert corrector.correct(wrong, 1.0) == [
        "我在图书馆上课。",
        "他在图书馆看书。",
        "她在图书馆等人。",
    ]
    assert corrector.correct(RIGHT, 1.0) == RIGHT


def test_of_two_repairs_that_exclude_each_other_one_is_made() -> None:
    corrector = NgramCorrector(
        ["甲乙", "丙丁"] * 4, {"甲": "丙", "丙": "甲", "乙": "丁", "丁": "乙"}
    )
    assert corrector.correct(["甲丁"], 0.1)[0] in ("甲乙", "丙丁")


def test_one_neighbour_is_enough_to_go_by(corrector: NgramCorrector) -> None:
    assert corrector.correct(["龘再图书馆看书。"], 0.5) == ["龘在图书馆看书。"]


def test_only_the_confusion_sets_are_taken_from(corrector: NgramCorrector) -> None:
    assert corrector.correct(["我在图书龟看书。"], 0.5) == ["我在图书龟看书。"]


def test_a_margin_too_large_changes_nothing(corrector: NgramCorrector) -> None:
    assert corrector.correct(["我在图书管看书。"], 100.0) == ["我在图书管看书。"]


@pytest.mark.parametrize("text", ["", "管", "\0", "A1 \t😀“”", "龘" * 5, "管" * 600])
def test_any_text_keeps_its_length_and_what_is_not_in_the_sets(
    corrector: NgramCorrector, text: str
) -> None:
    [found] = corrector.correct([text], 0.5)
    assert len(found) == len(text)
    for before, after in zip(text, found, strict=True):
        assert before == after or after in CONFUSIONS[before]


def test_a_text_does_not_depend_on_its_neighbours(
    corrector: NgramCorrector, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["我在图书管上克。", "", "管", "他再图书馆看书。", "管克再"]
    alone = [corrector.correct([text], 1.0)[0] for text in texts]
    for size in (1, 2, 512):
        monkeypatch.setattr(spelling_floors, "CHUNK", size)
        assert corrector.correct(texts, 1.0) == alone


def test_a_gain_is_that_of_the_whole_sentence() -> None:
    corrector = NgramCorrector(RIGHT, CONFUSIONS)
    model = corrector._model

    def likelihood(text: str) -> float:
        codes = model.encode([text])
        inner = np.arange(2, len(codes))
        return float(model.log_probability(codes[inner - 2], codes[inner - 1], codes[inner]).sum())

    gains, choice = corrector._gains(model.encode(["我在图书管上课。"]))
    at = 2 + 4
    assert model.characters[choice[at]] == "馆"
    assert gains[at] == pytest.approx(
        likelihood("我在图书馆上课。") - likelihood("我在图书管上课。")
    )
    margin = float(gains[at])
    assert corrector.correct(["我在图书管上课。"], margin - 1e-6) == ["我在图书馆上课。"]
    assert corrector.correct(["我在图书管上课。"], margin + 1e-6) == ["我在图书管上课。"]


def test_of_near_gains_the_largest_and_of_equal_ones_the_first_is_taken() -> None:
    none = -np.inf
    gains = np.array([1.0, 2.0, 2.0, none, 1.0, none, none, 3.0])
    assert _highest_nearby(gains).nonzero()[0].tolist() == [1, 7]
    for row in itertools.product([none, 1.0, 2.0], repeat=6):
        taken = _highest_nearby(np.array(row)).nonzero()[0]
        assert (np.diff(taken) > 2).all()


def test_the_margin_is_the_best_one_on_held_out_sentences() -> None:
    sources = [text.replace("馆", "管") for text in RIGHT]
    margin = choose_margin(sources, RIGHT, [], CONFUSIONS)
    assert margin in MARGINS
    # Without a right sentence ever changed, the smallest that mends all is as good as any.
    assert margin == MARGINS[0]


def test_held_out_sentences_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    judged: list[str] = []

    class Spy(NgramCorrector):
        def __init__(self, texts: list[str], confusions: dict[str, str]) -> None:
            counted.extend(texts)
            super().__init__(texts, confusions)

        def correct(self, texts: list[str], margin: float) -> list[str]:  # type: ignore[override]
            judged.extend(texts)
            return super().correct(texts, margin)

    monkeypatch.setattr(spelling_floors, "NgramCorrector", Spy)
    sources = [text.replace("馆", "管") for text in RIGHT]
    choose_margin(sources + sources, RIGHT + RIGHT, [*RIGHT, "别的句子。"], CONFUSIONS)
    held = {text.replace("管", "馆") for text in judged}
    assert held and "别的句子。" in counted
    assert not held & set(counted)
    assert held | set(counted) == {*RIGHT, "别的句子。"}
    wrong = [text for text in judged if "管" in text]
    assert 0.3 < len(wrong) / len(judged) < 0.7  # some are judged as they are, others without error
