"""The techniques of ``make ablate``: what each one is, and the settings that it changes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_lib.config import nearest
from kernel_lib.errors import SettingsError
from kernel_lib.model.pooling import POOLINGS
from kernel_lib.runtime.files import read_json
from kernel_lib.tasks.regression import RegressionSettings

BASE = "base"
NAME = re.compile(r"[^\W_][\w.+-]{0,59}")
RIVAL = "more_epochs"  # the base with twice the time
# With another one the runs would not be scored on the same rows, or not on the same splits.
PAIRING = (
    *("competition", "data_dir", "output_dir", "resume_from", "seed", "debug", "max_rows"),
    *("n_folds", "folds", "full_data", "fold_scheme", "group_column", "id_column"),
    "target_columns",
)
SWITCHES = {  # what is off by default, and the value that turns it off
    **{"fgm_epsilon": 0.0, "awp": "off", "averaging": "none", "mixout_probability": 0.0},
    **{"pretrained_weight_decay": 0.0, "rate_group_factor": 1.0, "head_only_ratio": 0.0},
    **{"unfreeze_ratio": 0.0, "optimizer": "adamw", "dropout": 0.0, "head_dropout": None},
    **{"multi_sample_dropout": 1, "freeze_embeddings": False, "freeze_layers": 0},
    **{"reinit_layers": 0, "target_weights": (), "rank_loss_weight": 0.0},
    **{"inference_max_length": 0, "init_from": ""},
}
THIRD_PLACE = (0.21, 0.16, 0.10, 0.16, 0.21, 0.16)  # weights of FB3's targets, 3rd place


@dataclass(frozen=True)
class Technique:
    """One change against the base.

    Attributes:
        name: of it in the table.
        about: what it is, in a few words.
        settings: those that it changes, with their values.
        rival: a technique that spends the same time otherwise; empty: it costs none.

    Raises:
        SettingsError: the name is the base's, or none for a folder and a cell of a table.
    """

    name: str
    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    rival: str = ""

    def __post_init__(self) -> None:
        if self.name == BASE:
            raise SettingsError(f"technique {BASE!r}: so the base itself is called. Rename it.")
        if not NAME.fullmatch(self.name):
            raise SettingsError(
                f"technique {self.name!r}: folders are called so. Up to 60 letters, digits and "
                "_ . + - without blanks, a letter or digit first."
            )

    @property
    def is_optimistic(self) -> bool:
        """Whether it selects on the fold that it reports, so that its score is no evidence."""
        return self.settings.get("keep") == "best"


def own_techniques(base: RegressionSettings, *, layers: int) -> list[Technique]:
    """All techniques that the kit has a setting for, each as one change against the base; what the
    base has switched on is switched off.

    Args:
        base: the recipe that they are held against; some values are multiples of its own.
        layers: of the encoder.
    """
    return [
        *_adversaries(),
        *_averages_and_anchors(),
        *_rates(base),
        *_model(base, layers),
        *_losses(),
        *_texts_and_batches(base),
        *_without(base),
    ]


def read_techniques(path: Path, own: Sequence[Technique]) -> list[Technique]:
    """Techniques of a file: ``{"name": {"about": "...", "settings": {...}}}``.

    With ``null`` for its value a name stands for the kit's own technique.

    Args:
        path: of the JSON file.
        own: what :func:`own_techniques` gives.

    Raises:
        ArtifactError: there is no such file, or it is not JSON.
        SettingsError: something in it is not of this form.
    """
    found = read_json(path)
    form = '{"name": {"about": "a few words", "settings": {"fgm_epsilon": 0.5}}}'
    if not isinstance(found, dict) or not found:
        raise SettingsError(f"{path} must hold a JSON object of techniques: {form}")
    techniques = []
    for name, value in found.items():
        if value is None:
            techniques += chosen(own, [name])
            continue
        known = {"about", "settings", "rival"}
        if not isinstance(value, dict) or not isinstance(value.get("settings"), dict):
            raise SettingsError(f"{path}: {name!r} has no settings. Write {form}")
        if value.keys() - known:
            raise SettingsError(
                f"{path}: {name!r} has {', '.join(sorted(value.keys() - known))}; a technique has "
                f"{', '.join(sorted(known))}."
            )
        about = str(value.get("about", ", ".join(f"{k} {v}" for k, v in value["settings"].items())))
        try:
            made = Technique(name, about, value["settings"], str(value.get("rival", "")))
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from None
        techniques.append(made)
    return techniques


def chosen(techniques: Sequence[Technique], names: Sequence[str]) -> list[Technique]:
    """Those of these names, in the order of the list. Raises SettingsError for an unknown name."""
    known = [technique.name for technique in techniques]
    for name in names:
        if name not in known and name != BASE:
            raise SettingsError(f"technique {name!r} is not known: {nearest(name, known)}")
    return [technique for technique in techniques if technique.name in names]


def changed(base: RegressionSettings, technique: Technique) -> RegressionSettings:
    """The base with a technique's change.

    Raises:
        SettingsError: a setting is unknown or out of range, the runs would not be comparable, or
            nothing would change.
    """
    forbidden = [name for name in technique.settings if name in PAIRING]
    if forbidden:
        raise SettingsError(
            f"it changes {', '.join(forbidden)}, so it would not be scored on the same rows as the "
            "base. Set it for the base (--settings)."
        )
    settings = base.replace(**technique.settings)
    if settings == base:
        raise SettingsError("the base is set so already.")
    return settings


def _adversaries() -> list[Technique]:
    return [
        Technique("fgm", "FGM, a step of 0.2", {"fgm_epsilon": 0.2}, RIVAL),
        Technique("fgm_1", "FGM, a step of 1.0", {"fgm_epsilon": 1.0}, RIVAL),
        Technique("awp_two_pass", "AWP on the batch's own gradient", {"awp": "two_pass"}, RIVAL),
        Technique("awp_no_extra_pass", "AWP on the mean gradient", {"awp": "no_extra_pass"}),
    ]


def _averages_and_anchors() -> list[Technique]:
    return [
        Technique("ema", "running mean of the weights, 0.999", {"averaging": "ema"}),
        Technique("ema_0.99", "the same, 0.99", {"averaging": "ema", "ema_decay": 0.99}),
        Technique(
            "swa",
            "mean of the weights of the last quarter, at a constant rate",
            {"averaging": "swa", "schedule": "constant"},
            "constant",
        ),
        Technique("mixout", "Mixout 0.1", {"mixout_probability": 0.1}),
        Technique("mixout_0.5", "Mixout 0.5", {"mixout_probability": 0.5}),
        Technique(
            "pretrained_decay",
            "decay towards the pretrained weights, 1.0",
            {"pretrained_weight_decay": 1.0},
        ),
    ]


def _rates(base: RegressionSettings) -> list[Technique]:
    rate, head = base.learning_rate, base.head_learning_rate
    return [
        Technique(RIVAL, "twice the epochs", {"epochs": 2 * base.epochs}),
        Technique("rate_groups", "three groups of layers, factor 2.6", {"rate_group_factor": 2.6}),
        Technique("layer_decay_1", "one rate for all layers", {"layer_decay": 1.0}),
        Technique("layer_decay_0.8", "layer decay 0.8", {"layer_decay": 0.8}),
        Technique("rate_half", "half the rate of the encoder", {"learning_rate": rate / 2}),
        Technique("rate_double", "twice the rate of the encoder", {"learning_rate": 2 * rate}),
        Technique("head_rate", "ten times the rate of the head", {"head_learning_rate": 10 * head}),
        Technique("linear", "linear schedule", {"schedule": "linear"}),
        Technique("constant", "constant rate", {"schedule": "constant"}),
        Technique("no_warmup", "no warm-up", {"warmup_ratio": 0.0}),
        Technique("head_only", "the head alone for the first tenth", {"head_only_ratio": 0.1}),
        Technique("unfreeze", "layers begin from the top down", {"unfreeze_ratio": 0.3}),
        Technique("madgrad", "MADGRAD instead of AdamW", {"optimizer": "madgrad"}),
        Technique("adam8bit", "8-bit Adam", {"optimizer": "adam8bit"}),
        Technique(
            "keep_best",
            "the best of four evaluations an epoch",
            {"keep": "best", "evals_per_epoch": 4},
        ),
    ]


def _model(base: RegressionSettings, layers: int) -> list[Technique]:
    dropout = {"head_dropout": 0.2, "multi_sample_dropout": 5}
    poolings = [
        Technique(
            f"pool_{name}",
            f"pooling {name}",
            {"pooling": name, "pooling_layers": min(layers, base.pooling_layers)},
        )
        for name in POOLINGS
        if name != base.pooling
    ]
    return [
        Technique("dropout", "dropout 0.1 in backbone and head", {"dropout": 0.1}),
        Technique("head_dropout", "dropout 0.2 before the last layer", {"head_dropout": 0.2}),
        Technique("multi_sample_dropout", "the same with five masks", dropout),
        Technique("freeze_embeddings", "embeddings frozen", {"freeze_embeddings": True}),
        Technique("freeze_half", "lower half frozen", {"freeze_layers": layers // 2}),
        Technique("reinit_1", "top layer drawn anew", {"reinit_layers": 1}),
        *poolings,
    ]


def _losses() -> list[Technique]:
    return [
        Technique("target_weights", "3rd place's weights", {"target_weights": THIRD_PLACE}),
        Technique("rank_loss", "a loss by the order added", {"rank_loss_weight": 0.1}),
        Technique("mse", "mean squared error", {"loss": "mse"}),
        Technique("mcrmse", "the metric as loss", {"loss": "mcrmse"}),
        Technique("elementwise_l1", "the reference's loss", {"loss": "elementwise_l1"}),
    ]


def _without(base: RegressionSettings) -> list[Technique]:
    """The base less each technique that it uses."""
    unset = (None, False)
    return [
        Technique(f"without_{name}", f"the base without its {name}", {name: off})
        for name, off in SWITCHES.items()
        if getattr(base, name) not in ((off, *unset) if off in (0, False, None) else (off,))
    ]


def _texts_and_batches(base: RegressionSettings) -> list[Technique]:
    longer = 2 * base.max_length
    lines = not base.keep_newlines
    sizes = [size for size in (4, 8, 16) if size != base.batch_size]
    return [
        Technique(
            "newlines" if lines else "no_newlines",
            "line breaks as tokens" if lines else "line breaks lost",
            {"keep_newlines": lines},
        ),
        Technique("longer", f"{longer} tokens", {"max_length": longer}, RIVAL),
        Technique(
            "longer_inference", f"{longer} tokens in inference", {"inference_max_length": longer}
        ),
        *(Technique(f"batch_{size}", f"batches of {size}", {"batch_size": size}) for size in sizes),
    ]
