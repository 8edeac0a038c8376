"""Settings of named entities that make no sense are refused, by name; the others come back."""

from __future__ import annotations

import json

import pytest

from kernel_lib.errors import SettingsError
from kernel_lib.tasks.entity_settings import EntityInferenceSettings, EntitySettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": "softmax"}, "decoder='softmax'"),
        ({"subtoken": "middle"}, "It can be first, last, mean"),
        ({"scheme": "IOB2"}, "scheme='IOB2'"),
        ({"window_overlap": 510}, r"window_overlap=510 must be below the 510 tokens"),
        ({"train_files": ()}, "nothing to learn from"),
        ({"lora_rank": -1}, "must be at least 0"),
        ({"lora_dropout": 1.0}, "must be below 1"),
        ({"lora_alpha": 0.0}, "must be above 0"),
        ({"lora_rank": 8, "reinit_layers": 1}, "set neither reinit_layers nor freeze_layers"),
        ({"lora_rank": 8, "freeze_layers": 1}, "set neither reinit_layers nor freeze_layers"),
        ({"lora_range": 8}, "did you mean 'lora_rank'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        EntitySettings.from_dict(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "rows"}, "It can be tags, spans, words"),
        ({"o_bias": "low"}, "must be float"),
    ],
)
def test_so_are_those_of_inference(changes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        EntityInferenceSettings.from_dict(changes)


def test_settings_come_back_from_json() -> None:
    one = EntitySettings(lora_rank=4, lora_targets=("query",), train_files=("a.conll", "b.csv"))
    assert EntitySettings.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    two = EntityInferenceSettings(o_bias=1, test_files=("a.csv",), form="words")
    assert EntityInferenceSettings.from_dict(json.loads(json.dumps(two.to_dict()))) == two
    assert two.o_bias == 1.0 and EntityInferenceSettings().o_bias is None
