"""The models that are measured, and the one place where their attention is switched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from kernel_lib.bench.essays import Job
from kernel_lib.bench.settings import Shape
from kernel_lib.model.attention import choose_attention
from kernel_lib.model.backbone import load_backbone
from kernel_lib.model.heads import PooledModel
from kernel_lib.model.pooling import make_pooling
from kernel_lib.runtime.device import seed_everything
from kernel_lib.tasks.regression import FB3_COLUMNS


def build_model(job: Job, *, attention: str, seed: int) -> PooledModel:
    """Encoder, attention pooling and head of a job, float32, on the CPU."""
    seed_everything(seed)
    if job.folder:
        backbone: Any = load_backbone(Path(job.folder), dropout=0.0)
    else:
        backbone = random_encoder(job.shape)
    switch_attention(backbone, attention)
    config = backbone.config
    pooling = make_pooling(
        "attention", hidden=config.hidden_size, layers=1, available_layers=config.num_hidden_layers
    )
    return PooledModel(backbone, pooling, num_outputs=len(FB3_COLUMNS), dropout=0.0)


def random_encoder(shape: Shape) -> Any:
    """A DeBERTa-v3 encoder with random weights, float32, in evaluation mode."""
    config = shape.config()
    return AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False).eval()


def switch_attention(backbone: Any, attention: str) -> None:
    """Makes an encoder compute its attention in one of the ways of the setting ``attention``."""
    choose_attention(backbone, attention)
