"""What the notebooks for named entities can set."""

from __future__ import annotations

from dataclasses import dataclass

from kernel_lib.config import InferenceSettings, TrainingSettings, setting
from kernel_lib.errors import SettingsError

SCHEMES = ("BIO", "IOB1", "BIOES", "BILOU")
SUBTOKENS = ("first", "last", "mean")
DECODERS = ("argmax", "viterbi", "crf")
FORMS = ("tags", "spans", "words")


@dataclass(frozen=True, kw_only=True)
class EntitySettings(TrainingSettings):
    """Settings of a named-entity run: full fine-tuning, or LoRA with ``lora_rank``."""

    # where
    dataset: str = setting("ner-data", changes_result=False)
    """Name of the folder under the inputs to prefer when several hold the training files."""
    train_files: tuple[str, ...] = setting(("train.csv",), changes_result=False)
    """JSON lines, CoNLL columns, CSV, character spans; ids of several get the file's name first."""
    id_column: str = setting("id")
    tokens_column: str = setting("tokens")
    tags_column: str = setting("tags")
    scheme: str = setting("BIO", choices=SCHEMES)
    """How the files' tags are written; here they are BIO."""

    fold_scheme: str = setting("plain", choices=("multilabel", "plain", "stratified", "grouped"))

    # text
    window_overlap: int = setting(64, at_least=0)
    """Tokens that neighbouring windows of a long text share."""
    special_tokens: bool = setting(True)
    """``[CLS]`` and ``[SEP]`` around each window."""
    subtoken: str = setting("first", choices=SUBTOKENS)
    """The piece that stands for its word, or the mean of all."""

    # decoding
    decoder: str = setting("viterbi", choices=DECODERS)
    """``argmax``: each word by itself. ``viterbi``: the likeliest legal sequence. ``crf``: the same
    of the probabilities of a linear-chain CRF, which is trained with the model."""

    # LoRA
    lora_rank: int = setting(0, at_least=0)
    """0: all weights are trained. With LoRA the embeddings are not: with ``keep_newlines`` a line
    break then reads as a full stop does, whose row it was given."""
    lora_alpha: float = setting(16.0, above=0)
    """Over the rank: the factor of what is learnt."""
    lora_dropout: float = setting(0.0, at_least=0, below=1)
    lora_targets: tuple[str, ...] = setting(())
    """Ends of the names of linear layers; empty: queries and values."""

    # optimisation
    batch_size: int = setting(16, at_least=1)
    learning_rate: float = setting(5e-5, above=0)
    """Rate of the encoder's top layer; with LoRA, of its matrices: ten times as high."""
    head_learning_rate: float = setting(5e-4, above=0)
    max_grad_norm: float = setting(1.0, above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window_overlap >= self.max_length - 2:
            raise SettingsError(
                f"window_overlap={self.window_overlap} must be below the {self.max_length - 2} "
                f"tokens that max_length={self.max_length} has room for."
            )
        if not self.train_files:
            raise SettingsError("train_files is empty: there is nothing to learn from.")
        if self.lora_rank and (self.reinit_layers or self.freeze_layers):
            raise SettingsError(
                "with lora_rank the encoder stays as it was pretrained, and only the matrices of "
                "LoRA learn in all of its layers: set neither reinit_layers nor freeze_layers."
            )
        if self.lora_rank and self.mixout_probability:
            raise SettingsError(
                f"mixout_probability={self.mixout_probability} mixes weights that train with the "
                "pretrained ones, and with lora_rank none of them trains: set one of the two to 0."
            )


@dataclass(frozen=True, kw_only=True)
class EntityInferenceSettings(InferenceSettings):
    """Settings of the inference notebook."""

    test_files: tuple[str, ...] = setting(())
    """In the data folder; or a folder of ``.txt`` files in it. Empty: the one of ``test.csv``,
    ``test.jsonl``, ``test.json`` and ``test.conll`` that is there."""
    form: str = setting("tags", choices=FORMS)
    """Of the submission. ``tags``: a row a text, its tags with blanks between. ``spans``: a row an
    entity, with its text's id, type and word numbers, as in Kaggle's Feedback 2021. ``words``: a
    row for each word that has another tag than O, as in Kaggle's PII competition."""
    entities: str = setting("entities.jsonl")
    """The file with every entity and its probability, relative to the working directory."""
    o_bias: float | None = setting(None)
    """Added to the log-probability of "no entity" against every type; None: for each type what was
    chosen in training, on out-of-fold texts."""
