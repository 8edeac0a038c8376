"""Settings of frozen features: theirs, and those they share with fine-tuning."""

from __future__ import annotations

import json

import pytest

from kernel_lib.errors import SettingsError
from kernel_lib.tasks.feature_settings import FeatureSettings


def test_what_only_fine_tuning_reads_is_taken_but_is_no_part_of_the_run() -> None:
    plain = FeatureSettings(encoders=("a", "b"))
    changed = plain.replace(epochs=2, learning_rate=1e-3, encoders=("x/a", "b"))
    assert changed.names_without_effect == ["epochs", "learning_rate"]
    assert changed.result_values() == plain.result_values()
    assert not {"epochs", "backbone"} & changed.to_dict().keys()
    assert FeatureSettings.from_dict(plain.to_dict()) == plain
    assert plain.replace(svr_c=2.0).result_values() != plain.result_values()
    assert plain.replace(seed=1).result_values() != plain.result_values()
    assert plain.replace(method="ridge", seed=3, svr_c=2.0).names_without_effect == []


def test_the_model_of_all_rows_is_no_part_of_the_record() -> None:
    settings = FeatureSettings(full_data=True, folds=(0, 4), n_folds=4)
    assert settings.names_without_effect == ["full_data"]
    assert settings.to_dict()["folds"] == (0,)
    assert FeatureSettings.from_dict(json.loads(json.dumps(settings.to_dict()))).folds == (0,)


def test_what_debug_changes_by_itself_was_not_asked_for() -> None:
    debug = FeatureSettings(debug=True)
    assert debug.names_without_effect == debug.replace(seed=1).names_without_effect == []
    assert FeatureSettings(debug=True, epochs=3).names_without_effect == ["epochs"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ngram_shortest": 6}, "ngram_shortest=6 is above ngram_longest=5"),
        ({"embedding_poolings": ("meen",)}, "did you mean 'mean'"),
        ({"embedding_poolings": ("attention",)}, "has weights to learn"),
        ({"encoders": ()}, 'set encoders and embedding_poolings, or method="tfidf_ridge"'),
        ({"embedding_poolings": ()}, "set encoders and embedding_poolings"),
        ({"encoders": ("a/m", "b/m")}, "two folders of one name"),
        ({"full_data": True, "folds": (4,)}, "names the model of all rows alone"),
        ({"method": "svm"}, "did you mean 'svr'"),
    ],
)
def test_what_cannot_be_is_refused(values: dict, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        FeatureSettings(**values)


def test_the_penalty_follows_the_method_unless_it_is_set() -> None:
    kinds = {"ridge": 3.0, "tfidf_ridge": 1.0}
    assert {kind: FeatureSettings(method=kind).ridge_penalty for kind in kinds} == kinds
    assert FeatureSettings(method="ridge", ridge_alpha=0.5).ridge_penalty == 0.5


def test_ngrams_need_no_encoder() -> None:
    assert not FeatureSettings(method="tfidf_ridge", encoders=()).reads_embeddings
