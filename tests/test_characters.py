"""One id for each character, whatever a text holds, and no place ever shifts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kernel_lib.errors import BackboneError
from kernel_lib.text.characters import CharacterEncoder, is_chinese
from kernel_lib.text.corrections import Change, apply_changes
from kernel_lib.text.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer
from tests.conftest import SHARED

GENUINE = SHARED / "models/bert-base-chinese-vocab/vocab.txt"
SENTENCES = SHARED / "data/csc"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHINESE = "我你他的一是不了人在有中国这书纠正错误〇豈\U00020000㐀"
OTHERS = "abe1，。！[]#αか"
PIECES = ["##a", "##我", "##1", "abc", "202", "[unused1]", "我们"]
NASTY = [
    "2026年abc",
    "“引号”‘单’…—",
    "emoji 👩‍👩‍👧 😀 ok",
    "\x00\x01\x1f\x7f\x80\u0085",
    "ＡＢＣ１２３，！",
    "𠀀𠮷丽龥鿿",
    " 前后 空格 　",
    "\ttab\nline\r\nend\u2028\u2029",
    "[CLS]我[SEP][MASK][UNK][PAD][unused1]",
    "zero\u200b\u200dwidth\ufeff\u2060",
    "e\u0301 \u0301 ゛か\u3099が",
    "İıßſŉǆﬁ㎏½Ⅷ①㈱",
    "한글 عربي हिन्दी ไทย",
    "\ud83d half \udc00",
    "##我##a",
    "",
    " ",
    "A" * 300,
]


def write_vocabulary(folder: Path, tokens: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "bert", "vocab_size": len(tokens)}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> CharacterEncoder:
    folder = tmp_path_factory.mktemp("vocabulary")
    write_vocabulary(folder, [*SPECIAL, *CHINESE, *OTHERS, *PIECES])
    return CharacterEncoder(build_tokenizer(folder, keep_newlines=False))


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> CharacterEncoder:
    if not GENUINE.is_file():
        pytest.skip(f"the Chinese vocabulary is not at {GENUINE}")
    tokens = GENUINE.read_text(encoding="utf-8").rstrip("\n").split("\n")
    folder = write_vocabulary(tmp_path_factory.mktemp("genuine"), tokens)
    return CharacterEncoder(build_tokenizer(folder, keep_newlines=False))


def place(encoder: CharacterEncoder, character: str) -> int:
    """The id of a character that the vocabulary holds."""
    return next(i for i in range(encoder.size) if encoder.character(i) == character)


def decode(encoder: CharacterEncoder, text: str, predicted: np.ndarray) -> str:
    """The text with the character of each changed id in its place."""
    before = encoder.ids(text)
    assert len(before) == len(predicted) == len(text)
    changed = np.flatnonzero(before != predicted)
    return apply_changes(
        text, [Change(i, text[i], encoder.character(predicted[i]), 1.0) for i in changed]
    )


def nasty_texts(count: int) -> list[str]:
    """Random texts of nasty runs and of any code points at all, half surrogates among them."""
    rng = np.random.default_rng(7)
    texts = []
    for _ in range(count):
        parts = [NASTY[i] for i in rng.integers(0, len(NASTY) - 1, rng.integers(0, 4))]
        codes = rng.integers(0, rng.choice([0x80, 0x3000, 0xA000, 0x110000]), rng.integers(0, 12))
        parts += ["".join(map(chr, codes)), CHINESE[: rng.integers(0, len(CHINESE))]]
        texts.append("".join(parts[i] for i in rng.permutation(len(parts))))
    return texts


@pytest.mark.parametrize("character", "一龥鿿㐀䶿〇豈\U00020000\U0002a6df\U0002f800\U00031350")
def test_ideographs_are_chinese(character: str) -> None:
    assert is_chinese(character)


@pytest.mark.parametrize("character", "aＡ1１，。“…— 　\n\x00かカ한々〆⺀⼀㊀😀\ud83d\ue000")
def test_other_characters_are_not(character: str) -> None:
    assert not is_chinese(character)


def test_the_special_tokens_and_the_size(encoder) -> None:
    ids = (encoder.pad_id, encoder.unknown_id, encoder.cls_id, encoder.sep_id, encoder.mask_id)
    assert ids == (0, 1, 2, 3, 4)
    assert encoder.size == len(SPECIAL) + len(CHINESE) + len(OTHERS) + len(PIECES)


@pytest.mark.parametrize(
    ("character", "stands_for"),
    [
        ("我", "我"),
        ("a", "a"),
        ("A", "a"),
        ("é", "e"),
        ("É", "e"),
        ("Ａ", "a"),
        ("ｂ", "b"),
        ("Ｂ", "b"),
        ("１", "1"),
        ("①", "1"),
        ("［", "["),
        ("，", "，"),
        ("Α", "α"),
        ("が", "か"),
        ("豈", "豈"),
        ("\U00020000", "\U00020000"),
    ],
)
def test_a_character_is_looked_up_in_its_plainer_forms(encoder, character, stands_for) -> None:
    assert encoder.ids(character).tolist() == [place(encoder, stands_for)]


@pytest.mark.parametrize("character", "们z2“”…—😀\n\t \x00\u200b\u0301½㎏ﬁßİ한\ud83d𠮷,")
def test_what_the_vocabulary_lacks_is_unknown(encoder, character) -> None:
    assert encoder.ids(character).tolist() == [encoder.unknown_id]


def test_the_character_itself_comes_before_its_plainer_forms(tmp_path) -> None:
    tokens = [*SPECIAL, *CHINESE, "a", "A", "ａ", "é", "e", "b", "B"]
    encoder = CharacterEncoder(
        build_tokenizer(write_vocabulary(tmp_path, tokens), keep_newlines=False)
    )
    expected = [place(encoder, character) for character in "aAａaée"]
    assert encoder.ids("aAａâéê").tolist() == expected
    assert encoder.ids("ＡＢ").tolist() == [place(encoder, "ａ"), place(encoder, "B")]


def test_no_word_piece_and_no_special_token_ever_stands_for_a_character(encoder) -> None:
    allowed = {*range(len(SPECIAL), len(SPECIAL) + len(CHINESE) + len(OTHERS)), encoder.unknown_id}
    for text in [*NASTY, *nasty_texts(500)]:
        assert set(encoder.ids(text).tolist()) <= allowed


def test_a_special_token_spelled_out_is_its_characters(encoder) -> None:
    one_by_one = [encoder.ids(character)[0] for character in "[SEP]"]
    assert encoder.ids("[SEP]").tolist() == one_by_one
    assert encoder.ids("[SEP]")[[0, 2, 4]].tolist() == [
        place(encoder, character) for character in "[e]"
    ]
    assert encoder.sep_id not in encoder.ids("[SEP][MASK]")


def test_a_special_token_of_one_character_stands_for_none(tmp_path) -> None:
    tokens = [*SPECIAL, *CHINESE]
    tokenizer = build_tokenizer(write_vocabulary(tmp_path, tokens), keep_newlines=False)
    tokenizer.add_special_tokens({"additional_special_tokens": ["我"]})
    encoder = CharacterEncoder(tokenizer)
    assert encoder.ids("我").tolist() == [encoder.unknown_id]
    assert encoder.character(tokens.index("我")) == ""
    assert not encoder.writable[tokens.index("我")]


def test_ids_are_int32_and_begin_to_end_those_of_the_characters(encoder) -> None:
    text = "我aé们1"
    ids = encoder.ids(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == [encoder.ids(character)[0] for character in text]
    assert encoder.ids("").shape == (0,)


def test_only_ids_of_one_character_give_one(encoder) -> None:
    characters = [encoder.character(i) for i in range(encoder.size)]
    assert characters == [*[""] * len(SPECIAL), *CHINESE, *OTHERS, *[""] * len(PIECES)]
    assert encoder.character(np.int64(5)) == CHINESE[0]
    assert encoder.character(-100) == encoder.character(encoder.size) == ""


def test_what_may_be_written_is_one_chinese_character_and_comes_back(encoder) -> None:
    assert encoder.writable.shape == (encoder.size,)
    written = [encoder.character(i) for i in np.flatnonzero(encoder.writable)]
    assert written == list(CHINESE)
    for index in np.flatnonzero(encoder.writable):
        assert encoder.ids(encoder.character(index)).tolist() == [index]


def test_saved_and_loaded_it_is_the_same(tmp_path, encoder) -> None:
    folder = write_vocabulary(tmp_path, [*SPECIAL, *CHINESE, *OTHERS, *PIECES])
    save_tokenizer(build_tokenizer(folder, keep_newlines=False), tmp_path / "saved")
    again = CharacterEncoder(load_tokenizer(tmp_path / "saved"))
    assert again.size == encoder.size
    assert [again.character(i) for i in range(again.size)] == [
        encoder.character(i) for i in range(encoder.size)
    ]
    np.testing.assert_array_equal(again.writable, encoder.writable)
    for text in NASTY:
        np.testing.assert_array_equal(again.ids(text), encoder.ids(text))
    for name in ("cls_id", "sep_id", "mask_id", "unknown_id", "pad_id"):
        assert getattr(again, name) == getattr(encoder, name)


def test_a_sentencepiece_backbone_is_refused(material) -> None:
    tokenizer = build_tokenizer(material.backbone, keep_newlines=True)
    with pytest.raises(BackboneError, match=r"single Chinese characters.*Chinese BERT"):
        CharacterEncoder(tokenizer)


def test_a_tokenizer_without_a_mask_is_refused(tmp_path) -> None:
    tokens = [*SPECIAL, *CHINESE]
    tokenizer = build_tokenizer(write_vocabulary(tmp_path, tokens), keep_newlines=False)
    tokenizer.mask_token = None
    with pytest.raises(BackboneError, match="no mask_token"):
        CharacterEncoder(tokenizer)


@pytest.mark.parametrize("text", NASTY)
def test_nothing_changed_gives_the_text_itself(encoder, text) -> None:
    assert decode(encoder, text, encoder.ids(text)) == text


@pytest.mark.parametrize(("vocabulary", "count"), [("encoder", 10_000), ("genuine", 2_000)])
def test_nasty_texts_come_back_and_a_change_shifts_nothing(vocabulary, count, request) -> None:
    encoder = request.getfixturevalue(vocabulary)
    rng = np.random.default_rng(11)
    writable = np.flatnonzero(encoder.writable)
    for text in nasty_texts(count):
        ids = encoder.ids(text)
        assert len(ids) == len(text)
        assert decode(encoder, text, ids) == text
        if text:
            at, new = int(rng.integers(len(text))), rng.choice(writable)
            predicted = ids.copy()
            predicted[at] = new
            expected = text if ids[at] == new else text[:at] + encoder.character(new)
            assert decode(encoder, text, predicted) == expected + text[len(expected) :]


@pytest.mark.pretrained
def test_every_shared_sentence_comes_back(genuine) -> None:
    files = sorted(SENTENCES.rglob("*.jsonl"))
    if not files:
        pytest.skip(f"no sentences at {SENTENCES}")
    texts = {
        text
        for path in files
        for line in path.read_text(encoding="utf-8").split("\n")
        if line
        for text in (json.loads(line)["source"], json.loads(line)["target"])
    }
    assert len(texts) > 30_000
    for text in texts:
        assert decode(genuine, text, genuine.ids(text)) == text


@pytest.mark.pretrained
def test_the_genuine_vocabulary(genuine) -> None:
    assert genuine.size == 21_128
    ids = (genuine.pad_id, genuine.unknown_id, genuine.cls_id, genuine.sep_id, genuine.mask_id)
    assert ids == (0, 100, 101, 102, 103)
    assert set(genuine.ids("“”‘’…—").tolist()) == {genuine.unknown_id}
    assert genuine.unknown_id not in genuine.ids("今天天气很好2026ABCＡ１，。")
    assert len(np.unique(genuine.ids("2026"))) == 3
    assert 7_000 < genuine.writable.sum() < 8_000


@pytest.mark.pretrained
def test_the_genuine_deberta_tokenizer_is_refused() -> None:
    folder = SHARED / "models/deberta-v3-spm"
    if not (folder / "spm.model").is_file():
        pytest.skip(f"the genuine spm.model is not at {folder}")
    with pytest.raises(BackboneError, match="single Chinese characters"):
        CharacterEncoder(build_tokenizer(folder, keep_newlines=False))
