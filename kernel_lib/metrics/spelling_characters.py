"""The characters of many sentences side by side: as written, as they should be, as predicted.

They lie in one array after another, so that counting them takes no Python loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kernel_lib.errors import DataError, SettingsError

Particles = Literal["as they are", "drop_predicted", "give_gold"]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

SHOWN = 5  # how many offending sentences an error message names
CODE_POINTS = 0x110000  # Unicode has no code point from here on


@dataclass(frozen=True)
class Characters:
    """Code points, all of shape ``(characters,)``, sentence after sentence.

    Attributes:
        sentences: how many sentences there are, empty ones among them.
        sentence: the number of the sentence that each character stands in.
        source: the character as it was written.
        target: the right one.
        prediction: the predicted one.
    """

    sentences: int
    sentence: IntArray
    source: IntArray
    target: IntArray
    prediction: IntArray

    @property
    def wrong(self) -> BoolArray:
        """Where the source has an error."""
        return self.source != self.target

    @property
    def changed(self) -> BoolArray:
        """Where the prediction differs from the source."""
        return self.source != self.prediction

    @property
    def right(self) -> BoolArray:
        """Where the prediction is the right character."""
        return self.prediction == self.target

    def sentences_with(self, where: BoolArray) -> BoolArray:
        """Which sentences hold at least one of the marked characters, ``(sentences,)``."""
        return np.bincount(self.sentence[where], minlength=self.sentences) > 0

    def in_sentence(self, points: IntArray) -> IntArray:
        """One number for each pair of a sentence and a code point that stands in it."""
        return self.sentence * CODE_POINTS + points


def align(
    sources: Sequence[str],
    targets: Sequence[str],
    predictions: Sequence[str],
    *,
    particles: Particles = "as they are",
) -> Characters:
    """Puts the characters of all sentences side by side.

    Args:
        sources: sentences.
        targets: as many, each as long as its source.
        predictions: likewise.
        particles: what to do about 的, 地 and 得, see ``spelling_scores``.

    Raises:
        DataError: the lists or a sentence's three texts differ in length, there is no sentence, or
            a text is no string.
        SettingsError: ``particles`` is unknown.
    """
    if particles not in get_args(Particles):
        known = ", ".join(map(repr, get_args(Particles)))
        raise SettingsError(f"particles is {particles!r}; choose one of {known}.")
    texts = {"source": sources, "target": targets, "prediction": predictions}
    lists = {name: _strings(name, given) for name, given in texts.items()}
    counts = {name: len(given) for name, given in lists.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count:,} {name}s" for name, count in counts.items())
        raise DataError(f"{found}: there must be one of each for every sentence.")
    if not counts["source"]:
        raise DataError("There is no sentence to score. Give at least one.")
    lengths = {name: np.array([len(text) for text in given]) for name, given in lists.items()}
    _check_lengths(lengths)
    points = {name: _code_points(given) for name, given in lists.items()}
    source, target, prediction = points["source"], points["target"], points["prediction"]
    if particles == "drop_predicted":
        prediction = np.where(_is_one_of(prediction, "地得"), source, prediction)
    if particles == "give_gold":
        prediction = np.where(_is_one_of(target, "的地得"), target, prediction)
    return Characters(
        sentences=counts["source"],
        sentence=np.repeat(np.arange(counts["source"]), lengths["source"]),
        source=source,
        target=target,
        prediction=prediction,
    )


def _strings(name: str, given: Sequence[str]) -> list[str]:
    """The texts as a list; one string alone would pass for a list of sentences of one letter."""
    texts = [given] if isinstance(given, str) else list(given)
    bad = [index for index, text in enumerate(texts) if not isinstance(text, str)]
    if isinstance(given, str) or bad:
        found = f"{name} {bad[0]} is {texts[bad[0]]!r}" if bad else f"{name}s are one string"
        raise DataError(f"The {found}. Give a list of strings, one a sentence.")
    return texts


def _check_lengths(lengths: dict[str, IntArray]) -> None:
    source, target, prediction = lengths.values()
    unequal = np.flatnonzero((source != target) | (source != prediction))
    if len(unequal):
        shown = "; ".join(
            f"index {index}: "
            + ", ".join(f"{name} {each[index]}" for name, each in lengths.items())
            for index in unequal[:SHOWN]
        )
        more = f"; {len(unequal) - SHOWN:,} more" if len(unequal) > SHOWN else ""
        raise DataError(
            f"{len(unequal):,} of {len(source):,} sentences have texts of unequal length in "
            f"characters ({shown}{more}). Scores compare place by place: a prediction must keep "
            "its source's length; leave out pairs that do not, and say how many."
        )


def _code_points(texts: list[str]) -> IntArray:
    # "surrogatepass": half a surrogate is one character like any other here.
    encoded = "".join(texts).encode("utf-32-le", "surrogatepass")
    return np.frombuffer(encoded, dtype="<u4").astype(np.int64)


def _is_one_of(points: IntArray, characters: str) -> BoolArray:
    return np.isin(points, [ord(character) for character in characters])
