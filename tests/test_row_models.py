"""Fitted models come back from their arrays, and compute what scikit-learn computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.svm import SVR

from kernel_lib.artifacts import load_weights, save_tensors
from kernel_lib.errors import ArtifactError
from kernel_lib.model.row_models import (
    ROW_MODELS,
    NGramRidgeModel,
    SvrModel,
    empty_row_model,
    gaussian_kernel,
)

SIZES = {"columns": 3, "targets": 2, "vectors": 5, "ngrams": 4}


def test_the_kernel_is_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    x, y, unseen = random.normal(size=(40, 3)), random.normal(size=40), random.normal(size=(9, 3))
    fitted = SVR(kernel="rbf", gamma=0.7, C=2.0, epsilon=0.1).fit(x, y)
    model = SvrModel({"columns": 3, "vectors": len(fitted.support_), "targets": 1})
    model.register_buffer("vectors", model.get_buffer("vectors").double())  # all of their digits
    model.put(
        center=np.zeros(3),
        scale=np.ones(3),
        vectors=x[fitted.support_],
        dual=fitted.dual_coef_.T,
        intercept=fitted.intercept_,
        gamma=np.array([0.7]),
    )
    assert np.allclose(model.predict(unseen)[:, 0], fitted.predict(unseen), atol=1e-12)
    monkeypatch.setattr("kernel_lib.model.row_models.CHUNK_ROWS", 4)
    assert np.allclose(model.predict(unseen)[:, 0], fitted.predict(unseen), atol=1e-12)
    assert (gaussian_kernel(x, x, 1e9).diagonal() > 0.9).all()  # no distance is below 0


@pytest.mark.parametrize("method", ROW_MODELS)
def test_a_model_comes_back_from_config_and_weights(method: str, tmp_path: Path) -> None:
    vocabulary = ["ab", "\n", " “", "x"] if method == NGramRidgeModel.method else []
    model = ROW_MODELS[method](SIZES, vocabulary)
    random = np.random.default_rng(0)
    model.put(**{name: random.normal(size=s) for name, s in model.shapes(SIZES).items()})
    save_tensors(model.state_dict(), tmp_path / "model.safetensors")
    back = empty_row_model(json.loads(json.dumps(model.config)))
    load_weights(back, tmp_path / "model.safetensors")
    assert type(back) is type(model) and back.vocabulary == vocabulary
    for name in model.shapes(SIZES):
        assert (back.array(name) == model.array(name)).all() and back.array(name).any()


@pytest.mark.parametrize(
    "config",
    [{}, [], {"method": "lasso", "sizes": {}}, {"method": "svr", "sizes": {}, "vocabulary": []}],
    ids=str,
)
def test_a_config_of_something_else_is_refused(config) -> None:
    with pytest.raises(ArtifactError, match=r"config\.json describes no row model"):
        empty_row_model(config)
