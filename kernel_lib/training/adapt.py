"""Goes on pretraining an encoder on the competition's own texts, by naming hidden tokens.

    python -m kernel_lib.training.adapt BACKBONE --texts train.csv more.csv --out adapted --epochs 3

Task-adaptive pretraining (Gururangan et al. 2020, arXiv 2004.10964): of each text 15 % of the
tokens are to be named, 80 % of these hidden, 10 % swapped, 10 % seen, drawn anew in each epoch.
Long texts are cut into pieces, so that all of them is read. What is written is a folder that the
setting ``backbone`` takes: the encoder in float32, the head where the files held one, and the
tokenizer, the line break's token and its row among what was learned.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kernel_lib.artifacts import save_tensors
from kernel_lib.errors import ArtifactError, DataError, SettingsError, TrainingError
from kernel_lib.model.backbone import check_length, fit_embeddings, load_backbone
from kernel_lib.model.location import find_backbone
from kernel_lib.model.pretrained_head import load_pretrained_head, with_pretrained_names
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.command import exit_status
from kernel_lib.runtime.device import keep_freed_memory, pick_device
from kernel_lib.runtime.files import write_json
from kernel_lib.text.batches import encode_texts
from kernel_lib.text.tables import read_cells
from kernel_lib.text.tokenizer import build_tokenizer, save_tokenizer
from kernel_lib.training.masked_course import Course, Pieces
from kernel_lib.training.masked_language import MaskedLanguageModel, Recipe

HELD_OUT, MOST_HELD_OUT = 0.05, 500  # share of the texts that the loss is measured on
DROPOUT, WEIGHT_DECAY, WARM_UP = 0.1, 0.01, 0.06
WHOLE = 1 << 30  # tokens; no text has so many
NO_LIMIT = 10.0**9  # minutes


def adapt(
    backbone: str,
    texts: Sequence[Path],
    out: Path,
    *,
    column: str = "full_text",
    epochs: int = 3,
    max_length: int = 512,
    batch_size: int = 8,
    learning_rate: float = 5e-5,
    mask_share: float = 0.15,
    keep_newlines: bool = True,
    minutes: float = NO_LIMIT,
    seed: int = 0,
) -> tuple[float, float]:
    """Writes an adapted backbone folder.

    Args:
        backbone: the encoder's folder, as the setting ``backbone`` names it.
        texts: CSV files. A text that stands in several is read once.
        out: where to; must not be there. It appears whole or not.
        column: of the texts.
        epochs: how often all texts are read.
        max_length: tokens of a piece, special ones included.
        batch_size: pieces an update.
        learning_rate: the highest.
        mask_share: of the tokens that are to be named.
        keep_newlines: as in the runs that will use it.
        minutes: all is done in so many; fewer updates are made if need be.
        seed: of the held-out texts, masks, order and dropout.

    Returns:
        The mean loss of the held-out texts' hidden tokens before and after, with the same masks.

    Raises:
        SettingsError, DataError, BackboneError: what is given cannot be used.
        ArtifactError: ``out`` is there, or cannot be written.
        TrainingError: memory is full, or nothing was learned within the minutes.
    """
    clock = Clock(minutes * 60)
    _check(epochs, max_length, batch_size, learning_rate, mask_share, minutes)
    if out.exists():
        raise ArtifactError(f"{out} is there already. Remove it, or choose another place.")
    folder = find_backbone(backbone)
    tokenizer = build_tokenizer(folder, keep_newlines=keep_newlines)
    encoder = load_backbone(folder, dropout=DROPOUT)
    check_length(encoder, max_length)
    fit_embeddings(encoder, tokenizer)
    torch.manual_seed(seed)
    keep_freed_memory()
    model = MaskedLanguageModel(encoder, load_pretrained_head(folder)).to(pick_device())
    held_out, train = (
        cut_pieces(encode_texts(tokenizer, part, max_length=WHOLE), max_length)
        for part in _split(read_texts(texts, column), seed)
    )
    print(
        f"{len(train):,} pieces of {sum(map(len, train)):,} tokens, {len(held_out):,} held out; "
        f"the head is {'the pretrained one' if model.has_pretrained_head else 'new'}"
    )
    course = Course(model, tokenizer, mask_share=mask_share, seed=seed)
    begun = clock.elapsed_seconds
    before = course.held_out_loss(held_out)
    reserve = 2 * (clock.elapsed_seconds - begun)  # for the evaluation at the end
    print(f"held-out loss {before:.4f} (perplexity {math.exp(min(before, 700)):.4g}) before")
    recipe = Recipe(learning_rate, WEIGHT_DECAY, WARM_UP)
    updates = course.train(train, recipe, epochs, batch_size, clock, reserve)
    after = course.held_out_loss(held_out)
    print(f"held-out loss {after:.4f} (perplexity {math.exp(min(after, 700)):.4g}) after")
    if not updates or not math.isfinite(after):
        raise TrainingError(
            f"{updates} updates ended with a held-out loss of {after}: nothing is written. Give it "
            "more minutes, or a lower learning_rate."
        )
    _write(out, folder, model, tokenizer)
    print(f"backbone: {out}")
    return before, after


def read_texts(paths: Sequence[Path], column: str) -> list[str]:
    """The texts of some files, each once, without empty ones. Raises DataError below two."""
    texts = [text for path in paths for text in read_cells(path, columns=[column])[column]]
    kept = [text for text in dict.fromkeys(texts) if text.strip()]
    if len(kept) < 2:
        names = ", ".join(map(str, paths))
        raise DataError(
            f"{names}: {len(kept)} different texts in column {column!r}; one to learn from and one "
            "to be held out are the least."
        )
    return kept


def cut_pieces(encoded: Sequence[NDArray[np.int32]], max_length: int) -> Pieces:
    """Texts as pieces of about equal length, each with the text's special tokens at its ends."""
    pieces = []
    for ids in encoded:
        inner = ids[1:-1]
        for part in np.array_split(inner, max(1, -(-len(inner) // (max_length - 2)))):
            pieces.append(np.concatenate([ids[:1], part, ids[-1:]]))
    return pieces


def _split(texts: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """The texts that are held out, and those to learn from."""
    count = min(MOST_HELD_OUT, max(1, round(HELD_OUT * len(texts))))
    drawn = np.random.default_rng(seed).permutation(len(texts))
    return [texts[row] for row in drawn[:count]], [texts[row] for row in np.sort(drawn[count:])]


def _check(
    epochs: int,
    max_length: int,
    batch_size: int,
    learning_rate: float,
    mask_share: float,
    minutes: float,
) -> None:
    if min(epochs, batch_size, max_length - 7) < 1 or not (learning_rate > 0 and minutes > 0):
        raise SettingsError(
            f"epochs={epochs}, batch_size={batch_size}, max_length={max_length}, "
            f"learning_rate={learning_rate}, minutes={minutes:g}: the first two must be at least "
            "1, the third at least 8, the others above 0."
        )
    if not 0 < mask_share < 1:
        raise SettingsError(f"mask_share={mask_share} must be above 0 and below 1.")


def _write(out: Path, source: Path, model: MaskedLanguageModel, tokenizer: Any) -> None:
    """The folder, beside its place first, then in it."""
    tensors = model.backbone.state_dict()
    config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    config.update(dtype="float32", vocab_size=model.backbone.config.vocab_size)
    if model.has_pretrained_head:
        tensors = with_pretrained_names(source, tensors, model.head.state_dict())
    else:
        config.pop("architectures", None)
    unfinished = out.with_name(f".{out.name}.tmp")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        save_tensors(tensors, unfinished / "model.safetensors", metadata={"format": "pt"})
        write_json(unfinished / "config.json", config)
        # Not spm.model: what is built from it does not know the line break's row as learned.
        save_tokenizer(tokenizer, unfinished)
        unfinished.rename(out)
    except OSError as error:
        raise ArtifactError(f"could not write {out}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m kernel_lib.training.adapt", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("backbone", help="folder of the encoder")
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="CSV files")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--column", default="full_text")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--mask-share", type=float, default=0.15)
    parser.add_argument(
        "--keep-newlines",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="as in the runs that will use it",
    )
    parser.add_argument("--minutes", type=float, default=NO_LIMIT, help="all is done in so many")
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())

    def work() -> None:
        adapt(**options)

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
