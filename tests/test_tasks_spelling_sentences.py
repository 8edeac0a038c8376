"""A character is a token and keeps its place; long texts become windows; targets fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kernel_lib.tasks.spelling_sentences import encode_sentences, make_noise
from kernel_lib.tasks.spelling_settings import SpellingSettings
from kernel_lib.text.batches import IGNORE
from kernel_lib.text.characters import CharacterEncoder
from kernel_lib.text.confusion import ConfusionSet
from kernel_lib.text.tokenizer import build_tokenizer
from kernel_lib.text.windows import cut_windows


@pytest.fixture(scope="module")
def characters(spelling_material) -> CharacterEncoder:
    return CharacterEncoder(build_tokenizer(spelling_material.backbone, keep_newlines=False))


def encoded(characters: CharacterEncoder, rows: list[tuple], **changes):
    frame = pd.DataFrame(rows, columns=["id", "source", "target", "domain"][: len(rows[0])])
    if "domain" not in frame:
        frame["domain"] = "d"
    settings = SpellingSettings(**{"max_length": 12, "window_overlap": 4, **changes})
    return encode_sentences(frame, characters, settings)


def test_a_text_is_a_token_a_character_between_two_special_ones(characters) -> None:
    source, target = "我再家 123abc……😀", "我在家 123abc……😀"
    (example,) = encoded(characters, [("a", source, target, "home")], max_length=64)
    assert example.input_ids.tolist() == [
        characters.cls_id,
        *characters.ids(source),
        characters.sep_id,
    ]
    assert example.origin == {"source": source, "target": target, "domain": "home"}
    wanted = example.target.tolist()
    assert wanted[0] == wanted[-1] == IGNORE
    for at, character in enumerate(target, start=1):
        known = characters.ids(character)[0]
        unknown = known == characters.unknown_id
        assert wanted[at] == (IGNORE if unknown else known), character
    assert IGNORE in wanted[1:-1]  # there are some: …, 😀 and the space
    assert example.input_ids.dtype == example.target.dtype == np.int32


def test_nothing_is_learnt_where_the_vocabulary_lacks_one_of_the_two(characters) -> None:
    rows = [("a", "龘在我", "我在我", "d"), ("b", "我在我", "龘在我", "d"), ("c", "龘", "龘", "d")]
    found = [example.target.tolist()[1:-1] for example in encoded(characters, rows)]
    in_me = characters.ids("在我").tolist()
    assert found == [[IGNORE, *in_me], [IGNORE, *in_me], [IGNORE]]


def test_long_texts_become_windows_in_order(characters) -> None:
    long = "我们在家里写作业，老师请我们再讲一遍。"
    wrong = long.replace("再", "在")
    rows = [("a", "", "", "x"), ("b", wrong, long, "y"), ("c", "好", "好", "z")]
    examples = encoded(characters, rows)
    spans = cut_windows(len(long), size=10, overlap=4)
    assert len(spans) > 2
    assert [example.row for example in examples] == [0, *[1] * len(spans), 2]
    assert [example.start for example in examples] == [0, *(start for start, _ in spans), 0]
    ids = [example.id for example in examples]
    assert ids == ["a", "b", *(f"b@{start}" for start, _ in spans[1:]), "c"]
    for example, (start, stop) in zip(examples[1:-1], spans, strict=True):
        assert example.input_ids.tolist()[1:-1] == characters.ids(wrong[start:stop]).tolist()
        assert example.target.tolist()[1:-1] == characters.ids(long[start:stop]).tolist()
        assert (example.origin is None) == (start > 0)
    assert examples[1].origin["source"] == wrong  # the whole of it
    assert examples[0].input_ids.tolist() == [characters.cls_id, characters.sep_id]


def test_without_targets_there_is_nothing_to_learn(characters) -> None:
    (example,) = encoded(characters, [("a", "我在家")])
    assert example.target is None and example.origin["target"] is None


def test_noise_confuses_characters_within_the_vocabulary_only(characters) -> None:
    confusion = ConfusionSet.from_dict({"在": "再龘", "龘": "靐"})
    settings = SpellingSettings(noise_rate=0.9, mask_rate=0.0, confusion_files=("c.txt",))
    noise = make_noise(characters, confusion, settings)
    (example,) = encoded(characters, [("a", "在再我在再我", "在再我在再我", "d")])
    one, other, me = characters.ids("在再我").tolist()
    seen = np.array([noise.apply(example, (seed,)).input_ids for seed in range(50)])
    assert set(seen[:, [1, 4]].flatten()) == {one, other} == set(seen[:, [2, 5]].flatten())
    assert set(seen[:, [3, 6]].flatten()) == {me}
    assert (seen[:, 0] == characters.cls_id).all() and (seen[:, -1] == characters.sep_id).all()
