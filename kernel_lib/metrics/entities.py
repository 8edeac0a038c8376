"""Scores of named entities by every definition in use, and how sure they are.

``entity_definitions`` says what each one counts; the same output of one model scored .46 by one and
.56 and .60 by others, so a figure without the name of its definition says little. Whoever decodes
with constraints (no illegal tags) has strict and lenient figures that agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kernel_lib.errors import DataError, SettingsError
from kernel_lib.metrics.entity_definitions import (
    DefinitionScores,
    MatchScore,
    course_scores,
    match_scores,
    span_scores,
)
from kernel_lib.metrics.spelling_definitions import ratio
from kernel_lib.metrics.tag_faults import illegal_tags
from kernel_lib.metrics.tags import Scheme, Span, check_scheme, read_spans

Reading = Literal["strict", "lenient"]
Sentences = Sequence[Sequence[str]]
Spans = list[list[Span]]

SHOWN = 5  # how many offending sentences an error message names


@dataclass(frozen=True)
class EntityScores:
    """Every definition on one set of sentences; ``entity_definitions`` has them in a table.

    Attributes:
        scheme: how the tags were written.
        types: that were counted, in the order of the tables.
        sentences: how many there are.
        tokens: in all of them.
        right_tokens: whose tag is the gold one.
        token_accuracy: ``right_tokens / tokens``; high wherever most tokens are O.
        illegal_gold: gold tags that cannot stand where they stand.
        illegal_predicted: likewise; 0 after constrained decoding.
        strict: only what the scheme lets open and close is an entity.
        lenient: conlleval's reading, seqeval's default.
        partial: nervaluate's ``strict``, ``exact``, ``partial`` and ``ent_type``.
        course: the reference log's definition; None without texts.
    """

    scheme: Scheme
    types: tuple[str, ...]
    sentences: int
    tokens: int
    right_tokens: int
    token_accuracy: float
    illegal_gold: int
    illegal_predicted: int
    strict: DefinitionScores
    lenient: DefinitionScores
    partial: dict[str, MatchScore]
    course: DefinitionScores | None


def entity_scores(
    gold: Sentences,
    predicted: Sentences,
    *,
    types: Iterable[str] | None = None,
    scheme: Scheme = "BIO",
    texts: Sequence[Sequence[str]] | None = None,
    ids: Sequence[object] | None = None,
) -> EntityScores:
    """Scores predicted tags by every definition. What does not fit is an error, nothing is dropped.

    A token that the model never saw must be here all the same, with the tag O: gold cut to what
    was predicted makes recall too high.

    Args:
        gold: the tags of each sentence, one a token.
        predicted: of the same sentences, as many each.
        types: that count, in the order of the tables; entities of others do not. None: all there
            are, in alphabetical order. Token accuracy is of all tags.
        scheme: how both are written.
        texts: the tokens of each sentence, or a string where each is one character; for the
            course's definition only.
        ids: what messages call the sentences; else they count them from 0.

    Raises:
        DataError: the lists or two sentences differ in length, there is no sentence, or a tag is
            none of the scheme's.
        SettingsError: the scheme is unknown.
    """
    check_scheme(scheme)
    _check_lengths(gold, predicted, texts, ids)
    both = [
        {reading: _read(each, scheme, reading, ids) for reading in get_args(Reading)}
        for each in (gold, predicted)
    ]
    if types is None:
        types = sorted({span.type for each in both for spans in each["lenient"] for span in spans})
    types = tuple(types)
    there, said = ({name: _of(types, spans) for name, spans in each.items()} for each in both)
    tokens = sum(map(len, gold))
    pairs = zip(gold, predicted, strict=True)
    right = sum(a == b for pair in pairs for a, b in zip(*pair, strict=True))
    illegal_gold, illegal_predicted = (
        sum(len(illegal_tags(tags, scheme=scheme)) for tags in each) for each in (gold, predicted)
    )
    return EntityScores(
        scheme=scheme,
        types=types,
        sentences=len(gold),
        tokens=tokens,
        right_tokens=right,
        token_accuracy=ratio(right, tokens),
        illegal_gold=illegal_gold,
        illegal_predicted=illegal_predicted,
        strict=span_scores(there["strict"], said["strict"], types),
        lenient=span_scores(there["lenient"], said["lenient"], types),
        partial=match_scores(there["lenient"], said["lenient"]),
        course=(
            None if texts is None else course_scores(there["strict"], said["strict"], texts, types)
        ),
    )


def micro_f1_standard_error(
    gold: Sentences,
    predicted: Sentences,
    *,
    types: Iterable[str] | None = None,
    scheme: Scheme = "BIO",
    reading: Reading = "strict",
    resamples: int = 1000,
    seed: int = 0,
) -> float:
    """Bootstrap standard error of the micro F1 over sentences.

    (Efron & Tibshirani 1993, chapter 6.) A difference of two runs much below this is no evidence
    that one is better.

    Args:
        gold: as in :func:`entity_scores`, whose errors it raises too.
        predicted: likewise.
        types: likewise.
        scheme: likewise.
        reading: ``"strict"`` or ``"lenient"``.
        resamples: how many times the sentences are drawn with replacement.
        seed: of the drawing.
    """
    if reading not in get_args(Reading):
        known = ", ".join(map(repr, get_args(Reading)))
        raise SettingsError(f"reading is {reading!r}; choose one of {known}.")
    _check_lengths(gold, predicted)
    spans = [_read(each, scheme, reading, None) for each in (gold, predicted)]
    if types is not None:
        spans = [_of(tuple(types), each) for each in spans]
    return f1_standard_error(sentence_counts(*spans), resamples=resamples, seed=seed)


def sentence_counts(
    gold: Sequence[Iterable[Span]], predicted: Sequence[Iterable[Span]]
) -> NDArray[np.int64]:
    """Correct, predicted and gold entities of each sentence, ``(sentences, 3)``."""
    pairs = zip(map(set, gold), map(set, predicted), strict=True)
    counts = [(len(wanted & found), len(found), len(wanted)) for wanted, found in pairs]
    return np.array(counts, np.int64).reshape(-1, 3)


def f1_standard_error(counts: NDArray[np.int64], *, resamples: int = 1000, seed: int = 0) -> float:
    """Bootstrap standard error of the F1 of these counts.

    Args:
        counts: of :func:`sentence_counts`.
        resamples: how many times the sentences are drawn with replacement.
        seed: of the drawing.
    """
    # Only the counts of a sentence matter, and how often each triple comes among sentences drawn
    # with replacement is multinomial: no need to draw them one by one.
    kinds, numbers = np.unique(counts, axis=0, return_counts=True)
    shares = numbers / len(counts)
    draws = np.random.default_rng(seed).multinomial(len(counts), shares, size=resamples)
    correct, predicted, gold = (draws @ kinds).T
    return float(np.std(2 * correct / np.maximum(predicted + gold, 1), ddof=1))


def _of(types: tuple[str, ...], sentences: Spans) -> Spans:
    known = set(types)
    return [[span for span in spans if span.type in known] for spans in sentences]


def _read(
    sentences: Sentences, scheme: Scheme, reading: str, ids: Sequence[object] | None
) -> Spans:
    read = []
    for number, tags in enumerate(sentences):
        try:
            read.append(read_spans(tags, scheme=scheme, strict=reading == "strict"))
        except DataError as error:
            raise DataError(f"Sentence {_name(number, ids)}, {error}") from None
    return read


def _check_lengths(
    gold: Sentences,
    predicted: Sentences,
    texts: Sequence[Sequence[str]] | None = None,
    ids: Sequence[object] | None = None,
) -> None:
    if not len(gold):
        raise DataError("There is no sentence to score. Give at least one.")
    others = {"prediction": predicted, "text": texts, "id": ids}
    for name, other in others.items():
        if other is not None and len(other) != len(gold):
            raise DataError(
                f"{len(gold):,} gold sentences, {len(other):,} {name}s: there must be one {name} "
                "for each sentence."
            )
    for name, other in (("predicted tags", predicted), ("tokens", texts)):
        pairs = zip(gold, other or gold, strict=True)
        unequal = [number for number, pair in enumerate(pairs) if len(pair[0]) != len(pair[1])]
        if other is not None and unequal:
            shown = "; ".join(
                f"sentence {_name(number, ids)}: {len(gold[number])} gold tags, "
                f"{len(other[number])} {name}"
                for number in unequal[:SHOWN]
            )
            more = f"; {len(unequal) - SHOWN:,} more" if len(unequal) > SHOWN else ""
            raise DataError(
                f"{len(unequal):,} of {len(gold):,} sentences differ in length ({shown}{more}). "
                "Give one of each for every token; a token that was cut off is predicted O."
            )


def _name(number: int, ids: Sequence[object] | None) -> object:
    return number if ids is None else ids[number]
