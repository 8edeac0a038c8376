"""Every token knows its word, every word keeps its number, and windows cover all words once."""

from __future__ import annotations

import json
import random
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from kernel_lib.errors import SettingsError
from kernel_lib.offline.material import write_spelling_backbone
from kernel_lib.text.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer
from kernel_lib.text.words import (
    ENCODE_CHUNK,
    NO_WORD,
    WordWindow,
    _cut,
    encode_word_lists,
    encode_words,
    owned_words,
)
from tests.conftest import SHARED

DEBERTA = SHARED / "models/deberta-v3-spm"
CHINESE = SHARED / "models/bert-base-chinese-vocab"
BADOU = SHARED / "data/ner/badou"
WNUT = SHARED / "data/ner/wnut17"
EMPTY = ["", " ", "   ", "\t", "\u200b", "\u2028"]  # words without a token in DeBERTa-v3's shape
NASTY = [
    *EMPTY,
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "a\rb",
    "a\nb",
    "\u3000",
    "\u00a0",
    "\ufeff",
    "\x00",
    "\x07",
    "½",
    "…",
    "ﬁne",
    "1998",
    "iPhone15",
    "e\u0301",
    "👩‍👩‍👧",
    "中",
    "中文",
    "𠮷",
    "▁",
    "don't",
    "[SEP]",
    "x" * 300,
]


@pytest.fixture(scope="module")
def pieces(material):
    """A tokenizer in DeBERTa-v3's shape that knows line breaks."""
    return build_tokenizer(material.backbone, keep_newlines=True)


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory):
    """A tokenizer in the shape of the Chinese BERTs."""
    folder = tmp_path_factory.mktemp("bert")
    write_spelling_backbone(folder, corpus=["今天是1998年13日中国北京的天气很好，我们去公园。"])
    return build_tokenizer(folder, keep_newlines=False)


def genuine(folder: Path, **options: bool):
    if not folder.is_dir():
        pytest.skip(f"no tokenizer at {folder}")
    return build_tokenizer(folder, **{"keep_newlines": False, **options})


def tokens_of(window: WordWindow, word: int) -> list[int]:
    return window.input_ids[window.words == word].tolist()


def alone(tokenizer, word: str) -> list[int]:
    """A word's tokens when nothing stands around it."""
    word = word.replace("\r\n", "\n").replace("\r", "\n")
    return tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"]


def check(tokenizer, words: list[str], windows: list[WordWindow], *, size: int, frame: int) -> None:
    """What holds of any text's windows, whose room is ``size`` tokens between ``frame`` others."""
    lengths = [min(len(alone(tokenizer, word)), size) for word in words]
    for window in windows:
        inside = window.words[frame : len(window.words) - frame]
        assert len(window.input_ids) == len(window.words) == len(inside) + 2 * frame
        if frame:
            assert window.input_ids[0] == tokenizer.cls_token_id
            assert window.input_ids[-1] == tokenizer.sep_token_id
            assert window.words[0] == window.words[-1] == NO_WORD
        assert len(inside) <= size and NO_WORD not in inside
        for word in range(window.start, window.stop):
            found = tokens_of(window, word)
            assert found == alone(tokenizer, words[word])[:size], (words[word], found)
        assert len(inside) == sum(lengths[window.start : window.stop])
    owned = owned_words(windows)
    assert [word for start, stop in owned for word in range(start, stop)] == [*range(len(words))]
    for window, (start, stop) in zip(windows, owned, strict=True):
        assert window.start <= start <= stop <= window.stop
    for left, right in pairwise(windows):
        assert left.start < right.start <= left.stop < right.stop


def test_the_worked_example() -> None:
    begins = np.cumsum([0, 3, 2, 1, 2, 4])
    assert _cut(begins, size=6, overlap=2) == [(0, 3), (1, 4), (3, 5)]


def test_every_word_has_its_own_tokens_and_those_without_keep_their_number(pieces) -> None:
    words = ["the", "", "student", "\n", " ", "likes", "\u200b", "big", "books"]
    (window,) = encode_words(pieces, words, max_length=64, overlap=0)
    assert (window.start, window.stop) == (0, 9)
    assert sorted(set(window.words.tolist())) == [NO_WORD, 0, 2, 3, 5, 7, 8]
    assert tokens_of(window, 3) == [pieces.convert_tokens_to_ids("\n")]
    for word in (0, 2, 5, 7, 8):
        assert pieces.decode(tokens_of(window, word)) == words[word]
    assert window.input_ids.dtype == window.words.dtype == np.int32


@pytest.mark.parametrize("word", [*EMPTY, "\n", "\r\n", "\r"])
def test_a_word_without_a_token_shifts_nothing(material, word: str) -> None:
    tokenizer = build_tokenizer(material.backbone, keep_newlines=False)
    plain = encode_words(tokenizer, ["my", "teacher", "reads"], max_length=64, overlap=0)[0]
    (window,) = encode_words(tokenizer, ["my", word, "teacher", "reads"], max_length=64, overlap=0)
    assert window.input_ids.tolist() == plain.input_ids.tolist()
    assert window.words.tolist() == [w + (w > 0) for w in plain.words.tolist()]


def test_ids_are_those_of_the_tokenizer_itself(pieces, chinese) -> None:
    for tokenizer in (pieces, chinese):
        words = [word for word in NASTY if "\r" not in word]
        (window,) = encode_words(tokenizer, words, max_length=2000, overlap=0)
        encoded = tokenizer(words, is_split_into_words=True)
        assert window.input_ids.tolist() == encoded["input_ids"]
        wanted = [NO_WORD if word is None else word for word in encoded.word_ids()]
        assert window.words.tolist() == wanted


def test_special_tokens_or_none_shift_nothing(pieces) -> None:
    words = ["my", "", "teacher", "reads"] * 9
    framed = encode_words(pieces, words, max_length=18, overlap=4)
    plain = encode_words(pieces, words, max_length=16, overlap=4, special_tokens=False)
    assert len(framed) == len(plain) > 1
    for one, other in zip(framed, plain, strict=True):
        assert one.words[1:-1].tolist() == other.words.tolist()
        assert one.input_ids[1:-1].tolist() == other.input_ids.tolist()
        assert (one.start, one.stop) == (other.start, other.stop)


@pytest.mark.parametrize("words", [[], [""], [" ", "", "\u200b"]])
@pytest.mark.parametrize("special_tokens", [True, False])
def test_a_text_without_tokens_is_one_window(pieces, words: list[str], special_tokens) -> None:
    (window,) = encode_words(pieces, words, max_length=16, overlap=4, special_tokens=special_tokens)
    ids = [pieces.cls_token_id, pieces.sep_token_id] if special_tokens else []
    assert window.input_ids.tolist() == ids and window.words.tolist() == [NO_WORD] * len(ids)
    assert (window.start, window.stop) == (0, len(words))
    assert owned_words([window]) == [(0, len(words))]


def test_nasty_words_in_windows_of_any_size(pieces, chinese) -> None:
    choose = random.Random(0)
    for tokenizer in (pieces, chinese):
        for _ in range(40):
            words = [choose.choice([*NASTY, *"我在北京"]) for _ in range(choose.randrange(40))]
            size = choose.choice([1, 2, 3, 7, 14, 30, 62, 510])
            overlap = choose.choice([0, size // 4, size // 2, size - 1])
            for frame in (0, 1):
                windows = encode_words(
                    tokenizer,
                    words,
                    max_length=size + 2 * frame,
                    overlap=overlap,
                    special_tokens=bool(frame),
                )
                check(tokenizer, words, windows, size=size, frame=frame)


def test_windows_are_full_share_enough_and_no_more_than_needed() -> None:
    choose = random.Random(1)
    for _ in range(500):
        size = choose.randrange(1, 20)
        overlap = choose.randrange(size)
        lengths = [choose.choice([0, 0, 1, 1, 2, 3, size]) for _ in range(choose.randrange(30))]
        lengths = [min(length, size) for length in lengths]
        begins = np.cumsum([0, *lengths])
        windows = _cut(begins, size=size, overlap=overlap)
        case = (size, overlap, lengths, windows)
        assert windows[0][0] == 0 and windows[-1][1] == len(lengths), case
        assert len(windows) == 1 or sum(lengths) > size, case
        for start, stop in windows:
            assert sum(lengths[start:stop]) <= size, case
            assert stop == len(lengths) or sum(lengths[start : stop + 1]) > size, case
        for (start, stop), (later, end) in pairwise(windows):
            assert start < later <= stop < end, case
            shared, more = sum(lengths[later:stop]), sum(lengths[later - 1 : stop + 1])
            assert shared >= overlap or more > size, case
            if end < len(lengths):  # a word less would not do
                assert later == stop or sum(lengths[later + 1 : stop]) < overlap, case
        if len(windows) > 1:
            last = windows[-1][0]
            assert sum(lengths[last - 1 :]) > size, case


@pytest.mark.parametrize("special_tokens", [True, False])
def test_many_texts_are_encoded_as_each_alone(pieces, special_tokens: bool) -> None:
    choose = random.Random(2)
    texts = [
        [choose.choice([*NASTY, *"我在北京"]) for _ in range(choose.choice([0, 0, 1, 3, 30]))]
        for _ in range(2 * ENCODE_CHUNK + 3)
    ]
    options = {"max_length": 20, "overlap": 5, "special_tokens": special_tokens}
    together = encode_word_lists(pieces, texts, **options)
    assert len(together) == len(texts)
    for words, windows in zip(texts, together, strict=True):
        alone_ = encode_words(pieces, words, **options)
        assert [(w.start, w.stop) for w in windows] == [(w.start, w.stop) for w in alone_]
        for one, other in zip(windows, alone_, strict=True):
            assert one.input_ids.tolist() == other.input_ids.tolist()
            assert one.words.tolist() == other.words.tolist()
    assert encode_word_lists(pieces, [[], []], **options)[1][0].stop == 0
    assert encode_word_lists(pieces, [], **options) == []


def test_a_word_longer_than_a_window_is_cut_alone(pieces) -> None:
    words = ["my", "x" * 300, "teacher"]
    windows = encode_words(pieces, words, max_length=12, overlap=4)
    assert [(window.start, window.stop) for window in windows] == [(0, 1), (1, 2), (2, 3)]
    assert tokens_of(windows[1], 1) == alone(pieces, words[1])[:10]
    assert owned_words(windows) == [(0, 1), (1, 2), (2, 3)]


def test_chinese_by_character_does_not_drift_over_ascii_runs(chinese) -> None:
    words = list("1998年13日北京iPhone")
    (window,) = encode_words(chinese, words, max_length=64, overlap=0)
    assert window.words.tolist() == [NO_WORD, *range(len(words)), NO_WORD]
    found = [chinese.convert_ids_to_tokens(tokens_of(window, n))[0] for n in range(len(words))]
    assert found == [word.lower() for word in words]


def test_first_pieces_that_are_bare_marks_belong_to_their_word(pieces) -> None:
    (window,) = encode_words(pieces, list("北京"), max_length=64, overlap=0)
    first = [pieces.convert_ids_to_tokens(tokens_of(window, word))[0] for word in (0, 1)]
    assert first == ["▁", "▁"]
    assert [pieces.decode(tokens_of(window, word)) for word in (0, 1)] == ["北", "京"]


def test_a_saved_tokenizer_makes_the_same_windows(pieces, tmp_path) -> None:
    save_tokenizer(pieces, tmp_path)
    loaded = load_tokenizer(tmp_path)
    for one, other in zip(
        encode_words(pieces, NASTY, max_length=32, overlap=8),
        encode_words(loaded, NASTY, max_length=32, overlap=8),
        strict=True,
    ):
        assert one.input_ids.tolist() == other.input_ids.tolist()
        assert one.words.tolist() == other.words.tolist()


def test_truncation_and_padding_of_a_tokenizer_file_do_not_reach_here(material, tmp_path) -> None:
    tokenizer = build_tokenizer(material.backbone, keep_newlines=False)
    words = ["teacher"] * 40
    wanted = encode_words(tokenizer, words, max_length=512, overlap=0)[0]
    tokenizer.backend_tokenizer.enable_truncation(8)
    tokenizer.backend_tokenizer.enable_padding(length=900)
    (window,) = encode_words(tokenizer, words, max_length=512, overlap=0)
    assert window.input_ids.tolist() == wanted.input_ids.tolist()


@pytest.mark.parametrize(
    ("max_length", "overlap", "special_tokens"),
    [(2, 0, True), (0, 0, False), (10, 8, True), (10, 10, False), (10, -1, True)],
)
def test_windows_that_cannot_be_are_refused(pieces, max_length, overlap, special_tokens) -> None:
    with pytest.raises(SettingsError, match=f"windows of {max_length} tokens.*overlap by"):
        encode_words(
            pieces, ["a"], max_length=max_length, overlap=overlap, special_tokens=special_tokens
        )


@pytest.mark.pretrained
def test_every_character_of_badou_is_one_word(tmp_path) -> None:
    if not BADOU.is_dir() or not CHINESE.is_dir():
        pytest.skip(f"no sentences at {BADOU} or no vocabulary at {CHINESE}")
    (tmp_path / "vocab.txt").write_bytes((CHINESE / "vocab.txt").read_bytes())
    config = {"model_type": "bert", "vocab_size": 21128}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = build_tokenizer(tmp_path, keep_newlines=False)
    pieces, without = 0, set()
    for line in (BADOU / "test.jsonl").read_text(encoding="utf-8").splitlines():
        words = json.loads(line)["tokens"]
        assert all(len(word) == 1 for word in words)
        (window,) = encode_words(tokenizer, words, max_length=512, overlap=0)
        counts = np.bincount(window.words[1:-1], minlength=len(words))
        assert counts.max() == 1
        without |= {words[word] for word in np.flatnonzero(counts == 0)}
        pieces += len(words)
    assert pieces == 20_011
    assert all(unicodedata.category(word)[0] in "CZ" for word in without), without


@pytest.mark.pretrained
def test_words_of_wnut_decode_to_themselves_with_the_genuine_pieces() -> None:
    tokenizer = genuine(DEBERTA)
    if not WNUT.is_dir():
        pytest.skip(f"no sentences at {WNUT}")
    for line in (WNUT / "test.jsonl").read_text(encoding="utf-8").splitlines()[:150]:
        words = json.loads(line)["tokens"]
        windows = encode_words(tokenizer, words, max_length=128, overlap=16)
        for window, (start, stop) in zip(windows, owned_words(windows), strict=True):
            for word in range(start, stop):
                found = tokenizer.decode(tokens_of(window, word)).replace(" ", "")
                wanted = unicodedata.normalize("NFKC", words[word])
                readable = tokenizer.unk_token not in found and wanted.isascii()
                assert found == wanted.replace(" ", "") or not readable, (words[word], found)
