"""Essays whose scores can be read from them, and a tiny encoder in DeBERTa-v3's shape.

A writer has a skill for each target; the better it is, the more often rare words, connectives,
correct forms and paragraphs are chosen, so a model that reads can learn the scores.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

TARGETS = ("cohesion", "syntax", "vocabulary", "phraseology", "grammar", "conventions")

_SUBJECTS = ("the student", "my teacher", "a friend", "our school", "the town", "her brother")
_VERBS = (("like", "likes"), ("want", "wants"), ("help", "helps"), ("show", "shows"))
_PLAIN = ("good things", "a nice day", "big books", "the same game", "some food", "a new phone")
_RICH = (
    "considerable patience",
    "an unfamiliar argument",
    "rigorous evidence",
    "a generous neighbourhood",
    "deliberate practice",
    "the subtle difference",
)
_LINKS = ("However,", "Therefore,", "For instance,", "In addition,", "As a result,")
_TAILS_SIMPLE = ("and it is good", "and that is it", "so yes")
_TAILS_COMPLEX = (
    "because it lets everyone learn at a steady pace",
    "although the reasons are seldom explained",
    "which is why the whole class agreed",
)
_PHRASES_PLAIN = ("very very much", "a lot of many", "in the every day")
_PHRASES_RICH = ("time and again", "by and large", "in the long run")


def write_competition(folder: Path, *, train_rows: int, test_rows: int, seed: int = 0) -> None:
    """Writes ``train.csv``, ``test.csv`` and ``sample_submission.csv`` in FB3's shape.

    Args:
        folder: where to; made if missing.
        train_rows: essays with scores.
        test_rows: essays without.
        seed: of everything.
    """
    random = np.random.default_rng(seed)
    rows = [_essay_row(random) for _ in range(train_rows + test_rows)]
    frame = pd.DataFrame(rows, columns=["full_text", *TARGETS])
    ids = [f"{number:012X}" for number in random.choice(2**40, size=len(frame), replace=False)]
    frame.insert(0, "text_id", ids)
    train, test = frame[:train_rows], frame[train_rows:].sort_values("text_id")
    folder.mkdir(parents=True, exist_ok=True)
    train.to_csv(folder / "train.csv", index=False)
    test[["text_id", "full_text"]].to_csv(folder / "test.csv", index=False)
    sample = test[["text_id"]].assign(**dict.fromkeys(TARGETS, 3.0))
    sample.to_csv(folder / "sample_submission.csv", index=False)


def _essay_row(random: np.random.Generator) -> list[object]:
    general = random.normal(3.1, 0.55)
    skills = np.clip(general + random.normal(0, 0.35, size=6), 1, 5)
    scores = np.round(skills * 2) / 2
    return [_essay(scores, random), *scores.tolist()]


def _essay(scores: np.ndarray, random: np.random.Generator) -> str:
    """Text of 4 to 8 sentences; each choice falls the better way with a chance set by one score."""
    chance = dict(zip(TARGETS, (scores - 1) / 4, strict=True))

    def well(target: str) -> bool:
        return bool(random.random() < chance[target])

    sentences = []
    for _ in range(int(random.integers(4, 9))):
        plain_verb, right_verb = _VERBS[random.integers(len(_VERBS))]
        words = [
            random.choice(_LINKS) if well("cohesion") else "and",
            random.choice(_SUBJECTS),
            right_verb if well("grammar") else plain_verb,
            random.choice(_RICH if well("vocabulary") else _PLAIN),
            random.choice(_PHRASES_RICH if well("phraseology") else _PHRASES_PLAIN),
            random.choice(_TAILS_COMPLEX if well("syntax") else _TAILS_SIMPLE),
        ]
        sentence = " ".join(words)
        sentences.append(
            sentence[0].upper() + sentence[1:] + "." if well("conventions") else sentence
        )
    half = len(sentences) // 2
    return " ".join(sentences[:half]) + "\n\n" + " ".join(sentences[half:])


def write_backbone(folder: Path, *, corpus: list[str], pieces: int = 500, seed: int = 0) -> None:
    """Writes a tiny encoder in DeBERTa-v3's shape: config, random weights, and ``spm.model``.

    As in the genuine model the weights are float16, the tokenizer is only the sentencepiece file,
    and the embedding table has rows to spare.

    Args:
        folder: where to; made if missing.
        corpus: texts that the sentencepiece model is trained on.
        pieces: size of its vocabulary.
        seed: of the weights.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    folder.mkdir(parents=True, exist_ok=True)
    _train_sentencepiece(folder, corpus, pieces)
    config = AutoConfig.for_model(
        "deberta-v2",
        vocab_size=pieces + 100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=512,
        relative_attention=True,
        position_buckets=32,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        max_relative_positions=-1,
        position_biased_input=False,
        type_vocab_size=0,
        pad_token_id=0,
        initializer_range=0.1,
    )
    torch.manual_seed(seed)
    AutoModel.from_config(config, trust_remote_code=False).half().save_pretrained(folder)
    tokenizer_config = {"do_lower_case": False, "vocab_type": "spm"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config), encoding="utf-8")


def _train_sentencepiece(folder: Path, corpus: list[str], pieces: int) -> None:
    import sentencepiece

    text = folder / "corpus.txt"
    text.write_text("\n".join(" ".join(line.split()) for line in corpus), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "spm"),
        vocab_size=pieces,
        model_type="unigram",
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        byte_fallback=True,
        normalization_rule_name="nmt_nfkc",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    text.unlink()
    (folder / "spm.vocab").unlink(missing_ok=True)
