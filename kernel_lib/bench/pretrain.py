"""A small Chinese encoder from nothing, for want of a genuine one: RoFormer, pretrained as MacBERT.

    python -m kernel_lib.bench.pretrain VOCAB FOLDER --minutes 60 --settings '{"data_dir": ...}'

Right sentences have some characters hidden and some confused, and all of these are to be named (Cui
et al. 2020, arXiv 2004.13922, with single characters). Rotary positions (Su et al. 2021, arXiv
2104.09864) learn who is next to whom far sooner than a table of positions does. The sentences are
the targets of a spelling run's training rows, less those that its first fold is scored on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForMaskedLM, AutoTokenizer, RoFormerConfig

from kernel_lib.bench.scratch import write_scratch_backbone
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.command import exit_status
from kernel_lib.runtime.device import pick_device, pick_precision
from kernel_lib.runtime.progress import progress_bar
from kernel_lib.tasks.spelling import SpellingTask
from kernel_lib.tasks.spelling_data import read_confusion
from kernel_lib.tasks.spelling_sentences import confusable_ids
from kernel_lib.tasks.spelling_settings import SpellingSettings
from kernel_lib.text.batches import IGNORE, Batch, Example, collate_to
from kernel_lib.text.characters import CharacterEncoder
from kernel_lib.text.order import TrainingOrder
from kernel_lib.text.tokenizer import save_tokenizer

HIDDEN, CONFUSED, SEEN = 0.15, 0.10, 0.05  # shares of the characters that are to be named
LONGEST = 128
BATCH_TOKENS = 4096
LEARNING_RATE, WEIGHT_DECAY, WARM_UP, MAX_GRAD_NORM = 2e-3, 0.05, 0.05, 1.0
EPOCHS = 10_000  # the minutes end it
SAVE_EVERY_SECONDS = 300.0
DEVIATION = 0.04  # of the first weights; 0.02 is for encoders four times as wide


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
        RoFormerConfig(
            vocab_size=len(tokenizer),
            embedding_size=hidden,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * hidden,
            max_position_embeddings=512,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=DEVIATION,
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
    corruption = Corruption(characters, confusable)
    print(f"{len(texts):,} sentences, {sum(map(len, texts)):,} characters")
    _train(model, corruption, texts, folder, minutes, seed)


class Corruption:
    """Sentences with characters hidden, confused, or left to be seen, that are to be named.

    Args:
        characters: of the tokenizer.
        confusable: for a token id those of the characters it is confused with.
    """

    def __init__(
        self, characters: CharacterEncoder, confusable: dict[int, NDArray[np.int32]]
    ) -> None:
        self.characters, self._confusable = characters, confusable

    def example(self, ids: NDArray[np.int32], random: np.random.Generator) -> Example:
        """A sentence's ids with special tokens, corrupted; targets where they are to be named."""
        drawn = random.random(len(ids))
        read = np.where(drawn < HIDDEN, self.characters.mask_id, ids)
        for place in np.flatnonzero((drawn >= HIDDEN) & (drawn < HIDDEN + CONFUSED)):
            others = self._confusable.get(int(ids[place]))
            if others is not None:
                read[place] = others[random.integers(len(others))]
        wanted = np.where(drawn < HIDDEN + CONFUSED + SEEN, ids, IGNORE)
        ends = self.characters.cls_id, self.characters.sep_id
        return Example(
            "",
            np.array([ends[0], *read, ends[1]], dtype=np.int32),
            np.array([IGNORE, *wanted, IGNORE], dtype=np.int32),
        )


def _train(
    model: Any,
    corruption: Corruption,
    texts: Sequence[str],
    folder: Path,
    minutes: float,
    seed: int,
) -> None:
    device = pick_device()
    precision = pick_precision("auto", device)
    model.to(device).train()
    encoded = [corruption.characters.ids(text[: LONGEST - 2]) for text in texts]
    # Only characters that occur can be answers: a softmax over a third of the vocabulary.
    answers = np.unique(np.concatenate(encoded)).astype(np.int64)
    place = torch.full((len(model.get_input_embeddings().weight),), IGNORE)
    place[answers] = torch.arange(len(answers))
    rows, place = torch.from_numpy(answers).to(device), place.to(device)
    vectors = [p for p in model.parameters() if p.ndim < 2]
    matrices = [p for p in model.parameters() if p.ndim >= 2 and p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": WEIGHT_DECAY},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
        betas=(0.9, 0.98),
        eps=1e-6,
        fused=True,
    )
    clock, saved = Clock(minutes * 60), 0.0
    losses: list[float] = []
    pad_id = corruption.characters.pad_id
    with progress_bar(round(minutes * 60), "pretrain", unit="s") as bar:
        for epoch, batch in _batches(encoded, seed):
            done = clock.elapsed_seconds / (minutes * 60)
            if done >= 1:
                break
            random = np.random.default_rng([seed, epoch, int(batch[0])])
            examples = [corruption.example(encoded[row], random) for row in batch]
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(done / WARM_UP, (1 - done) / (1 - WARM_UP))
            with precision.autocast():
                loss = _loss(model, collate_to(examples, pad_id, device), rows, place)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
            losses = [*losses[-199:], loss.item()]
            bar.update(round(clock.elapsed_seconds) - bar.n)
            bar.set_postfix_str(f"epoch {epoch + 1}, loss {np.mean(losses):.3f}", refresh=False)
            if clock.elapsed_seconds - saved > SAVE_EVERY_SECONDS:
                model.save_pretrained(folder)
                saved = clock.elapsed_seconds
                bar.write(f"{saved / 60:.0f} min, epoch {epoch + 1}, loss {np.mean(losses):.3f}")
    model.save_pretrained(folder)
    print(f"{folder}: epoch {epoch + 1}, loss {np.mean(losses):.3f}")


def _batches(
    encoded: Sequence[NDArray[np.int32]], seed: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Epoch and rows of each batch."""
    lengths = [len(ids) + 2 for ids in encoded]
    for epoch in range(EPOCHS):
        order = TrainingOrder(
            lengths, batch_size=1, batch_tokens=BATCH_TOKENS, epochs=1, seed=(seed, epoch)
        )
        yield from ((epoch, rows) for rows in order.batches(0))


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
