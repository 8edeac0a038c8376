"""Fits are scikit-learn's, scaled by the training rows alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.svm import SVR

from kernel_lib.errors import DataError
from kernel_lib.tasks.feature_fits import Features, fit, predict_rows, scaling
from kernel_lib.tasks.feature_settings import FeatureSettings
from kernel_lib.text.ngrams import NGrams, count_ngrams

TRAIN, REST = np.arange(0, 40), np.arange(40, 50)


@pytest.fixture
def features() -> Features:
    random = np.random.default_rng(1)
    words = np.array(["good", "food", "a", "day", "of", "the", "student", "likes", "books"])
    texts = [" ".join(random.choice(words, size=random.integers(2, 20))) for _ in range(50)]
    dense = random.normal(size=(50, 6)) * [1, 2, 3, 4, 5, 0] + 7
    return Features(dense, 2, count_ngrams(texts, NGrams("word", 1, 2))), texts


def targets() -> np.ndarray:
    return np.random.default_rng(2).normal(3, 1, size=(50, 2))


def settings(method: str) -> FeatureSettings:
    return FeatureSettings(
        method=method,
        hand_features_weight=0.5,
        svr_c=2.0,
        svr_epsilon=0.05,
        svr_gamma=0.8,
        ridge_alpha=0.3,
        ngram_unit="word",
        ngram_shortest=1,
        ngram_longest=2,
        ngram_least_texts=2,
    )


def scaled_by_hand(dense: np.ndarray) -> np.ndarray:
    """Four embedding columns and two counted ones, of which one never varies."""
    train = dense[TRAIN]
    standard = (dense - train.mean(0)) / np.where(train.std(0) > 0, train.std(0), 1)
    return np.concatenate([standard[:, :4] / 2, standard[:, 4:] * 0.5 / 2**0.5], axis=1)


def test_variances_sum_up_to_what_they_should(features) -> None:
    center, scale = scaling(features[0], TRAIN, 0.5)
    found = (features[0].dense - center) * scale
    assert np.allclose(found, scaled_by_hand(features[0].dense))
    assert found[TRAIN, :4].var(0).sum() == pytest.approx(1) and scale[5] == 0


def test_ridge_and_svr_are_scikit_learns(features) -> None:
    x, y = scaled_by_hand(features[0].dense), targets()
    found = predict_rows(fit(settings("ridge"), features[0], TRAIN, y[TRAIN]), features[0], REST)
    assert np.allclose(found, Ridge(0.3).fit(x[TRAIN], y[TRAIN]).predict(x[REST]), atol=1e-9)

    model = fit(settings("svr"), features[0], TRAIN, y[TRAIN])
    found = predict_rows(model, features[0], REST)
    vectors = x[TRAIN].astype(np.float32).astype(float)  # as they are kept
    for column in range(2):
        other = SVR(kernel="precomputed", C=2.0, epsilon=0.05)
        distance = ((vectors[:, None] - vectors) ** 2).sum(-1)
        other.fit(np.exp(-0.8 * distance), y[TRAIN, column])
        unseen = np.exp(-0.8 * ((x[REST][:, None] - vectors) ** 2).sum(-1))
        assert np.allclose(found[:, column], other.predict(unseen), atol=1e-9)
        plain = SVR(kernel="rbf", gamma=0.8, C=2.0, epsilon=0.05).fit(x[TRAIN], y[TRAIN, column])
        assert np.allclose(found[:, column], plain.predict(x[REST]), atol=5e-3)  # its own tol: 1e-3


def test_ngrams_are_scikit_learns_and_know_only_the_training_rows(features) -> None:
    (known, texts), y = features, targets()
    model = fit(settings("tfidf_ridge"), known, TRAIN, y[TRAIN])
    found = predict_rows(model, known, REST)
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), token_pattern=r"\w+", lowercase=False, min_df=2, sublinear_tf=True
    )
    train = vectorizer.fit_transform([texts[row] for row in TRAIN])
    assert model.vocabulary == sorted(vectorizer.vocabulary_)
    x = scaled_by_hand(known.dense)
    ridge = Ridge(0.3, solver="sparse_cg", tol=1e-5)
    ridge.fit(hstack([train, csr_matrix(x[TRAIN])]), y[TRAIN])
    unseen = hstack([vectorizer.transform([texts[row] for row in REST]), csr_matrix(x[REST])])
    assert np.allclose(found, ridge.predict(unseen), atol=1e-9)
    exact = Ridge(0.3).fit(hstack([train, csr_matrix(x[TRAIN])]).toarray(), y[TRAIN])
    assert np.allclose(found, exact.predict(unseen.toarray()), atol=1e-3)


def test_nothing_to_learn_from_is_said(features) -> None:
    known = Features(np.zeros((50, 0)), 0, features[0].counts)
    rare = settings("tfidf_ridge").replace(ngram_least_texts=41, hand_features_weight=0.0)
    said = r"1 to 2 words is in ngram_least_texts=41 of the 40 training texts.*Set a lower"
    with pytest.raises(DataError, match=said):
        fit(rare, known, TRAIN, targets()[TRAIN])
    some = fit(rare.replace(ngram_least_texts=2), known, TRAIN, targets()[TRAIN])
    assert some.vocabulary
    counted = fit(rare, features[0], TRAIN, targets()[TRAIN])  # counted features alone will do
    assert predict_rows(counted, features[0], REST).std() > 0


@pytest.mark.parametrize("method", ["ridge", "svr", "tfidf_ridge"])
def test_a_single_target_is_no_special_case(features, method: str) -> None:
    y = targets()
    both = fit(settings(method), features[0], TRAIN, y[TRAIN])
    one = fit(settings(method), features[0], TRAIN, y[TRAIN, :1])
    found = predict_rows(one, features[0], REST)
    assert found.shape == (10, 1)
    assert np.allclose(found, predict_rows(both, features[0], REST)[:, :1], atol=1e-4)
