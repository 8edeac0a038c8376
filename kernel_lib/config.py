"""Settings of a run: one frozen object, validated when made, to and from JSON.

The training notebook's settings cell makes it, ``run.json`` keeps it, inference reads it back, so
nothing is typed twice. A setting can be changed from outside a notebook through the environment:

    KERNEL_LIB_SETTINGS='{"epochs": 1, "folds": [0]}'

A task adds its own settings in a subclass (``kernel_lib.tasks``).
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import types
import typing
from typing import Any, Self

from kernel_lib.errors import SettingsError

OVERRIDES_VARIABLE = "KERNEL_LIB_SETTINGS"
DEBUG_ROWS = 200


def setting(
    default: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
    changes_result: bool = True,
) -> Any:
    """A dataclass field with the bounds its value must keep.

    Args:
        default: value when the user says nothing.
        at_least, above, at_most, below: inclusive and exclusive bounds of a number.
        choices: the allowed words of a string.
        changes_result: False for settings that only say where or how long, so that a run may be
            resumed with another value of them.
    """
    bounds = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    return dataclasses.field(
        default=default,
        metadata={
            "bounds": {word: bound for word, bound in bounds.items() if bound is not None},
            "choices": choices,
            "changes_result": changes_result,
        },
    )


_KEEPS_BOUND = {
    "at least": lambda value, bound: value >= bound,
    "above": lambda value, bound: value > bound,
    "at most": lambda value, bound: value <= bound,
    "below": lambda value, bound: value < bound,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings: validation, JSON, overrides."""

    def __new__(cls, **values: Any) -> Self:
        """Refuses an unknown name, as :meth:`replace` does, where Python would only say no."""
        _refuse_unknown(values, cls)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = _coerced(field.name, getattr(self, field.name), hints[field.name])
            object.__setattr__(self, field.name, value)
            _check_range(field, value)

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed. Raises SettingsError for an unknown name."""
        _refuse_unknown(changes, type(self))
        return dataclasses.replace(self, **changes)

    def overridden(self) -> Self:
        """A copy with the changes that the environment variable KERNEL_LIB_SETTINGS asks for.

        Prints each change as ``name: old -> new``. Raises SettingsError when the variable is not
        a JSON object or names an unknown setting.
        """
        text = os.environ.get(OVERRIDES_VARIABLE, "").strip()
        if not text:
            return self
        try:
            changes = json.loads(text)
        except json.JSONDecodeError as error:
            raise SettingsError(
                f"{OVERRIDES_VARIABLE} is not JSON ({error}): {text!r}. "
                "Write it as '{\"epochs\": 1}'."
            ) from None
        if not isinstance(changes, dict):
            raise SettingsError(f"{OVERRIDES_VARIABLE} must hold a JSON object, found {text!r}.")
        changed = self.replace(**changes)
        for name in changes:
            print(f"setting {name}: {getattr(self, name)!r} -> {getattr(changed, name)!r}")
        return changed

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Settings from ``to_dict``'s result. Raises SettingsError for an unknown name."""
        _refuse_unknown(values, cls)
        return cls(**values)

    def result_values(self) -> dict[str, Any]:
        """The settings that change what is computed, ready for JSON."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.metadata["changes_result"]
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """What every training notebook can set. The defaults are those of the best run of the FB3
    notebook the kit starts from, except where that run is faulty (README, "Trained right")."""

    # where
    backbone: str = setting("deberta-v3-base", changes_result=False)
    """Folder of the pretrained encoder: a path, or a folder name to be found under the inputs."""
    data_dir: str = setting("", changes_result=False)
    """Folder of the competition's files; empty: look under the inputs."""
    output_dir: str = setting("run", changes_result=False)
    """The run folder, relative to the working directory."""
    resume_from: str = setting("", changes_result=False)
    """A run folder of an earlier session to go on with; copied to ``output_dir`` first."""

    # how long and how much
    time_budget_seconds: float = setting(8.5 * 3600, above=0, changes_result=False)
    """Training stops, everything saved, when this is used up."""
    checkpoint_seconds: float = setting(900.0, above=0, changes_result=False)
    """Longest time between two saves of the state inside a fold."""
    debug: bool = setting(False)
    """A quick look: 200 rows, 2 folds, 1 epoch."""
    max_rows: int = setting(0, at_least=0)
    """Use only that many rows, drawn with ``seed``; 0: all."""
    seed: int = setting(42, at_least=0)

    # folds
    n_folds: int = setting(4, at_least=2)
    folds: tuple[int, ...] = setting((), changes_result=False)
    """Which folds to train here; empty: all."""
    fold_scheme: str = setting(
        "multilabel", choices=("multilabel", "plain", "stratified", "grouped")
    )
    group_column: str = setting("")
    """Rows of one group stay in one fold (scheme ``grouped``)."""

    # text
    max_length: int = setting(512, at_least=8)
    """Longest sequence in tokens, special tokens included."""
    keep_newlines: bool = setting(True)
    """Give line breaks a token of their own; DeBERTa's tokenizer turns them into spaces."""

    # model
    pooling: str = setting("attention")
    pooling_layers: int = setting(4, at_least=1)
    """How many top layers the poolings over layers look at."""
    dropout: float = setting(0.0, at_least=0, below=1)
    """In backbone and head; 0 is what winners of regression tasks used."""
    gradient_checkpointing: bool = setting(False, changes_result=False)
    """A third more time for far less memory."""
    freeze_embeddings: bool | None = setting(None)
    freeze_layers: int | None = setting(None, at_least=0)
    """Lowest layers that do not train. None: what ``model.backbone.FREEZE_TABLE`` says."""
    reinit_layers: int = setting(0, at_least=0)
    """Top layers whose weights are drawn anew."""

    # optimisation
    epochs: int = setting(5, at_least=1)
    batch_size: int = setting(8, at_least=1)
    eval_batch_size: int = setting(16, at_least=1, changes_result=False)
    gradient_accumulation_steps: int = setting(1, at_least=1)
    learning_rate: float = setting(5e-5, above=0)
    """Rate of the backbone's top layer."""
    layer_decay: float = setting(0.9, above=0, at_most=1)
    """Each layer's rate is the one above times this; 1: one rate for the whole backbone."""
    head_learning_rate: float = setting(5e-5, above=0)
    """Rate of pooling and head."""
    weight_decay: float = setting(0.01, at_least=0)
    adam_epsilon: float = setting(1e-6, above=0)
    schedule: str = setting("cosine", choices=("cosine", "linear", "constant"))
    warmup_ratio: float = setting(0.1, at_least=0, below=1)
    """Share of all optimizer updates over which the rates rise from 0."""
    max_grad_norm: float = setting(10.0, above=0)
    fgm_epsilon: float = setting(0.2, at_least=0)
    """Length of FGM's step on the batch's word embeddings; 0: no FGM. The reference notebook sets
    0.2 and uses 1.0, unscaled and so without effect; with effect, 1.0 learns far more slowly."""
    precision: str = setting("auto", choices=("auto", "float32", "bf16", "fp16"))
    evals_per_epoch: int = setting(1, at_least=1)
    keep: str = setting("last", choices=("last", "best"))
    """Weights to keep. ``best`` makes the CV optimistic: it selects on the fold it reports."""
    wandb: bool = setting(False, changes_result=False)
    """Log to Weights & Biases when a key can be had; off when offline."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.debug:
            rows = min(self.max_rows or DEBUG_ROWS, DEBUG_ROWS)
            small = {"n_folds": 2, "folds": (), "epochs": 1, "max_rows": rows}
            for name, value in small.items():
                object.__setattr__(self, name, value)
        beyond = [fold for fold in self.folds if not 0 <= fold < self.n_folds]
        if beyond:
            raise SettingsError(
                f"folds={self.folds} names {beyond}, but n_folds={self.n_folds} has folds 0 to "
                f"{self.n_folds - 1}."
            )
        if self.fold_scheme == "grouped" and not self.group_column:
            raise SettingsError('fold_scheme="grouped" needs group_column, the name of a column.')

    @property
    def wanted_folds(self) -> tuple[int, ...]:
        """The folds to train here, in order."""
        return tuple(sorted(set(self.folds))) or tuple(range(self.n_folds))


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceSettings(Settings):
    """What an inference notebook can set; everything else comes from the runs' ``run.json``."""

    runs: tuple[str, ...] = setting(())
    """Run folders; empty: every folder with a ``run.json`` under the inputs."""
    data_dir: str = setting("")
    """Folder of the competition's files; empty: look under the inputs."""
    submission: str = setting("submission.csv")
    """The file to write, relative to the working directory."""
    batch_size: int = setting(16, at_least=1)
    precision: str = setting("auto", choices=("auto", "float32", "bf16", "fp16"))


def digest(values: Any) -> str:
    """Short, stable hash of anything JSON can hold: 16 hexadecimal digits."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def nearest(name: str, known: list[str]) -> str:
    """The hint of an error about an unknown name: the closest known one, or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}."


def _refuse_unknown(values: dict[str, Any], cls: type[Settings]) -> None:
    known = [field.name for field in dataclasses.fields(cls)]
    for name in values:
        if name not in known:
            raise SettingsError(
                f"unknown setting {name!r} of {cls.__name__}: {nearest(name, known)}"
            )


def _coerced(name: str, value: Any, hint: Any) -> Any:
    """The value in its declared type: JSON's lists become tuples, whole numbers floats."""
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        if isinstance(value, list | tuple):
            item_hint = typing.get_args(hint)[0]
            return tuple(_coerced(name, item, item_hint) for item in value)
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    wanted = getattr(hint, "__name__", str(hint))
    raise SettingsError(f"{name}={value!r} is {type(value).__name__}; it must be {wanted}.")


def _check_range(field: dataclasses.Field[Any], value: Any) -> None:
    if value is None:
        return
    for word, bound in field.metadata["bounds"].items():
        if not _KEEPS_BOUND[word](value, bound):
            raise SettingsError(f"{field.name}={value!r} must be {word} {bound}.")
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise SettingsError(
            f"{field.name}={value!r} is not known: {nearest(value, list(choices))} "
            f"It can be {', '.join(choices)}."
        )
