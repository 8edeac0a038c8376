"""Fitting the models of frozen features; scikit-learn does it, and is needed for nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import Ridge
from sklearn.svm import SVR

from kernel_lib.errors import DataError
from kernel_lib.model.row_models import (
    NGramRidgeModel,
    RidgeModel,
    RowModel,
    SvrModel,
    gaussian_kernel,
)
from kernel_lib.tasks.feature_settings import FeatureSettings
from kernel_lib.text.ngrams import NGramCounts, inverse_frequencies, tfidf

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Features:
    """What is known of some texts before any model is fitted.

    Attributes:
        dense: ``(texts, columns)`` float64: embeddings, then counted features.
        counted: how many of the last columns are counted features.
        counts: of n-grams; None where the method reads none.
    """

    dense: Array
    counted: int
    counts: NGramCounts | None = None

    def __len__(self) -> int:
        return len(self.dense)


def fit(settings: FeatureSettings, features: Features, rows: Rows, targets: Array) -> RowModel:
    """The model of a fold.

    Args:
        settings: of the run.
        features: of all texts.
        rows: numbers of those to be fitted to.
        targets: of these rows, ``(rows, targets)``.

    Raises:
        DataError: there is nothing to fit to.
    """
    center, scale = scaling(features, rows, settings.hand_features_weight)
    known = {"center": center, "scale": scale}
    sizes = {"columns": len(center), "targets": targets.shape[1]}
    x = (features.dense[rows] - center) * scale
    if settings.method == "ridge":
        ridge = Ridge(settings.ridge_penalty, solver="cholesky").fit(x, targets)
        found = {
            "coefficient": np.atleast_2d(ridge.coef_).T,
            "intercept": np.atleast_1d(ridge.intercept_),
        }
        return RidgeModel(sizes).put(**known, **found)
    if settings.method == "svr":
        return _fit_svr(settings, x, targets, known)
    return _fit_ngrams(settings, features, rows, x, targets, known)


def predict_rows(model: RowModel, features: Features, rows: Any = slice(None)) -> Array:
    """What a fitted model says of some texts: ``(rows, targets)``."""
    if isinstance(model, NGramRidgeModel):
        assert features.counts is not None, "counted for this method"
        counts = features.counts.columns(model.vocabulary)[rows]
        return model.predict(tfidf(counts, model.array("inverse")), features.dense[rows])
    assert isinstance(model, RidgeModel | SvrModel)
    return model.predict(features.dense[rows])


def scaling(features: Features, rows: Rows, counted_weight: float) -> tuple[Array, Array]:
    """Centre and factor of each column, by which the variances of the embeddings sum up to 1, those
    of the counted features to the square of their weight. A column that never varies becomes 0."""
    dense = features.dense[rows]
    spread = dense.std(axis=0)
    embedded = dense.shape[1] - features.counted
    weights = np.concatenate(
        [
            np.full(embedded, 1 / np.sqrt(max(1, embedded))),
            np.full(features.counted, counted_weight / np.sqrt(max(1, features.counted))),
        ]
    )
    varies = spread > 1e-12 * np.abs(dense).max(axis=0, initial=0)
    scale = np.divide(weights, spread, out=np.zeros_like(weights), where=varies)
    return dense.mean(axis=0), scale


def _fit_svr(
    settings: FeatureSettings, x: Array, targets: Array, known: dict[str, Array]
) -> SvrModel:
    """One kernel serves all targets; vectors that no target needs are left out."""
    vectors = x.astype(np.float32).astype(np.float64)  # as they are kept
    kernel = gaussian_kernel(vectors, vectors, settings.svr_gamma)
    dual = np.zeros(targets.shape)
    intercept = np.zeros(targets.shape[1])
    for column, values in enumerate(targets.T):
        fitted = SVR(kernel="precomputed", C=settings.svr_c, epsilon=settings.svr_epsilon)
        fitted.fit(kernel, values)
        dual[fitted.support_, column] = fitted.dual_coef_[0]
        intercept[column] = fitted.intercept_[0]
    needed = np.flatnonzero(dual.any(axis=1))
    sizes = {"columns": x.shape[1], "vectors": len(needed), "targets": targets.shape[1]}
    return SvrModel(sizes).put(
        **known,
        vectors=vectors[needed],
        dual=dual[needed],
        intercept=intercept,
        gamma=np.array([settings.svr_gamma]),
    )


def _fit_ngrams(
    settings: FeatureSettings,
    features: Features,
    rows: Rows,
    x: Array,
    targets: Array,
    known: dict[str, Array],
) -> NGramRidgeModel:
    """Words and weights are those of the training rows alone."""
    assert features.counts is not None, "counted for this method"
    vocabulary = features.counts.common(rows, settings.ngram_least_texts)
    if not vocabulary and not x.shape[1]:
        raise DataError(
            f"no n-gram of {settings.ngram_shortest} to {settings.ngram_longest} "
            f"{settings.ngram_unit}s is in ngram_least_texts={settings.ngram_least_texts} of the "
            f"{len(rows):,} training texts, and hand_features_weight=0: there is nothing to learn "
            "from. Set a lower ngram_least_texts or shorter n-grams, or hand_features_weight=0.5."
        )
    counts = features.counts.columns(vocabulary)[rows]
    inverse = inverse_frequencies(counts)
    both = hstack([tfidf(counts, inverse), csr_matrix(x)], format="csr")
    ridge = Ridge(settings.ridge_penalty, solver="sparse_cg", tol=1e-5).fit(both, targets)
    sizes = {"ngrams": len(vocabulary), "columns": x.shape[1], "targets": targets.shape[1]}
    coefficient = np.atleast_2d(ridge.coef_).T
    return NGramRidgeModel(sizes, vocabulary).put(
        **known,
        inverse=inverse,
        ngram_coefficient=coefficient[: len(vocabulary)],
        coefficient=coefficient[len(vocabulary) :],
        intercept=np.atleast_1d(ridge.intercept_),
    )
