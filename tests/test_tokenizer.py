"""Token ids are those the weights were pretrained with, at training and at inference."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import unicodedata
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast

from kernel_lib.errors import ArtifactError, BackboneError
from kernel_lib.text.batches import encode_texts
from kernel_lib.text.tokenizer import (
    build_tokenizer,
    load_tokenizer,
    save_tokenizer,
    token_fingerprint,
)
from tests.conftest import SHARED

GENUINE = SHARED / "models/deberta-v3-spm"
CHINESE = SHARED / "models/bert-base-chinese-vocab"
SPECIAL = ("pad_token_id", "cls_token_id", "sep_token_id", "unk_token_id", "mask_token_id")

PROBES = [
    "a train",
    "A plain sentence, with commas; and (brackets)!",
    "no-break\u00a0space",
    "wait… what",
    "full-width，punctuation。！？（）",
    "™ ½ ¼ № ℃",
    "ﬁne ﬀ ﬄ",
    "ＡＢＣ１２３",
    "纠错 falls back to bytes",
    "emoji 😀 👩‍👩‍👧",
    "naïve cafe\u0301 e\u0301",
    "it’s “quoted” ‘so’ — and – so",
    "zero\u200bwidth",
    "soft\u00adhyphen",
    "\ufeffmark at the begin",
    "tab\there and\r\nthere",
    "line\nbreaks\n\nare spaces here",
    "  leading and   inner  ",
    "",
    "   ",
    "control\x01\x02characters\x7f",
    "عربي ไทย हिन्दी",
    "ideographic\u3000space",
    "Ⅷ ㎏ ß İ ſ",
    "▁under the words",
    "x" * 5,
]


@pytest.fixture(
    scope="module", params=["tiny", pytest.param("genuine", marks=pytest.mark.pretrained)]
)
def backbone(request, material) -> Path:
    if request.param == "tiny":
        return material.backbone
    if not (GENUINE / "spm.model").is_file():
        pytest.skip(f"the genuine spm.model is not at {GENUINE}")
    return GENUINE


@pytest.fixture(scope="module")
def pieces(backbone: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(backbone / "spm.model"))


@pytest.fixture(scope="module")
def plain(backbone: Path) -> PreTrainedTokenizerFast:
    return build_tokenizer(backbone, keep_newlines=False)


@pytest.fixture(scope="module")
def with_newlines(backbone: Path) -> PreTrainedTokenizerFast:
    return build_tokenizer(backbone, keep_newlines=True)


def ids(tokenizer, *texts: str) -> list[int]:
    return tokenizer(*texts)["input_ids"]


@pytest.mark.parametrize("probe", PROBES)
def test_ids_are_those_of_sentencepiece_itself(plain, pieces, probe: str) -> None:
    assert ids(plain, probe) == [1, *pieces.encode(probe), 2]


def test_blanks_and_controls_anywhere_give_sentencepieces_ids(plain, pieces) -> None:
    """Some become a space, some vanish; at an end that space has to go."""
    marks = [
        chr(code)
        for code in range(0x3001)
        if unicodedata.category(chr(code)) in {"Zs", "Zl", "Zp", "Cc", "Cf"}
    ]
    patterns = ("{}a b", "a b{}", "a{}b", "a {} b", "{} a", "a {}")
    texts = [pattern.format(mark) for mark in marks for pattern in patterns]
    wrong = [
        (text, found)
        for text, found in zip(texts, plain(texts)["input_ids"], strict=True)
        if found != [1, *pieces.encode(text), 2]
    ]
    assert wrong == []


def test_special_tokens_have_deberta_v3s_ids(plain) -> None:
    assert [getattr(plain, name) for name in SPECIAL[:4]] == [0, 1, 2, 3]
    assert plain.mask_token_id == len(plain) - 1


def test_cls_and_sep_stand_around_one_text_and_between_two(plain, pieces) -> None:
    a, b = pieces.encode("a"), pieces.encode("train")
    assert ids(plain, "a train") == [1, *pieces.encode("a train"), 2]
    assert ids(plain, "a", "train") == [1, *a, 2, *b, 2]


def test_a_cut_text_still_ends_with_sep(plain) -> None:
    (row,) = encode_texts(plain, ["a train " * 50], max_length=16)
    assert len(row) == 16 and row[0] == 1 and row[-1] == 2
    assert 2 not in row[:-1]


@pytest.mark.parametrize("newlines", [False, True])
def test_saved_and_loaded_it_gives_the_same_ids(plain, with_newlines, tmp_path, newlines) -> None:
    tokenizer = with_newlines if newlines else plain
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    again = load_tokenizer(tmp_path / "tokenizer")
    for probe in PROBES:
        assert ids(again, probe) == ids(tokenizer, probe)
    assert ids(again, "a", "train") == ids(tokenizer, "a", "train")
    assert [getattr(again, name) for name in SPECIAL] == [
        getattr(tokenizer, name) for name in SPECIAL
    ]
    assert len(again) == len(tokenizer)
    assert token_fingerprint(again) == token_fingerprint(tokenizer)


def test_loading_needs_neither_sentencepiece_nor_the_model_file(
    plain, tmp_path, monkeypatch
) -> None:
    save_tokenizer(plain, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    assert ids(load_tokenizer(tmp_path), "a train") == ids(plain, "a train")


def test_the_saved_config_names_the_class_that_rebuilds_nothing(plain, tmp_path) -> None:
    """Another program that goes by the config must not put NFC over our character map either."""
    from transformers import AutoTokenizer

    save_tokenizer(plain, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "deberta-v2"}))
    other = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    for probe in ("wait… what", "ＡＢＣ１２３", "no-break\u00a0space"):
        assert ids(other, probe) == ids(plain, probe)


def test_a_line_break_has_a_token_of_its_own(with_newlines, plain, pieces) -> None:
    (newline,) = with_newlines.convert_tokens_to_ids(["\n"])
    assert newline == len(plain)
    one, two = pieces.encode("one"), pieces.encode("two")
    assert ids(with_newlines, "one\n\ntwo") == [1, *one, newline, newline, *two, 2]
    assert ids(with_newlines, "one \n two") == [1, *one, newline, *two, 2]
    assert ids(with_newlines, "\n") == [1, newline, 2]
    assert newline not in ids(plain, "one\n\ntwo")


@pytest.mark.parametrize("probe", [probe for probe in PROBES if "\n" not in probe])
def test_without_line_breaks_the_new_token_changes_nothing(with_newlines, plain, probe) -> None:
    assert ids(with_newlines, probe) == ids(plain, probe)


def test_carriage_returns_are_line_breaks(with_newlines) -> None:
    unix, dos, old_mac = encode_texts(
        with_newlines, ["one\n\ntwo\n", "one\r\n\r\ntwo\r\n", "one\r\rtwo\r"], max_length=64
    )
    assert unix.tolist() == dos.tolist() == old_mac.tolist()
    assert unix.tolist().count(with_newlines.convert_tokens_to_ids("\n")) == 3


@pytest.mark.pretrained
def test_on_the_genuine_model_the_new_token_fits_the_embedding_table() -> None:
    if not (GENUINE / "spm.model").is_file():
        pytest.skip(f"the genuine spm.model is not at {GENUINE}")
    tokenizer = build_tokenizer(GENUINE, keep_newlines=True)
    assert tokenizer.convert_tokens_to_ids("[MASK]") == 128_000
    assert tokenizer.convert_tokens_to_ids("\n") == 128_001 < 128_100
    assert ids(tokenizer, "a train") == [1, 266, 2184, 2]
    assert ids(tokenizer, "a", "train") == [1, 266, 2, 2184, 2]


def test_the_fingerprint_is_stable_and_sees_every_known_fault(material, with_newlines) -> None:
    def build() -> PreTrainedTokenizerFast:
        return build_tokenizer(material.backbone, keep_newlines=False)

    good = token_fingerprint(build())
    assert good == token_fingerprint(build())

    composed = build()  # what transformers 5 makes of spm.model
    composed.backend_tokenizer.normalizer = normalizers.NFC()
    bare = build()  # and what 5.0 to 5.3 leave out
    bare.backend_tokenizer.post_processor = None
    newlines = build_tokenizer(material.backbone, keep_newlines=True)
    faulty = {token_fingerprint(tokenizer) for tokenizer in (composed, bare, newlines)}
    assert len(faulty) == 3 and good not in faulty


def test_spm_model_wins_over_a_wrong_tokenizer_json_beside_it(material, tmp_path) -> None:
    shutil.copy(material.backbone / "spm.model", tmp_path)
    right = build_tokenizer(material.backbone, keep_newlines=False)
    wrong = build_tokenizer(material.backbone, keep_newlines=False)
    wrong.backend_tokenizer.normalizer = normalizers.NFC()
    save_tokenizer(wrong, tmp_path)
    built = build_tokenizer(tmp_path, keep_newlines=False)
    assert ids(built, "ＡＢＣ… ½") == ids(right, "ＡＢＣ… ½") != ids(wrong, "ＡＢＣ… ½")


def test_a_folder_with_only_tokenizer_json_is_taken_as_it_stands(material, tmp_path) -> None:
    right = build_tokenizer(material.backbone, keep_newlines=False)
    save_tokenizer(right, tmp_path)
    built = build_tokenizer(tmp_path, keep_newlines=False)
    assert [ids(built, probe) for probe in PROBES] == [ids(right, probe) for probe in PROBES]


def test_inference_refuses_a_folder_without_tokenizer_json_and_says_why(material) -> None:
    with pytest.raises(ArtifactError) as caught:
        load_tokenizer(material.backbone)
    message = str(caught.value)
    assert "tokenizer.json" in message and "transformers 5" in message and "run folder" in message


def test_a_truncated_tokenizer_json_is_a_damaged_run(material, tmp_path) -> None:
    save_tokenizer(build_tokenizer(material.backbone, keep_newlines=False), tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_folder_without_any_tokenizer_names_what_it_needs(tmp_path) -> None:
    with pytest.raises(BackboneError, match=r"none of spm\.model, tokenizer\.json, vocab\.txt"):
        build_tokenizer(tmp_path, keep_newlines=True)


@pytest.mark.parametrize(
    "files",
    [
        {"spm.model": "not sentencepiece"},
        {"spm.model": ""},
        {"tokenizer.json": '{"version": '},
        {"tokenizer.json": "{}"},
        {"vocab.txt": "", "config.json": '{"model_type": "bert"}'},
        {"vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n"},
    ],
    ids=["spm", "empty spm", "cut json", "empty json", "empty vocab", "vocab without config"],
)
def test_a_tokenizer_file_that_cannot_be_read_is_a_backbone_error(tmp_path, files) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(BackboneError, match=tmp_path.name):
        build_tokenizer(tmp_path, keep_newlines=False)


def test_a_tokenizer_that_adds_no_cls_and_sep_is_refused(tmp_path) -> None:
    bare = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    bare.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BackboneError, match="without its special tokens"):
        build_tokenizer(tmp_path, keep_newlines=False)


def write_bert(folder: Path, vocabulary: str) -> Path:
    size = len(vocabulary.rstrip("\n").split("\n"))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": size}))
    (folder / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    return folder


def test_a_vocab_txt_gives_all_of_its_tokens(tmp_path) -> None:
    """``BertTokenizerFast(vocab_file=...)`` of transformers 5 silently makes five."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "tra", "##in", "."]
    tokenizer = build_tokenizer(write_bert(tmp_path, "\n".join(words)), keep_newlines=True)
    assert len(tokenizer) == len(words) + 1
    assert ids(tokenizer, "a train.\n") == [2, 5, 6, 7, 8, 9, 3]
    save_tokenizer(tokenizer, tmp_path / "saved")
    assert ids(load_tokenizer(tmp_path / "saved"), "a train.\n") == [2, 5, 6, 7, 8, 9, 3]


@pytest.mark.pretrained
def test_the_genuine_chinese_vocabulary_gives_a_token_for_each_character(tmp_path) -> None:
    if not (CHINESE / "vocab.txt").is_file():
        pytest.skip(f"the Chinese vocabulary is not at {CHINESE}")
    vocabulary = (CHINESE / "vocab.txt").read_text(encoding="utf-8")
    tokenizer = build_tokenizer(write_bert(tmp_path, vocabulary), keep_newlines=False)
    assert len(tokenizer) == 21_128
    assert tokenizer.tokenize("今天天气很好2026") == [*"今天天气很好", "202", "##6"]
    lines = vocabulary.split("\n")
    assert ids(tokenizer, "今天") == [101, lines.index("今"), lines.index("天"), 102]


def test_a_folders_own_code_is_never_run_whatever_is_answered(tmp_path, monkeypatch) -> None:
    marker = tmp_path / "it-ran"
    folder = write_bert(tmp_path, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}})
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}})
    )
    (folder / "own.py").write_text(
        f"open({str(marker)!r}, 'w').close()\n"
        "from transformers import BertTokenizer, PreTrainedConfig\n"
        "class OwnConfig(PreTrainedConfig):\n    model_type = 'own'\n"
        "class Own(BertTokenizer):\n    pass\n"
    )
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with contextlib.suppress(BackboneError):
        build_tokenizer(folder, keep_newlines=False)
    assert not marker.exists()
