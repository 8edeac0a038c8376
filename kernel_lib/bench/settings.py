"""What the benchmark measures, and how much of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from kernel_lib.errors import DataError, SettingsError

V3_BASE_LAYERS, V3_BASE_VOCABULARY = 12, 128_100


@dataclass(frozen=True)
class Shape:
    """The size of a DeBERTa-v3 encoder; the defaults are v3-base's width.

    Attributes:
        hidden: width of the vectors; the feed-forward layer is four times as wide.
        heads: attention heads.
        layers: how many; v3-base has 12.
        vocabulary: rows of the embedding table.
        buckets: relative positions on either side; v3-base has 256.
    """

    hidden: int = 768
    heads: int = 12
    layers: int = V3_BASE_LAYERS
    vocabulary: int = V3_BASE_VOCABULARY
    buckets: int = 256

    def config(self) -> PreTrainedConfig:
        """The encoder's configuration, without dropout."""
        return AutoConfig.for_model(
            "deberta-v2",
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.hidden,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            max_position_embeddings=2 * self.buckets,
            relative_attention=True,
            position_buckets=self.buckets,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type=["p2c", "c2p"],
            max_relative_positions=-1,
            position_biased_input=False,
            type_vocab_size=0,
            pad_token_id=0,
            layer_norm_eps=1e-7,
        )


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """All of a benchmark run; the defaults are those of a full run on a CPU.

    Attributes:
        device: ``cpu`` or ``cuda``.
        data: folder of FB3's ``train.csv``; empty: essays are made up, of FB3's lengths.
        backbone: folder of a pretrained encoder to measure as well, on the texts of ``data``.
        run: folder of a finished run, whose predictions are compared in all precisions.
        out: folder of what is written.
        shape: the encoder with random weights. On a CPU three layers of twelve and as much of the
            vocabulary, so that layers and table keep their proportion.
        cap: longest text in tokens, for training and inference.
        batch_size, eval_batch_size: rows a batch in training and inference; where a way counts
            tokens instead, as many tokens as these have at the cap.
        train_batches, infer_batches: how many batches of an epoch are timed at a time.
        rounds: how often everything is timed; the ways take turns.
        limit_repeats: how often the large matrix product is timed in each round.
        lengths: of the cells, in tokens.
        cell_tokens: tokens a batch in the cells.
        cell_rounds: how often each cell is timed.
        precision_rows: texts predicted in each precision with random weights,
        run_rows: and of a run's, at most.
        growth_rows: how many texts the growing inference predicts.
        growth_divisor: its texts are so many times shorter than FB3's,
        divisor: and those of all else; 1: as long.
        seed: of weights, texts and order.
    """

    device: str = "cpu"
    data: str = ""
    backbone: str = ""
    run: str = ""
    out: str = "build/bench"
    shape: Shape = Shape(layers=3, vocabulary=V3_BASE_VOCABULARY * 3 // V3_BASE_LAYERS)
    cap: int = 512
    batch_size: int = 8
    eval_batch_size: int = 16
    train_batches: int = 2
    infer_batches: int = 2
    rounds: int = 3
    limit_repeats: int = 20
    lengths: tuple[int, ...] = (256, 512, 768, 1024, 1536)
    cell_tokens: int = 2048
    cell_rounds: int = 4
    precision_rows: int = 32
    run_rows: int = 200
    growth_rows: tuple[int, ...] = (1_000, 10_000, 100_000)
    growth_divisor: int = 8
    divisor: int = 1
    seed: int = 0

    def checked(self) -> BenchSettings:
        """These settings.

        Raises:
            SettingsError: there is no such device, or two settings do not fit each other.
            DataError: a folder that is named is not there, or not what it should be.
        """
        if self.device not in ("cpu", "cuda"):
            raise SettingsError(f"DEVICE={self.device} is not known: cpu or cuda.")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise SettingsError(
                f"DEVICE=cuda, but torch {torch.__version__} sees no GPU here. Leave DEVICE out to "
                "measure the CPU."
            )
        if self.backbone and not self.data:
            raise SettingsError(
                "BACKBONE is measured on real texts: add DATA=<folder of train.csv>."
            )
        wanted = {
            "DATA": (self.data, "train.csv"),
            "BACKBONE": (self.backbone, "config.json"),
            "RUN": (self.run, "run.json"),
        }
        for name, (folder, file) in wanted.items():
            if folder and not (Path(folder) / file).is_file():
                state = f"has no {file}" if Path(folder).is_dir() else "does not exist"
                raise DataError(f"{name}={folder}: the folder {state}.")
        return self

    def resized(self, **changes: Any) -> BenchSettings:
        """The same with other sizes; ``layers`` changes the vocabulary in proportion."""
        layers = changes.pop("layers", None)
        shape = self.shape
        if layers:
            rows = V3_BASE_VOCABULARY * layers // V3_BASE_LAYERS
            shape = dataclasses.replace(shape, layers=layers, vocabulary=rows)
        return dataclasses.replace(self, shape=shape, **changes)


def for_device(device: str, *, quick: bool = False) -> BenchSettings:
    """The sizes of a full run, or of one that takes about a minute."""
    settings = BenchSettings(device=device)
    if device == "cuda":
        settings = settings.resized(
            layers=V3_BASE_LAYERS, cell_tokens=32 * 512, train_batches=8, infer_batches=8, rounds=5
        )
    if quick:
        settings = settings.resized(
            layers=1,
            train_batches=1,
            infer_batches=1,
            rounds=1,
            limit_repeats=5,
            lengths=(256, 512),
            cell_tokens=1024,
            cell_rounds=2,
            precision_rows=8,
            run_rows=50,
            growth_rows=(500, 1_000, 2_000),
        )
    return settings
