"""Scores of Chinese spelling correction, each by its name, because one name has many meanings.

For a sentence: source s, target t and prediction p, of one length. G are the positions where
s and t differ (the errors), C those where s and p differ (the changes). A sentence with an empty G
is clean. "Located" means C = G, "fixed" means p = t. A character is one code point, spaces too.

Sentences, hits being sentences with errors:

==========================  ==============  ==============================  ===================
definition                  hits            precision divides by            recall divides by
==========================  ==============  ==============================  ===================
S-official (SIGHAN 14, 15)  located, fixed  hits + changed clean sentences  sentences with errors
S-strict                    located, fixed  changed sentences               sentences with errors
S-loose detection           changed         changed sentences               sentences with errors
S-2013 (SIGHAN 13)          located, fixed  changed sentences               sentences with errors
==========================  ==============  ==============================  ===================

S-official is what the reference log, pycorrector and the organisers of SIGHAN print: a wrong repair
of a sentence with errors is no false positive there. Papers print S-strict (ReaLiSe, SCOPE, ReLM).
The same output of one model scored .78 by the first and .71 by the second.

Characters, hits being positions in G:

==========  ==============  ====================================  =================================
definition  hits            precision divides by                  recall divides by
==========  ==============  ====================================  =================================
detection   in C            changed characters                    errors
C-log       p_i = t_i       hits + changed right characters       errors
C-all       p_i = t_i       changed characters                    errors
C-detected  p_i = t_i       errors that were changed              errors
C-Wang2019  p_i = t_i       errors that were changed              hits + errors of sentences with a
                                                                  changed error whose t_i is none
                                                                  of the p_i put there
==========  ==============  ====================================  =================================

C-log is the reference log's, C-all FASPell's and C-LLM's, C-detected SCOPE's and PLOME's,
C-Wang2019 that of BertBasedCorrectionModels. Character detection is the same in all four. (The
log's own code takes all spaces out first: with spaces its accuracy differs a little from C-log's.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kernel_lib.metrics.spelling_characters import BoolArray, Characters


@dataclass(frozen=True)
class Score:
    """One definition's figures and the counts they are made of; a division by zero gives 0.

    Attributes:
        precision: ``hits / flagged``.
        recall: ``hits / wanted``.
        f1: their harmonic mean.
        accuracy: ``right / total``; None where the definition has none.
        hits: the true positives.
        flagged: what precision divides by.
        wanted: what recall divides by.
        right: sentences or characters dealt with rightly, those rightly left alone among them.
        total: what accuracy divides by.
    """

    precision: float
    recall: float
    f1: float
    accuracy: float | None
    hits: int
    flagged: int
    wanted: int
    right: int | None = None
    total: int | None = None

    @classmethod
    def from_counts(
        cls,
        *,
        hits: int,
        flagged: int,
        wanted: int,
        right: int | None = None,
        total: int | None = None,
    ) -> Score:
        """The figures of these counts.

        Example:
            hits 306, flagged 455, wanted 541: precision .6725, recall .5656, F1 .6145.
        """
        return cls(
            precision=ratio(hits, flagged),
            recall=ratio(hits, wanted),
            f1=ratio(2 * hits, flagged + wanted),
            accuracy=None if right is None or total is None else ratio(right, total),
            hits=hits,
            flagged=flagged,
            wanted=wanted,
            right=right,
            total=total,
        )


def sentence_scores(
    characters: Characters, with_errors: BoolArray, changed: BoolArray
) -> dict[str, Score]:
    """The definitions that count sentences, by their names in :class:`SpellingScores`."""
    sentences, positives = characters.sentences, count(with_errors)
    clean_changed = count(changed & ~with_errors)
    clean_kept = count(~changed & ~with_errors)
    located = with_errors & ~characters.sentences_with(characters.wrong != characters.changed)
    fixed = with_errors & ~characters.sentences_with(~characters.right)

    def official(hits: BoolArray) -> Score:
        found = count(hits)
        return Score.from_counts(
            hits=found,
            flagged=found + clean_changed,
            wanted=positives,
            right=found + clean_kept,
            total=sentences,
        )

    def strict(hits: BoolArray, *, errors_only: bool = False) -> Score:
        found = count(hits)
        return Score.from_counts(
            hits=found,
            flagged=count(changed),
            wanted=positives,
            right=found if errors_only else found + clean_kept,
            total=positives if errors_only else sentences,
        )

    return {
        "official_detection": official(located),
        "official_correction": official(fixed),
        "official_tool_correction": official(located & _fixed_for_the_tool(characters)),
        "strict_detection": strict(located),
        "strict_correction": strict(fixed),
        "loose_detection": strict(with_errors & changed),
        "sighan13_location": strict(located),
        "sighan13_second_location": strict(located, errors_only=True),
        "sighan13_second_correction": strict(fixed, errors_only=True),
    }


def _fixed_for_the_tool(characters: Characters) -> BoolArray:
    """Sentences whose errors all became characters that are right somewhere in the sentence."""
    wrong = characters.wrong
    put = characters.in_sentence(characters.prediction)
    strange = wrong.copy()
    strange[wrong] = ~np.isin(put[wrong], characters.in_sentence(characters.target)[wrong])
    return ~characters.sentences_with(strange)


def character_scores(characters: Characters) -> dict[str, Score]:
    """The definitions that count characters, by their names in :class:`SpellingScores`."""
    wrong, changed, right = characters.wrong, characters.changed, characters.right
    total, errors = len(wrong), count(wrong)
    detected, hits = count(wrong & changed), count(wrong & right)
    return {
        "character_detection": Score.from_counts(
            hits=detected,
            flagged=count(changed),
            wanted=errors,
            right=count(wrong == changed),
            total=total,
        ),
        "character_correction_log": Score.from_counts(
            hits=hits,
            flagged=hits + count(changed & ~wrong),
            wanted=errors,
            right=count(right),
            total=total,
        ),
        "character_correction_all": Score.from_counts(
            hits=hits, flagged=count(changed), wanted=errors
        ),
        "character_correction_detected": Score.from_counts(
            hits=hits, flagged=detected, wanted=errors
        ),
        "character_correction_wang": Score.from_counts(
            hits=hits, flagged=detected, wanted=hits + _missing_for_wang(characters)
        ),
    }


def _missing_for_wang(characters: Characters) -> int:
    """Errors of sentences with a changed error whose right character was put at none of these."""
    detected = characters.wrong & characters.changed
    seen = characters.wrong & characters.sentences_with(detected)[characters.sentence]
    needed = characters.in_sentence(characters.target)[seen]
    return count(~np.isin(needed, characters.in_sentence(characters.prediction)[detected]))


def count(where: BoolArray) -> int:
    return int(np.count_nonzero(where))


def ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
