"""Pretrained encoders that nothing trains: found, known again, and what they make of texts.

Their weights are not copied into a run. Inference finds them by name, as training did, and knows
them again by a fingerprint of their files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from kernel_lib.artifacts import TOKENIZER
from kernel_lib.errors import ArtifactError, BackboneError
from kernel_lib.model.backbone import check_length, load_backbone
from kernel_lib.model.embedding import Embedder
from kernel_lib.model.location import find_backbone
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.device import Precision
from kernel_lib.runtime.progress import progress_bar
from kernel_lib.tasks.feature_settings import FeatureSettings
from kernel_lib.text.batches import Example, encode_texts, padded_length
from kernel_lib.text.tokenizer import (
    build_tokenizer,
    check_tokens,
    load_tokenizer,
    save_tokenizer,
    token_fingerprint,
)
from kernel_lib.training.memory import release_memory
from kernel_lib.training.prediction import TokenLimit, predict
from kernel_lib.training.record import backbone_fingerprint

WHOLE = 10**9  # tokens: no text has as many


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder that is there.

    Attributes:
        name: by which it is found.
        folder: where it is.
        fingerprint: of its files.
        tokenizer: its own, as it was in training.
    """

    name: str
    folder: Path
    fingerprint: str
    tokenizer: PreTrainedTokenizerFast

    @property
    def record(self) -> dict[str, str]:
        """What a run keeps of it beside the name: the same wherever it is mounted."""
        return {"fingerprint": self.fingerprint, "tokens": token_fingerprint(self.tokenizer)}


def open_encoders(names: Sequence[str]) -> list[FrozenEncoder]:
    """The encoders of a run that begins. Raises BackboneError when one is missing or damaged."""
    found = []
    for name in names:
        folder = find_backbone(name)
        tokenizer = build_tokenizer(folder, keep_newlines=False)  # no encoder learns one here
        found.append(FrozenEncoder(name, folder, backbone_fingerprint(folder), tokenizer))
    return found


def save_tokenizers(encoders: Sequence[FrozenEncoder], run_folder: Path) -> None:
    """Writes each encoder's tokenizer into a run: ``tokenizer/0/``, ``tokenizer/1/``, ..."""
    for number, encoder in enumerate(encoders):
        save_tokenizer(encoder.tokenizer, run_folder / TOKENIZER / str(number))


def reopen_encoders(
    names: Sequence[str], records: Sequence[dict[str, Any]], run_folder: Path
) -> list[FrozenEncoder]:
    """The encoders of a run that exists, each found again.

    Args:
        names: of the encoders.
        records: what the run keeps of each.
        run_folder: where its tokenizers are.

    Raises:
        ArtifactError: one is missing, or another than in training.
    """
    found = []
    for number, (name, record) in enumerate(zip(names, records, strict=True)):
        try:
            folder = find_backbone(name)
        except BackboneError as error:
            raise ArtifactError(
                f"{run_folder} was made with the frozen encoder {name!r}, whose weights are not in "
                f"the run: {error}"
            ) from None
        fingerprint = backbone_fingerprint(folder)
        if fingerprint != record["fingerprint"]:
            raise ArtifactError(
                f"the frozen encoder in {folder} (fingerprint {fingerprint}) is another than the "
                f"{name!r} that {run_folder} was made with ({record['fingerprint']}). "
                "Attach the same files."
            )
        tokenizer_folder = run_folder / TOKENIZER / str(number)
        tokenizer = load_tokenizer(tokenizer_folder)
        check_tokens(tokenizer_folder, tokenizer, record["tokens"])
        found.append(FrozenEncoder(name, folder, fingerprint, tokenizer))
    return found


def embed(
    encoder: FrozenEncoder,
    texts: Sequence[str],
    settings: FeatureSettings,
    *,
    attention: str,
    device: torch.device,
    precision: Precision,
    batch_tokens: int,
    clock: Clock | None = None,
    limit: TokenLimit | None = None,
) -> NDArray[np.float32]:
    """One vector a text: ``(texts, poolings * layers * hidden)``.

    Args:
        encoder: the encoder.
        texts: one or more.
        settings: how they are read.
        attention: as for ``model.backbone.load_backbone``.
        device, precision, batch_tokens, clock, limit: as for ``training.prediction.predict``.

    Raises:
        BackboneError, SettingsError: weights are damaged, or a setting does not fit the encoder.
        TimeIsUp, TrainingError: as ``predict``.
    """
    longest = WHOLE if settings.whole_texts else settings.max_length
    encoded = encode_texts(encoder.tokenizer, texts, max_length=longest)
    windows = [
        Example(str(row), part, row=row)
        for row, ids in enumerate(encoded)
        for part in cut_evenly(ids, settings.max_length)
    ]
    backbone = load_backbone(encoder.folder, dropout=0.0, attention=attention)
    check_length(backbone, padded_length(max(len(window.input_ids) for window in windows)))
    model = Embedder(
        backbone, poolings=settings.embedding_poolings, layers=settings.embedding_layers
    ).to(device)
    name = Path(encoder.name).name
    with progress_bar(len(windows), f"read with {name}", unit="window") as bar:
        found = predict(
            model,
            windows,
            pad_id=int(encoder.tokenizer.pad_token_id),
            batch_tokens=batch_tokens,
            device=device,
            precision=precision,
            bar=bar,
            clock=clock,
            limit=limit,
        )
    del model, backbone
    release_memory(device)
    return mean_of_windows(found, windows)


def cut_evenly(ids: NDArray[np.int32], size: int) -> list[NDArray[np.int32]]:
    """A text's token ids as windows of no more than ``size``, as few and as alike in length as can
    be, each with the first and the last token around it.

    Args:
        ids: with a special token at both ends.
        size: of a window, these two included.
    """
    if len(ids) <= size:
        return [ids]
    inner = ids[1:-1]
    parts = np.array_split(inner, -(-len(inner) // (size - 2)))
    return [np.concatenate([ids[:1], part, ids[-1:]]) for part in parts]


def mean_of_windows(
    vectors: NDArray[np.float32], windows: Sequence[Example]
) -> NDArray[np.float32]:
    """The mean over each text's windows, a window weighing as many tokens as it has.

    Args:
        vectors: ``(windows, columns)``.
        windows: their texts' numbers, from 0 without a gap, stand in ``row``.
    """
    rows = np.array([window.row for window in windows])
    weights = np.array([len(window.input_ids) for window in windows], dtype=np.float64)
    total = np.zeros((rows.max() + 1, vectors.shape[1]))
    np.add.at(total, rows, vectors * weights[:, None])
    found: NDArray[np.float32] = (total / np.bincount(rows, weights)[:, None]).astype(np.float32)
    return found
