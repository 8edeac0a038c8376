"""The floors of Chinese spelling correction: what can be had without a neural network.

One floor does nothing. The other puts a character of the confusion sets wherever that makes the
sentence likelier by more than a margin, judged by character trigrams of right sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kernel_lib.bench.ngrams import CONTEXT, Array, Trigrams
from kernel_lib.metrics.spelling import spelling_scores

MARGINS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0)
CHUNK = 512  # sentences corrected at a time
PASSES = 3  # a change can make its neighbour's error plain


class NgramCorrector:
    """Corrects by trigrams and confusion sets.

    A character's gain is the logarithm of how much likelier the sentence gets by the best change
    there: the three trigrams that hold the character, after over before. Of changes within two
    characters of each other the one of the largest gain is made; then all is judged again.

    Args:
        texts: right sentences.
        confusions: for each character those it may be replaced by.
    """

    def __init__(self, texts: Sequence[str], confusions: Mapping[str, str]) -> None:
        self._model = Trigrams(texts, alphabet=set(confusions).union(*confusions.values()))
        choices = [
            self._model.ids_of(confusions.get(character, ""))
            for character in self._model.characters
        ]
        self._count = np.array([len(each) for each in choices])
        self._first = np.cumsum(self._count) - self._count
        self._choices = np.array([at for each in choices for at in each], dtype=np.int64)

    def correct(self, texts: Sequence[str], margin: float) -> list[str]:
        """The texts, each as long as before, with every change of a gain above the margin."""
        found: list[str] = []
        for start in range(0, len(texts), CHUNK):
            found += self._correct(texts[start : start + CHUNK], margin)
        return found

    def _correct(self, texts: Sequence[str], margin: float) -> list[str]:
        before = self._model.encode(texts)
        codes = before.copy()
        for _ in range(PASSES):
            gain, choice = self._gains(codes)
            take = (gain > margin) & _highest_nearby(gain)
            if not take.any():
                break
            codes[take] = choice[take]
        corrected, start = [], CONTEXT
        for text in texts:
            characters = list(text)
            for at in np.flatnonzero(codes[start:][: len(text)] != before[start:][: len(text)]):
                characters[at] = self._model.characters[codes[start + at]]
            corrected.append("".join(characters))
            start += len(text) + 2 * CONTEXT
        return corrected

    def _gains(self, codes: Array) -> tuple[Array, Array]:
        """The best gain at each place, -inf where there is none, and the id that brings it."""
        count = self._count[codes]
        place = np.repeat(np.arange(len(codes)), count)
        within = np.arange(len(place)) - np.repeat(np.cumsum(count) - count, count)
        other = self._choices[self._first[codes[place]] + within]
        # What was never seen beside either neighbour is not looked at further: most of them.
        likely = self._model.follows(codes[place - 1], other)
        likely |= self._model.follows(other, codes[place + 1])
        place, other = place[likely], other[likely]
        gain = self._score(codes, place, other) - self._score(codes, place, codes[place])
        order = np.lexsort((-gain, place))
        place, other, gain = place[order], other[order], gain[order]
        best = np.append(True, place[1:] != place[:-1]) if len(place) else np.zeros(0, bool)
        gains, choice = np.full(len(codes), -np.inf), codes.copy()
        gains[place[best]], choice[place[best]] = gain[best], other[best]
        return gains, choice

    def _score(self, codes: Array, place: Array, put: Array) -> Array:
        far_left, left = codes[place - 2], codes[place - 1]
        right, far_right = codes[place + 1], codes[place + 2]
        log = self._model.log_probability
        return log(far_left, left, put) + log(left, put, right) + log(put, right, far_right)


def choose_margin(
    sources: Sequence[str],
    targets: Sequence[str],
    others: Sequence[str],
    confusions: Mapping[str, str],
) -> float:
    """The margin of the best strict correction F1 on held-out training sentences.

    A fifth of the sentences is held out, all sentences of one target together. As training files
    of this task hold few right sentences and test files about one in two, every other held-out
    sentence is judged with its target as its source.

    Args:
        sources: training sentences of the kind that is to be corrected.
        targets: the same without errors.
        others: right sentences of other kinds, counted too.
        confusions: for each character those it may be replaced by.
    """
    distinct = list(dict.fromkeys(targets))
    held = set(np.random.default_rng(0).permutation(np.array(distinct, dtype=object))[::5])
    rows = [(s, t) for s, t in zip(sources, targets, strict=True) if t in held]
    right = [row[1] for row in rows]
    given = [row[at % 2] for at, row in enumerate(rows)]
    counted = [text for text in (*targets, *others) if text not in held]
    corrector = NgramCorrector(counted, confusions)

    def quality(margin: float) -> float:
        scores = spelling_scores(given, right, corrector.correct(given, margin))
        return scores.strict_correction.f1

    return max(MARGINS, key=quality)


def _highest_nearby(gain: Array) -> Array:
    """Where no gain within two places is larger, nor an equal one stands before it."""
    padded = np.concatenate([np.full(CONTEXT, -np.inf), gain, np.full(CONTEXT, -np.inf)])
    n = len(gain)
    before = np.maximum(padded[0:n], padded[1 : n + 1])
    behind = np.maximum(padded[3 : n + 3], padded[4 : n + 4])
    return (gain > before) & (gain >= behind)
