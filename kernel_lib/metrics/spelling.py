"""Scores of Chinese spelling correction by every definition in use, and how sure they are.

``spelling_definitions`` says what each one counts; the same output of one model scored .78 by one
and .71 by another, so a figure without the name of its definition says little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kernel_lib.metrics.spelling_characters import Particles, align
from kernel_lib.metrics.spelling_definitions import (
    Score,
    character_scores,
    count,
    ratio,
    sentence_scores,
)


@dataclass(frozen=True)
class SpellingScores:
    """Every definition on one set of sentences; ``spelling_definitions`` has them in a table.

    Attributes:
        particles: what was done about 的, 地 and 得 before counting.
        sentences: how many there are.
        positives: how many of them have errors.
        clean_changed: how many of the others were changed.
        characters: in all sentences.
        wrong_characters: errors in all sentences.
        fpr: false positive rate, ``clean_changed`` over clean sentences; 0 where none is clean.
        official_detection: S-official; accuracy counts hits and clean sentences left alone.
        official_correction: S-official.
        official_tool_correction: as the published SIGHAN 14 and 15 tool computes it. Once the
            positions agree it asks of each new character only that it is among the right ones of
            the sentence, wherever: two right characters swapped count as a hit.
        strict_detection: S-strict; accuracy as above.
        strict_correction: S-strict.
        loose_detection: S-loose; accuracy counts sentences with errors that were changed and clean
            ones left alone. SIGHAN 13 sub-task 1 calls this its detection.
        sighan13_location: S-2013, sub-task 1, error location; the same figures as
            ``strict_detection``.
        sighan13_second_location: S-2013, sub-task 2, whose sentences all have errors: accuracy
            divides by these only.
        sighan13_second_correction: S-2013, sub-task 2; accuracy as above.
        character_detection: accuracy counts errors changed and right characters left alone.
        character_correction_log: C-log; accuracy counts the characters that are right in the end.
        character_correction_all: C-all.
        character_correction_detected: C-detected.
        character_correction_wang: C-Wang2019.
    """

    particles: Particles
    sentences: int
    positives: int
    clean_changed: int
    characters: int
    wrong_characters: int
    fpr: float
    official_detection: Score
    official_correction: Score
    official_tool_correction: Score
    strict_detection: Score
    strict_correction: Score
    loose_detection: Score
    sighan13_location: Score
    sighan13_second_location: Score
    sighan13_second_correction: Score
    character_detection: Score
    character_correction_log: Score
    character_correction_all: Score
    character_correction_detected: Score
    character_correction_wang: Score


def spelling_scores(
    sources: Sequence[str],
    targets: Sequence[str],
    predictions: Sequence[str],
    *,
    particles: Particles = "as they are",
) -> SpellingScores:
    """Scores predictions by every definition. Nothing is left out: what does not fit is an error.

    Args:
        sources: the sentences as they were written.
        targets: the same sentences without errors, each as long as its source.
        predictions: what the model made of the sources, each as long as its source.
        particles: 的, 地 and 得 give three numbers for one output. ``"as they are"`` leaves the
            predictions alone; ``"drop_predicted"`` takes back each change into 地 or 得 (SCOPE's
            ``remove_de``, meant for SIGHAN 13, whose targets still hold such errors);
            ``"give_gold"`` sets the right character wherever that is one of the three (NamBert's
            ``ignore_de``).

    Raises:
        DataError: the lists or a sentence's three texts differ in length, there is no sentence, or
            a text is no string.
        SettingsError: ``particles`` is none of the three.
    """
    characters = align(sources, targets, predictions, particles=particles)
    with_errors = characters.sentences_with(characters.wrong)
    changed = characters.sentences_with(characters.changed)
    clean = characters.sentences - count(with_errors)
    clean_changed = count(changed & ~with_errors)
    return SpellingScores(
        particles=particles,
        sentences=characters.sentences,
        positives=count(with_errors),
        clean_changed=clean_changed,
        characters=len(characters.source),
        wrong_characters=count(characters.wrong),
        fpr=ratio(clean_changed, clean),
        **sentence_scores(characters, with_errors, changed),
        **character_scores(characters),
    )


def correction_f1_standard_error(
    sources: Sequence[str],
    targets: Sequence[str],
    predictions: Sequence[str],
    *,
    particles: Particles = "as they are",
    resamples: int = 1000,
    seed: int = 0,
) -> float:
    """Bootstrap standard error of the S-strict correction F1 over sentences.

    (Efron & Tibshirani 1993, chapter 6.) A difference of two runs much below this is no evidence
    that one is better.

    Args:
        sources: as in :func:`spelling_scores`, whose errors it raises too.
        targets: likewise.
        predictions: likewise.
        particles: likewise.
        resamples: how many times the sentences are drawn with replacement.
        seed: of the drawing.
    """
    characters = align(sources, targets, predictions, particles=particles)
    with_errors = characters.sentences_with(characters.wrong)
    changed = characters.sentences_with(characters.changed)
    hits = with_errors & ~characters.sentences_with(~characters.right)
    # Only the kind of a sentence counts for F1, and how often each kind comes among sentences
    # drawn with replacement is multinomial: no need to draw them one by one.
    kinds, numbers = np.unique(
        np.stack([hits, changed, with_errors], axis=1), axis=0, return_counts=True
    )
    shares = numbers / characters.sentences
    draws = np.random.default_rng(seed).multinomial(characters.sentences, shares, size=resamples)
    hit, flagged, wanted = (draws @ kinds.astype(np.int64)).T
    scores = 2 * hit / np.maximum(flagged + wanted, 1)
    return float(np.std(scores, ddof=1))
