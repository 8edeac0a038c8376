"""What training and inference notebooks can set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Self

from kernel_lib.config.base import Settings, setting
from kernel_lib.errors import SettingsError

DEBUG_ROWS = 200
EVAL_BATCH_TOKENS = 16 * 512
RETIRED = ("eval_batch_size",)  # settings of earlier releases that changed no result
ATTENTIONS = ("auto", "fast", "stock", "triton")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """What every training notebook can set. The defaults are those of the best run of the FB3
    notebook the kit starts from, except where that run is faulty (README, "Trained right"), and
    FGM, which showed no gain (README, "Score") and is off."""

    # where
    backbone: str = setting("deberta-v3-base", changes_result=False)
    """Folder of the pretrained encoder: a path, or a folder name to be found under the inputs."""
    data_dir: str = setting("", changes_result=False)
    """Folder of the competition's files; empty: look under the inputs."""
    output_dir: str = setting("run", changes_result=False)
    """The run folder, relative to the working directory."""
    resume_from: tuple[str, ...] = setting((), changes_result=False)
    """Run folders of earlier sessions to go on from, copied to ``output_dir`` first: paths, or
    folder names to be found under the inputs. A single one needs no tuple."""

    # how long and how much
    time_budget_seconds: float = setting(8.5 * 3600, above=0, changes_result=False)
    """Training stops, everything saved, when this is used up."""
    checkpoint_seconds: float = setting(900.0, above=0, changes_result=False)
    """Longest time between two saves of the state inside a fold."""
    devices: int = setting(0, at_least=0, changes_result=False)
    """How many GPUs at most train a fold each, at the same time; 0: all. Without a GPU: how many
    processes share the CPU; 0: one."""
    debug: bool = setting(False)
    """A quick look: 200 rows, 2 folds, 1 epoch."""
    max_rows: int = setting(0, at_least=0)
    """Use only that many rows, drawn with ``seed``; 0: all."""
    seed: int = setting(42, at_least=0)

    # folds
    n_folds: int = setting(4, at_least=2)
    folds: tuple[int, ...] = setting((), changes_result=False)
    """Which folds to train here; empty: all."""
    full_data: bool = setting(False, changes_result=False)
    """After the folds one more model, of all rows, for inference only. Its number is ``n_folds``;
    it has no score, keeps its last weights, and counts as one more fold in the mean over folds.
    With ``folds=(n_folds,)`` it is trained alone. Where several notebooks share the folds, set this
    in one of them only: each that has it trains the model."""
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
    attention: str = setting("auto", choices=ATTENTIONS, changes_result=False)
    """How DeBERTa-v2 and v3 compute theirs: ``fast`` is exact and takes less time and memory,
    ``stock`` is that of transformers. ``auto`` is ``fast`` on a CPU, and ``stock`` on a GPU, where
    it is not measured yet; ``triton`` is a kernel for GPUs of compute capability 8.0 and up, which
    has not run on one yet. Other families have one attention only."""
    mixout_probability: float = setting(0.0, at_least=0, below=1)
    """Share of the encoder's weights that each forward pass takes from the pretrained ones."""
    gradient_checkpointing: bool = setting(False, changes_result=False)
    """A third more time for far less memory."""
    freeze_embeddings: bool | None = setting(None)
    """None: frozen where any layers are. Left to train below frozen layers, they save no backward
    pass; frozen with them, DeBERTa's relative positions, which all layers share, freeze too."""
    freeze_layers: int | None = setting(None, at_least=0)
    """Lowest layers that do not train. None: what ``model.backbone.FREEZE_TABLE`` says."""
    reinit_layers: int = setting(0, at_least=0)
    """Top layers whose weights are drawn anew."""

    # optimisation
    epochs: int = setting(5, at_least=1)
    batch_size: int = setting(8, at_least=1)
    """Rows a training batch."""
    batch_tokens: int = setting(0, at_least=0)
    """Instead of ``batch_size``: each training batch has as many rows of like length as fit into so
    many tokens, padding included. In an epoch every row weighs the same. 0: ``batch_size``."""
    eval_batch_tokens: int = setting(EVAL_BATCH_TOKENS, at_least=1, changes_result=False)
    """Tokens a batch in evaluation, padding included; a longer text is a batch of its own."""
    gradient_accumulation_steps: int = setting(1, at_least=1)
    learning_rate: float = setting(5e-5, above=0)
    """Rate of the backbone's top layer."""
    layer_decay: float = setting(0.9, above=0, at_most=1)
    """Each layer's rate is the one above times this; 1: one rate for the whole backbone."""
    rate_group_factor: float = setting(1.0, at_least=1)
    """Instead of ``layer_decay``: three groups of layers, the middle one at ``learning_rate``, the
    lowest at this part of it, the highest at as many times it. 1: ``layer_decay``."""
    head_learning_rate: float = setting(5e-5, above=0)
    """Rate of pooling and head."""
    head_only_ratio: float = setting(0.0, at_least=0, below=1)
    """Share of all optimizer updates, from the first, in which the encoder stands still."""
    unfreeze_ratio: float = setting(0.0, at_least=0, below=1)
    """Share of all optimizer updates, after ``head_only_ratio``, over which the layers begin to
    learn, from the top down; 0: all at once."""
    optimizer: str = setting("adamw", choices=("adamw", "madgrad", "adam8bit"))
    """``madgrad`` and ``adam8bit`` need the packages madgrad and bitsandbytes. MADGRAD wants rates
    of its own, and takes ``weight_decay`` as an L2 penalty."""
    weight_decay: float = setting(0.01, at_least=0)
    pretrained_weight_decay: float = setting(0.0, at_least=0)
    """As ``weight_decay``, but of the encoder's weights towards the pretrained ones, vectors too.
    Both can be set; with ``weight_decay=0`` it takes its place."""
    adam_epsilon: float = setting(1e-6, above=0)
    schedule: str = setting("cosine", choices=("cosine", "linear", "constant"))
    warmup_ratio: float = setting(0.1, at_least=0, below=1)
    """Share of all optimizer updates over which the rates rise from 0; for what begins to learn
    late, of those that are left to it."""
    max_grad_norm: float = setting(10.0, above=0)
    fgm_epsilon: float = setting(0.0, at_least=0)
    """Length of FGM's step on the batch's word embeddings; 0: no FGM; 0.2 where it is wanted, which
    takes 1.8 times the time. The reference notebook sets 0.2 and uses 1.0, unscaled and so without
    effect; with effect, 1.0 learns far more slowly."""
    awp: str = setting("off", choices=("off", "two_pass", "no_extra_pass"))
    """Adversarial weight perturbation: ``two_pass`` attacks with the batch's own gradient,
    ``no_extra_pass`` with the optimizer's running mean of those before: no second pass, but a copy
    of the encoder's matrices, 4 bytes a number, in each update (1.08 times the time, measured)."""
    awp_learning_rate: float = setting(1e-4, above=0)
    """Length of the step on each weight tensor, as a share of the tensor's norm."""
    awp_epsilon: float = setting(1e-2, above=0)
    """Most that a weight moves, as a share of its size."""
    awp_start_epoch: float = setting(1.0, at_least=0)
    """Epochs without AWP before the first one with it, fewer than ``epochs``."""
    averaging: str = setting("none", choices=("none", "ema", "swa"))
    """Evaluate and keep a running mean of the weights: exponential, or equal over the last ones."""
    ema_decay: float = setting(0.999, above=0, below=1)
    """What EMA keeps of its mean at each update; less in the first ones."""
    swa_start: float = setting(0.75, at_least=0, below=1)
    """Share of all optimizer updates after which SWA begins to average. It wants
    ``schedule="constant"``: after three quarters of a ``cosine`` 3 % of the sum of all rates is
    left, and the mean is nearly the last weights; of a constant rate, 26 %."""
    precision: str = setting("auto", choices=("auto", "float32", "bf16", "fp16"))
    evals_per_epoch: int = setting(1, at_least=1)
    keep: str = setting("last", choices=("last", "best"))
    """Weights to keep. ``best`` makes the CV optimistic: it selects on the fold it reports."""
    wandb: bool = setting(False, changes_result=False)
    """Log to Weights & Biases when a key can be had; off when offline."""

    def __post_init__(self) -> None:
        if isinstance(self.resume_from, str):  # as in the records of earlier releases, too
            folders = (self.resume_from,) if self.resume_from else ()
            object.__setattr__(self, "resume_from", folders)
        super().__post_init__()
        small: dict[str, Any] = {"n_folds": 2, "folds": (), "epochs": 1}
        small["max_rows"] = min(self.max_rows or DEBUG_ROWS, DEBUG_ROWS)
        small["awp_start_epoch"] = self.awp_start_epoch / self.epochs  # after as large a part
        object.__setattr__(self, "_asked", {name: getattr(self, name) for name in small})
        if self.debug:
            for name, value in small.items():
                object.__setattr__(self, name, value)
        last = self.n_folds if self.full_data else self.n_folds - 1
        beyond = [fold for fold in self.folds if not 0 <= fold <= last]
        if beyond:
            raise SettingsError(
                f"folds={self.folds} names {beyond}, but n_folds={self.n_folds} has folds 0 to "
                f"{self.n_folds - 1}; {self.n_folds} is the model of all rows, with full_data=True."
            )
        if self.fold_scheme == "grouped" and not self.group_column:
            raise SettingsError('fold_scheme="grouped" needs group_column, the name of a column.')
        if self.head_only_ratio + self.unfreeze_ratio >= 1:
            raise SettingsError(
                f"head_only_ratio={self.head_only_ratio} and unfreeze_ratio={self.unfreeze_ratio}: "
                "the embeddings would never learn. Together they must be below 1."
            )
        if self.pretrained_weight_decay > 0 and self.optimizer == "madgrad":
            raise SettingsError(
                f'pretrained_weight_decay={self.pretrained_weight_decay} and optimizer="madgrad": '
                "each of its steps goes out from the first weights anew, and forgets a decay. Set "
                'pretrained_weight_decay=0, or optimizer="adamw".'
            )
        if self.awp == "two_pass" and self.fgm_epsilon > 0:
            raise SettingsError(
                f'awp="two_pass" and fgm_epsilon={self.fgm_epsilon}: choose one, each makes a '
                'second pass of its own. Set fgm_epsilon=0, or awp="no_extra_pass".'
            )
        if self.awp != "off" and self.awp_start_epoch >= self.epochs:
            raise SettingsError(
                f'awp="{self.awp}" and awp_start_epoch={self.awp_start_epoch}: with epochs='
                f"{self.epochs} it would never begin. Set a lower awp_start_epoch, 0 for at once, "
                'or awp="off".'
            )
        if self.awp == "no_extra_pass" and self.optimizer != "adamw":
            raise SettingsError(
                f'awp="no_extra_pass" and optimizer="{self.optimizer}": it keeps no running mean '
                'of gradients in full. Set optimizer="adamw", or awp="two_pass" and fgm_epsilon=0.'
            )

    @property
    def compares_rows(self) -> bool:
        """Whether the loss compares the rows that go through the model together."""
        return False

    def check_processes(self, processes: int) -> None:
        """Raises SettingsError where so many processes cannot share a batch."""

    def replace(self, **changes: Any) -> Self:
        """As :meth:`Settings.replace`; a debug run that is made a full one is full again."""
        if self.debug:  # what was asked, not what debugging made of it
            changes = {**vars(self)["_asked"], **changes}
        return super().replace(**changes)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """As :meth:`Settings.from_dict`; what an earlier release set without effect on results,
        and this one has no use for, is passed over."""
        return super().from_dict({k: v for k, v in values.items() if k not in RETIRED})

    @property
    def run_folder(self) -> Path:
        """The run folder; a debug run has its own, so that it is never taken for a real one."""
        return Path(self.output_dir + ("-debug" if self.debug else ""))

    @property
    def wanted_folds(self) -> tuple[int, ...]:
        """The folds to train here, in order."""
        asked = sorted(set(self.folds)) or range(self.n_folds)
        return tuple(fold for fold in asked if fold < self.n_folds)

    @property
    def wanted_models(self) -> tuple[int, ...]:
        """The folds to train here and, last, the model of all rows, if there is to be one."""
        return (*self.wanted_folds, *((self.n_folds,) if self.full_data else ()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceSettings(Settings):
    """What an inference notebook can set; everything else comes from the runs' ``run.json``."""

    runs: tuple[str, ...] = setting(())
    """Run folders; empty: every folder with a ``run.json`` under the inputs."""
    data_dir: str = setting("")
    """Folder of the competition's files; empty: look under the inputs."""
    blend: str = setting("")
    """``blend.json`` with the weights of the runs; empty: one under the inputs, or else the mean
    over runs."""
    submission: str = setting("submission.csv")
    """The file to write, relative to the working directory."""
    time_budget_seconds: float = setting(8.5 * 3600, above=0)
    """What does not fit in it is left out; the file is there all the same."""
    eval_batch_tokens: int = setting(EVAL_BATCH_TOKENS, at_least=1)
    """As in training. Halved by itself where memory does not hold so many."""
    devices: int = setting(0, at_least=0)
    """How many GPUs at most predict a fold each, at the same time; 0: all. Without a GPU: how many
    processes share the CPU; 0: one."""
    attention: str = setting("auto", choices=ATTENTIONS)
    """As in training; the runs may have been trained with the other one."""
    precision: str = setting("auto", choices=("auto", "float32", "bf16", "fp16"))
