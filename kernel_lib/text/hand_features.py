"""What can be counted in a text without a model: length, punctuation, capitals, common slips.

The features are for English prose. They say what an encoder that reads lower case and no line
breaks cannot know, and what the mean over its tokens forgets, such as how long a text is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

LONG_WORD, SHORT_WORD = 7, 3  # letters
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?:\s|$)")
_NO_APOSTROPHE = {
    *("dont", "doesnt", "didnt", "cant", "wont", "isnt", "arent", "wasnt", "werent", "couldnt"),
    *("wouldnt", "shouldnt", "havent", "hasnt", "im", "ive", "youre", "theyre", "thats", "whats"),
}


@dataclass(frozen=True)
class _Prose:
    """A text taken apart; nothing divides by zero where it is empty."""

    text: str

    @cached_property
    def words(self) -> list[str]:
        return _WORD.findall(self.text)

    @cached_property
    def lower(self) -> list[str]:
        return [word.lower() for word in self.words]

    @cached_property
    def sentences(self) -> list[str]:
        return [part.strip() for part in _SENTENCE_END.split(self.text) if part.strip()]

    @cached_property
    def word_lengths(self) -> NDArray[np.int64]:
        return np.array([len(word) for word in self.words] or [0])

    @cached_property
    def sentence_lengths(self) -> NDArray[np.int64]:
        return np.array([len(sentence.split()) for sentence in self.sentences] or [0])

    @property
    def paragraphs(self) -> int:
        return sum(bool(part.strip()) for part in self.text.split("\n"))

    def per_word(self, count: float) -> float:
        return count / max(1, len(self.words))

    def per_sentence(self, count: float) -> float:
        return count / max(1, len(self.sentences))

    def per_character(self, count: float) -> float:
        return count / max(1, len(self.text))

    def found(self, pattern: str) -> int:
        return len(re.findall(pattern, self.text))


FEATURES: dict[str, Callable[[_Prose], float]] = {
    "log_words": lambda p: float(np.log1p(len(p.words))),
    "words": lambda p: len(p.words),
    "log_sentences": lambda p: float(np.log1p(len(p.sentences))),
    "log_paragraphs": lambda p: float(np.log1p(p.paragraphs)),
    "sentence_mean": lambda p: float(p.sentence_lengths.mean()),
    "sentence_spread": lambda p: float(p.sentence_lengths.std()),
    "sentence_longest": lambda p: float(p.sentence_lengths.max()),
    "word_mean": lambda p: float(p.word_lengths.mean()),
    "word_spread": lambda p: float(p.word_lengths.std()),
    "long_words": lambda p: float((p.word_lengths >= LONG_WORD).mean()),
    "short_words": lambda p: p.per_word(sum(len(word) <= SHORT_WORD for word in p.words)),
    "different_words": lambda p: p.per_word(len(set(p.lower))),
    "guiraud": lambda p: len(set(p.lower)) / max(1, len(p.words)) ** 0.5,
    "commas": lambda p: p.per_word(p.text.count(",")),
    "full_stops": lambda p: p.per_word(p.text.count(".")),
    "loud_marks": lambda p: p.per_word(p.found("[!?]")),
    "fine_marks": lambda p: p.per_word(p.found("[;:—–-]")),
    "apostrophes": lambda p: p.per_word(p.found("['’]")),
    "quotes": lambda p: p.per_word(p.found('["“”]')),
    "digits": lambda p: p.per_character(p.found(r"\d")),
    "capitals": lambda p: p.per_character(p.found("[A-Z]")),
    "capital_words": lambda p: p.per_word(sum(word[0].isupper() for word in p.words)),
    "small_i": lambda p: p.per_word(p.words.count("i")),
    "small_starts": lambda p: p.per_sentence(sum(s[0].islower() for s in p.sentences)),
    "space_before_mark": lambda p: p.per_word(p.found(r" [,.!?;]")),
    "no_space_after_mark": lambda p: p.per_word(p.found(r"[,.!?;][^\W\d_]")),
    "double_spaces": lambda p: p.per_word(p.found(r"  +")),
    "no_apostrophe": lambda p: p.per_word(sum(word in _NO_APOSTROPHE for word in p.lower)),
    "repeated_words": lambda p: p.per_word(
        sum(a == b for a, b in zip(p.lower, p.lower[1:], strict=False))
    ),
}


def hand_features(texts: Sequence[str]) -> NDArray[np.float64]:
    """The features of some texts, ``(texts, len(FEATURES))``, in the order of ``FEATURES``.

    Args:
        texts: their line ends are ``\\n``; an empty one has numbers, too.
    """
    rows = [[count(prose) for count in FEATURES.values()] for prose in map(_Prose, texts)]
    return np.array(rows, dtype=np.float64).reshape(len(texts), len(FEATURES))
