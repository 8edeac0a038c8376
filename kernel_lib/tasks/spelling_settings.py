"""What the notebooks for Chinese spelling correction can set."""

from __future__ import annotations

from dataclasses import dataclass

from kernel_lib.config import InferenceSettings, TrainingSettings, setting
from kernel_lib.errors import SettingsError

SYSTEMS = ("copy", "detect")


@dataclass(frozen=True, kw_only=True)
class SpellingSettings(TrainingSettings):
    """Settings of a spelling correction run. Two systems, each piece with its own switch."""

    # where
    backbone: str = setting("chinese-macbert-base", changes_result=False)
    dataset: str = setting("csc-data", changes_result=False)
    """Name of the folder under the inputs to prefer when several hold the training files."""
    train_files: tuple[str, ...] = setting(("train.csv",), changes_result=False)
    """CSV, TSV, JSON lines, or SIGHAN's formats; ids of several get the file's name in front."""
    confusion_files: tuple[str, ...] = setting((), changes_result=False)
    """Characters that are taken for each other, a line each: the character, then the others."""
    id_column: str = setting("id")
    source_column: str = setting("source")
    target_column: str = setting("target")
    domain_column: str = setting("domain")
    """Scores are told by it, if it is there; else by file."""

    # folds: the same sentence with other errors is no new sentence
    fold_scheme: str = setting("grouped", choices=("multilabel", "plain", "stratified", "grouped"))
    group_column: str = setting("target")

    # text
    max_length: int = setting(128, at_least=8)
    """Longest window in tokens, two special ones included; a character is a token."""
    window_overlap: int = setting(32, at_least=0)
    """Characters that neighbouring windows of a long text share."""
    keep_newlines: bool = setting(False)

    # the system
    system: str = setting("copy", choices=SYSTEMS)
    """``copy``: one softmax over all characters and a label for leaving one as it is. ``detect``: a
    masked-language-model head, and another that learns to detect errors beside it."""
    embedding_path: bool = setting(True)
    """System copy: the head sees the character's embedding too, not only its encoded state."""
    gate: bool = setting(True)
    """System copy: how much of the embedding is learnt, for each of its numbers."""
    orthogonal_init: bool = setting(True)
    """System copy: the head's matrices start orthogonal."""
    copy_label: bool = setting(True)
    """System copy: off, a character that is to stay is its own label."""
    tied_decoder: bool = setting(True)
    """The rows that score characters are those of the embedding table. Off, a character that was
    never a correction in training cannot come out."""
    scalar_mix: bool = setting(True)
    """System detect: both heads see a learnt mean of all layers; off, the last one."""
    pretrained_head: bool = setting(True)
    """The head starts from the encoder's masked-language-model head, where its files hold one."""
    focal_gamma: float = setting(2.0, at_least=0)
    """What is easy counts less, by (1 - p) to this power; 0: cross-entropy. In system ``detect`` it
    is that of detection alone."""
    correction_weight: float = setting(0.3, at_least=0)
    """System detect: weight of the correction loss ..."""
    detection_weight: float = setting(0.7, at_least=0)
    """... and of the detection loss."""

    # noise
    mask_rate: float = setting(0.2, at_least=0, below=1)
    """Share of the right characters that the model does not see, but has to know (Wu et al. 2023,
    arXiv 2305.17721)."""
    noise_rate: float = setting(0.0, at_least=0, below=1)
    """Share of the right Chinese characters that are confused on purpose, anew in each epoch."""

    # decoding
    max_passes: int = setting(2, at_least=1)
    """How often a sentence may be read, each time with the corrections of the time before."""

    # optimisation
    batch_size: int = setting(32, at_least=1)
    learning_rate: float = setting(5e-5, above=0)
    layer_decay: float = setting(0.95, above=0, at_most=1)
    head_learning_rate: float = setting(2e-4, above=0)
    max_grad_norm: float = setting(1.0, above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window_overlap >= self.max_length - 2:
            raise SettingsError(
                f"window_overlap={self.window_overlap} must be below the {self.max_length - 2} "
                f"characters that max_length={self.max_length} has room for."
            )
        if self.noise_rate and not self.confusion_files:
            raise SettingsError("noise_rate needs confusion_files, to know what is confused.")
        if self.mask_rate + self.noise_rate > 1:
            raise SettingsError(
                f"mask_rate={self.mask_rate} and noise_rate={self.noise_rate} are shares of the "
                "same characters: together they must not be above 1."
            )
        if not self.train_files:
            raise SettingsError("train_files is empty: there is nothing to learn from.")
        if self.correction_weight == self.detection_weight == 0:
            raise SettingsError("correction_weight and detection_weight are both 0.")


@dataclass(frozen=True, kw_only=True)
class SpellingInferenceSettings(InferenceSettings):
    """Settings of the inference notebook. How corrections are decided was chosen in training, on
    out-of-fold sentences; None leaves it at that."""

    test_files: tuple[str, ...] = setting(())
    """In the data folder; empty: the one of ``test.csv``, ``test.tsv``, ``test.jsonl`` and
    ``test.txt`` that is there."""
    corrections: str = setting("corrections.jsonl")
    """The file with every change and its probability, relative to the working directory."""
    threshold: float | None = setting(None, at_least=0, at_most=1)
    """Least probability of a change."""
    chinese_only: bool | None = setting(None)
    """Whether only Chinese characters are changed."""
    confusion_only: bool | None = setting(None)
    """Whether only changes are made that the confusion set allows."""
    passes: int | None = setting(None, at_least=1)
    """How often a sentence is read."""
