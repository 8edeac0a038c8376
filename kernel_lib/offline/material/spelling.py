"""A made-up task of Chinese spelling correction, and a tiny encoder in the Chinese BERTs' shape."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import pandas as pd

from kernel_lib.offline.material.sentences import DOMAINS, GROUPS, confusions, make_sentence, spoil

SPOILT = 0.5  # the share of sentences with an error

# What users' texts hold beside plain sentences; the first has an error.
AWKWARD = (
    "他说：“我再家里等你”，然后就走了……",
    "我用iPhone15在2026年3月做了一个vlog，打8折。",
    "今天天气很好😀👍🏽，我们坐汽车到公园去！",
    '"quoted", 和 comma, 还有 空  格。',
    "Ｈｅｌｌｏ，ＡＢＣ１２３　全角也有",
    "龘靐齉，這裡有繁體字和生僻字𠮷。",
    "没有标点也没有错误的句子",
    "好",
    " ",
    "",
)
LONG_PARTS = 60  # sentences in the one text that no window holds

SPECIALS = ("[PAD]", *(f"[unused{number}]" for number in range(1, 100)))
NAMED = ("[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "<T>")
PUNCTUATION = "·、。《》「」！（），：；？～"
PIECES = (*(f"##{character}" for character in string.digits + string.ascii_lowercase), "##ing")
UNKNOWN = "“”‘’…—"  # the genuine vocabulary lacks them too


def write_spelling_competition(
    folder: Path, *, train_rows: int, test_rows: int, seed: int = 0
) -> None:
    """Writes ``train.csv``, ``test.csv``, ``sample_submission.csv`` and ``confusion.txt``.

    Training rows have ``id, source, target, domain``, test rows ``id, source, domain``; the sample
    has ``id, target`` with the sources unchanged, in an order of its own. Up to half of the test
    are awkward texts. No right sentence comes twice.

    Args:
        folder: where to; made if missing.
        train_rows: sentences with their corrections.
        test_rows: sentences without.
        seed: of everything.
    """
    random = np.random.default_rng(seed)
    rows = _rows(train_rows + test_rows, random)
    frame = pd.DataFrame(rows, columns=["source", "target", "domain"])
    numbers = random.choice(10**6, size=len(frame), replace=False)
    frame.insert(0, "id", [f"{number:06d}" for number in numbers])
    train = frame[:train_rows]
    test = frame[train_rows:].drop(columns="target").reset_index(drop=True)
    awkward = _awkward(test["source"].tolist())[: test_rows // 2]
    test.loc[random.permutation(test_rows)[: len(awkward)], "source"] = awkward
    sample = test.sample(frac=1, random_state=seed)[["id", "source"]]
    folder.mkdir(parents=True, exist_ok=True)
    train.to_csv(folder / "train.csv", index=False)
    test.to_csv(folder / "test.csv", index=False)
    sample.rename(columns={"source": "target"}).to_csv(
        folder / "sample_submission.csv", index=False
    )
    lines = ["\t".join((one, *others)) for one, others in confusions().items()]
    (folder / "confusion.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows(count: int, random: np.random.Generator) -> list[tuple[str, str, str]]:
    domains = list(DOMAINS)
    rows: list[tuple[str, str, str]] = []
    taken: set[str] = set()
    while len(rows) < count:
        domain = domains[random.integers(len(domains))]
        target = make_sentence(domain, random)
        if target not in taken:
            taken.add(target)
            source = spoil(target, random) if random.random() < SPOILT else target
            rows.append((source, target, domain))
    return rows


def _awkward(sources: list[str]) -> list[str]:
    long = "".join(sources[number % len(sources)] for number in range(LONG_PARTS))
    return [long, *AWKWARD] if sources else []


def write_spelling_backbone(
    folder: Path, *, corpus: list[str], seed: int = 0, language_head: bool = True
) -> None:
    """Writes a tiny BERT in the shape of the Chinese ones: config, random weights, ``vocab.txt``.

    As in the genuine ones the weights are float32, ``[PAD]`` is the first and ``[unused1]`` the
    second of the vocabulary, which knows no capitals and no curly quotes, and letters and digits
    have ``##`` pieces, so that a word-piece tokenizer makes fewer tokens than characters.

    Args:
        folder: where to; made if missing.
        corpus: texts whose characters the vocabulary holds.
        seed: of the weights.
        language_head: save the head of masked language modelling too, as MacBERT's makers did;
            without it the encoder alone.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

    words = _vocabulary(corpus)
    config = AutoConfig.for_model(
        "bert",
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=512,
        type_vocab_size=2,
        pad_token_id=0,
        initializer_range=0.1,
    )
    torch.manual_seed(seed)
    kind = AutoModelForMaskedLM if language_head else AutoModel
    kind.from_config(config, trust_remote_code=False).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    tokenizer_config = {"do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config), encoding="utf-8")


def _vocabulary(corpus: list[str]) -> list[str]:
    plain = string.punctuation + string.digits + string.ascii_lowercase + PUNCTUATION
    seen = set("".join((*corpus, *GROUPS)))
    others = {character for character in seen if not character.isspace() and ord(character) > 127}
    characters = sorted(others - set(PUNCTUATION) - set(UNKNOWN))
    return [*SPECIALS, *NAMED, *plain, *characters, *PIECES]
