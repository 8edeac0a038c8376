"""Models that predict a row of features, once scikit-learn has fitted them: arrays and arithmetic.

Each is a module only so that its arrays are kept, hashed and loaded as any fold's weights are. All
arithmetic is numpy's, in float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import nn

from kernel_lib.errors import ArtifactError

Array = NDArray[np.float64]
CHUNK_ROWS = 1024  # of a kernel at a time
KEPT_AS_FLOAT32 = ("vectors",)  # most of a file; features are not known better


class RowModel(nn.Module, ABC):
    """Base: arrays by name, their sizes given by a few numbers.

    Args:
        sizes: the numbers that :meth:`shapes` needs.
        vocabulary: the n-grams, for a model that reads them.
    """

    method = ""

    def __init__(self, sizes: Mapping[str, int], vocabulary: Sequence[str] = ()) -> None:
        super().__init__()
        self.sizes, self.vocabulary = dict(sizes), list(vocabulary)
        for name, shape in self.shapes(self.sizes).items():
            kind = torch.float32 if name in KEPT_AS_FLOAT32 else torch.float64
            self.register_buffer(name, torch.zeros(shape, dtype=kind))

    @staticmethod
    @abstractmethod
    def shapes(sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """The shape of each array."""

    @property
    def config(self) -> dict[str, Any]:
        """What :func:`empty_row_model` makes an empty one of; JSON."""
        return {"method": self.method, "sizes": self.sizes, "vocabulary": self.vocabulary}

    def array(self, name: str) -> Array:
        """An array, as numpy has it."""
        return self.get_buffer(name).cpu().numpy().astype(np.float64)

    def put(self, **arrays: Array) -> Self:
        """Takes the arrays, all of them, each in its shape. Returns the model."""
        self.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()}, strict=True)
        return self

    def scaled(self, rows: NDArray[Any]) -> Array:
        """``(rows - center) * scale`` of dense features ``(rows, columns)``."""
        found: Array = (rows.astype(np.float64) - self.array("center")) * self.array("scale")
        return found


class RidgeModel(RowModel):
    """``x w + b`` of scaled features."""

    method = "ridge"

    @staticmethod
    def shapes(sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Of ``columns`` features and ``targets`` predictions."""
        columns, targets = sizes["columns"], sizes["targets"]
        return {
            "center": (columns,),
            "scale": (columns,),
            "coefficient": (columns, targets),
            "intercept": (targets,),
        }

    def predict(self, rows: NDArray[Any]) -> Array:
        """``(rows, targets)`` for dense features ``(rows, columns)``."""
        found: Array = self.scaled(rows) @ self.array("coefficient") + self.array("intercept")
        return found


class SvrModel(RowModel):
    """``sum_i a_i exp(-gamma |x - v_i|^2) + b`` of scaled features: a support vector regression
    with a Gaussian kernel for each target, all with the same vectors ``v_i``."""

    method = "svr"

    @staticmethod
    def shapes(sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Of ``columns`` features, ``vectors`` support vectors and ``targets`` predictions."""
        columns, vectors, targets = sizes["columns"], sizes["vectors"], sizes["targets"]
        return {
            "center": (columns,),
            "scale": (columns,),
            "vectors": (vectors, columns),
            "dual": (vectors, targets),
            "intercept": (targets,),
            "gamma": (1,),
        }

    def predict(self, rows: NDArray[Any]) -> Array:
        """``(rows, targets)`` for dense features ``(rows, columns)``."""
        vectors, dual, gamma = self.array("vectors"), self.array("dual"), self.array("gamma")[0]
        x = self.scaled(rows)
        parts = [
            gaussian_kernel(x[start : start + CHUNK_ROWS], vectors, gamma) @ dual
            for start in range(0, len(x), CHUNK_ROWS)
        ]
        found: Array = np.concatenate(parts) + self.array("intercept")
        return found


class NGramRidgeModel(RowModel):
    """``t w + h u + b`` of TF-IDF weights ``t`` and scaled further features ``h``."""

    method = "tfidf_ridge"

    @staticmethod
    def shapes(sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Of ``ngrams``, ``columns`` further features and ``targets`` predictions."""
        ngrams, columns, targets = sizes["ngrams"], sizes["columns"], sizes["targets"]
        return {
            "inverse": (ngrams,),
            "ngram_coefficient": (ngrams, targets),
            "center": (columns,),
            "scale": (columns,),
            "coefficient": (columns, targets),
            "intercept": (targets,),
        }

    def predict(self, weights: csr_matrix, rows: NDArray[Any]) -> Array:
        """``(rows, targets)`` for TF-IDF weights ``(rows, ngrams)`` and further features ``(rows,
        columns)``."""
        by_ngrams = weights @ self.array("ngram_coefficient")
        found: Array = by_ngrams + self.scaled(rows) @ self.array("coefficient")
        return found + self.array("intercept")


def gaussian_kernel(rows: Array, vectors: Array, gamma: float) -> Array:
    """``exp(-gamma |x - v|^2)`` for each row x and vector v: ``(rows, vectors)``."""
    squares = (rows**2).sum(axis=1)[:, None] + (vectors**2).sum(axis=1)[None, :]
    distances = np.maximum(squares - 2 * rows @ vectors.T, 0.0)
    found: Array = np.exp(-gamma * distances)
    return found


ROW_MODELS: dict[str, type[RowModel]] = {
    kind.method: kind for kind in (RidgeModel, SvrModel, NGramRidgeModel)
}


def empty_row_model(config: Mapping[str, Any]) -> RowModel:
    """The model that a fold's ``config.json`` describes, for its arrays to be loaded into.

    Raises:
        ArtifactError: it describes none that is known here.
    """
    try:
        kind, sizes = ROW_MODELS[config["method"]], config["sizes"]
        return kind({name: int(size) for name, size in sizes.items()}, config["vocabulary"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ArtifactError(f"config.json describes no row model ({error!r}).") from None
