"""A small Chinese encoder from nothing, for want of a genuine one: RoFormer, pretrained as MacBERT.

    python -m kernel_lib.bench.pretrain VOCAB FOLDER --minutes 60 --settings '{"data_dir": ...}'

Right sentences have some characters hidden and some confused, and all of these are to be named (Cui
et al. 2020, arXiv 2004.13922, with single characters). Rotary positions (Su et al. 2021, arXiv
2104.09864) learn who is next to whom far sooner than a table of positions does. The sentences are
the targets of a spelling run's training rows, less those that its first fold is scored on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForMaskedLM, AutoTokenizer

from kernel_lib.bench.scratch import roformer_config, write_scratch_backbone
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.command import exit_status
from kernel_lib.runtime.device import pick_device, pick_precision
from kernel_lib.runtime.progress import progress_bar
from kernel_lib.tasks.spelling import SpellingTask
from kernel_lib.tasks.spelling_data import read_confusion
from kernel_lib.tasks.spelling_sentences import confusable_ids
from kernel_lib.tasks.spelling_settings import SpellingSettings
from kernel_lib.text.batches import IGNORE, Batch, collate_to
from kernel_lib.text.characters import CharacterEncoder
from kernel_lib.text.masking import Masking, MaskShares, Swap
from kernel_lib.text.order import TrainingOrder
from kernel_lib.text.tokenizer import save_tokenizer
from kernel_lib.training.masked_language import Recipe, masked_updates

SHARES = MaskShares(hidden=0.15, swapped=0.10, seen=0.05)
LONGEST = 128
BATCH_TOKENS = 4096
RECIPE = Recipe(learning_rate=2e-3, weight_decay=0.05, warm_up=0.05)
SAVE_EVERY_SECONDS = 300.0


def pretrain(
    vocab: Path,
    folder: Path,
    settings: SpellingSettings,
    *,
    minutes: float,
    hidden: int,
    layers: int,
    heads: int,
    seed: int = 0,
) -> None:
    """Writes a backbone folder: encoder, masked-language-model head, tokenizer.

    Args:
        vocab: a BERT ``vocab.txt``.
        folder: where to; what it holds is replaced, every few minutes.
        settings: of the run that will use it: which files, and which rows are left out.
        minutes: how long.
        hidden, layers, heads: the encoder's size.
        seed: of everything.
    """
    # BERT's tokenizer of the vocabulary, whatever the encoder.
    write_scratch_backbone(
        folder, vocab, hidden=8, layers=1, heads=1, intermediate=8, seed=seed, masked_lm_head=False
    )
    tokenizer: Any = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    save_tokenizer(tokenizer, folder)
    torch.manual_seed(seed)
    model = AutoModelForMaskedLM.from_config(
        roformer_config(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * hidden,
            pad_token_id=tokenizer.pad_token_id,
        ),
        dtype=torch.float32,
        trust_remote_code=False,
    )
    task = SpellingTask(settings)
    frame = task.read_train()
    kept = frame["target"][task.folds(frame) != settings.wanted_folds[0]]
    texts = kept.drop_duplicates().tolist()
    characters, confusion = CharacterEncoder(tokenizer), read_confusion(settings)
    confusable = confusable_ids(characters, confusion) if confusion else {}
    masking = Masking(SHARES, mask_id=characters.mask_id, swap=confusing(confusable))
    print(f"{len(texts):,} sentences, {sum(map(len, texts)):,} characters")
    _train(model, characters, masking, texts, folder, minutes, seed)


def confusing(confusable: dict[int, NDArray[np.int32]]) -> Swap:
    """A character that it is confused with, for one that has such; else itself.

    Args:
        confusable: for a token id those of the characters it is confused with.
    """

    def swap(token: int, random: np.random.Generator) -> int:
        others = confusable.get(token)
        return token if others is None else int(others[random.integers(len(others))])

    return swap


def _train(
    model: Any,
    characters: CharacterEncoder,
    masking: Masking,
    texts: Sequence[str],
    folder: Path,
    minutes: float,
    seed: int,
) -> None:
    device = pick_device()
    model.to(device).train()
    ends = np.array([characters.cls_id]), np.array([characters.sep_id])
    encoded = [
        np.concatenate([ends[0], characters.ids(text[: LONGEST - 2]), ends[1]]).astype(np.int32)
        for text in texts
    ]
    # Only characters that occur can be answers: a softmax over a third of the vocabulary.
    answers = np.unique(np.concatenate([ids[1:-1] for ids in encoded])).astype(np.int64)
    place = torch.full((len(model.get_input_embeddings().weight),), IGNORE)
    place[answers] = torch.arange(len(answers))
    rows, place = torch.from_numpy(answers).to(device), place.to(device)
    clock, saved = Clock(minutes * 60), 0.0
    epoch, losses = 0, list[float]()
    with progress_bar(round(minutes * 60), "pretrain", unit="s") as bar:
        for epoch, loss in masked_updates(
            model,
            lambda batch: _loss(model, batch, rows, place),
            _batches(encoded, masking, characters.pad_id, device, seed),
            RECIPE,
            share_done=lambda: clock.elapsed_seconds / (minutes * 60),
            precision=pick_precision("auto", device),
        ):
            losses = [*losses[-199:], loss]
            mean = f"epoch {epoch + 1}, loss {np.mean(losses):.3f}"
            bar.update(round(clock.elapsed_seconds) - bar.n)
            bar.set_postfix_str(mean, refresh=False)
            if clock.elapsed_seconds - saved > SAVE_EVERY_SECONDS:
                model.save_pretrained(folder)
                saved = clock.elapsed_seconds
                bar.write(f"{saved / 60:.0f} min, {mean}")
    model.save_pretrained(folder)
    print(f"{folder}: epoch {epoch + 1}, loss {np.mean(losses):.3f}")


def _batches(
    encoded: Sequence[NDArray[np.int32]],
    masking: Masking,
    pad_id: int,
    device: torch.device,
    seed: int,
) -> Iterator[tuple[int, Batch]]:
    """Epoch and batch; the minutes end it."""
    lengths = [len(ids) for ids in encoded]
    for epoch in itertools.count():
        order = TrainingOrder(
            lengths, batch_size=1, batch_tokens=BATCH_TOKENS, epochs=1, seed=(seed, epoch)
        )
        for rows in order.batches(0):
            random = np.random.default_rng([seed, epoch, int(rows[0])])
            examples = [masking.example(encoded[row], random) for row in rows]
            yield epoch, collate_to(examples, pad_id, device)


def _loss(model: Any, batch: Batch, rows: Tensor, place: Tensor) -> Tensor:
    """Cross-entropy of the characters that are to be named; nothing is computed for the others."""
    targets = batch.targets
    assert targets is not None, "what is to be named is known"
    encoded = model.base_model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    states, named = encoded.last_hidden_state, targets != IGNORE
    head = model.cls.predictions
    table = model.get_input_embeddings().weight[rows]
    logits = functional.linear(head.transform(states[named]), table).float() + head.bias[rows]
    return functional.cross_entropy(logits, place[targets[named]], ignore_index=IGNORE)


def main() -> int:
    """Command line; returns the exit status."""
    about = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m kernel_lib.bench.pretrain", description=about)
    parser.add_argument("vocab", type=Path, help="a BERT vocab.txt")
    parser.add_argument("folder", type=Path, help="where the backbone is written")
    parser.add_argument("--settings", required=True, help="JSON: of the run that will use it")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4)
    options = vars(parser.parse_args())
    settings = SpellingSettings.from_dict(json.loads(options.pop("settings")))
    return exit_status(lambda: pretrain(settings=settings, **options))


if __name__ == "__main__":
    sys.exit(main())
