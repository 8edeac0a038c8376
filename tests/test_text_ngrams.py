"""N-grams and their weights are scikit-learn's, counted here so that inference needs no pickle."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from kernel_lib.text.ngrams import NGrams, count_ngrams, inverse_frequencies, tfidf

TEXTS = [
    "The cat  sat on the mat, the cat!",
    "A dog; a cat.\nAnd the dog sat",
    "",
    "Über the mat: “Sat”",
    "the the the cat sat",
]
CHARACTERS, WORDS = NGrams("character", 2, 4), NGrams("word", 1, 2)


def reference(ngrams: NGrams, least: int) -> TfidfVectorizer:
    kind = {"analyzer": "char"}
    if ngrams.unit == "word":
        kind = {"analyzer": "word", "token_pattern": r"\w+|[^\w\s]"}
    return TfidfVectorizer(
        **kind,
        ngram_range=(ngrams.shortest, ngrams.longest),
        lowercase=False,
        min_df=least,
        sublinear_tf=True,
    )


@pytest.mark.parametrize("ngrams", [CHARACTERS, WORDS], ids=lambda one: one.unit)
def test_weights_are_scikit_learns(ngrams: NGrams) -> None:
    train, unseen = np.array([0, 1, 4]), ["the cat and a bird sat", "xyz", ""]
    expected = reference(ngrams, 2).fit([TEXTS[row] for row in train])
    counts = count_ngrams(TEXTS, ngrams)
    vocabulary = counts.common(train, 2)
    assert vocabulary == sorted(expected.vocabulary_) and len(vocabulary) > 4
    inverse = inverse_frequencies(counts.columns(vocabulary)[train])
    assert np.allclose(inverse, expected.idf_, rtol=1e-12)
    for texts in (TEXTS, unseen):
        found = tfidf(count_ngrams(texts, ngrams).columns(vocabulary), inverse)
        assert np.allclose(found.toarray(), expected.transform(texts).toarray(), atol=1e-12)


def test_ngrams_are_as_often_there_as_in_the_text_and_case_counts() -> None:
    assert list(NGrams("character", 2, 3).of("aB\n\n c")) == [*("aB", "B ", " c"), "aB ", "B c"]
    assert list(NGrams("word", 1, 2).of("No, no")) == ["No", ",", "no", "No ,", ", no"]
    assert list(CHARACTERS.of("x")) == []
