"""The tokenizer that the weights were pretrained with, whatever transformers is installed.

transformers 5.x builds a wrong DeBERTa-v3 tokenizer from ``spm.model``: 5.0 to 5.3 add no [CLS]
and [SEP] (huggingface/transformers#44568), and all replace the model's character map by NFC. So it
is built here from the sentencepiece file, once, at training time; the run keeps
``tokenizer.json``, and inference loads only that, through a class that rebuilds nothing.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from kernel_lib.errors import ArtifactError, BackboneError
from kernel_lib.runtime.files import read_json, write_json, write_text

NEWLINE = "\n"
DEBERTA_SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
FINGERPRINT_TEXT = (
    "The quick brown fox, aged 12½, said: “it’s fine…”\n\nNo-break\u00a0space, ﬁne ＡＢＣ ™ "
    "纠错 naïve e\u0301 \u200b end.  Two  spaces."
)


def build_tokenizer(backbone: Path, *, keep_newlines: bool) -> PreTrainedTokenizerFast:
    """The tokenizer of a backbone folder, built right on any transformers 5.

    A folder with ``spm.model`` gets the tokenizer built from it; otherwise ``tokenizer.json`` is
    taken as it stands, or what transformers makes of ``vocab.txt``.

    Args:
        backbone: folder of the pretrained encoder.
        keep_newlines: give the line break a token of its own. The encoder's embedding table must
            hold its id (``model.backbone.fit_embeddings``).

    Raises:
        BackboneError: the folder has no tokenizer file that can be read.
    """
    tokenizer: Any
    if (backbone / "spm.model").is_file():
        tokenizer = _from_sentencepiece(backbone / "spm.model")
    elif (backbone / "tokenizer.json").is_file():
        tokenizer = _read(PreTrainedTokenizerFast, backbone)
    elif (backbone / "vocab.txt").is_file():
        tokenizer = _read(AutoTokenizer, backbone)
    else:
        raise BackboneError(
            f"{backbone} has no tokenizer: none of spm.model, tokenizer.json, vocab.txt. Copy the "
            "tokenizer files of the model beside its config.json."
        )
    _check_special_tokens(tokenizer, backbone)
    tokenizer.pretrained_size = len(tokenizer)  # ids from here on are new to the encoder
    if keep_newlines:
        # normalized=False: matched before the normaliser turns line breaks into spaces.
        tokenizer.add_tokens([AddedToken(NEWLINE, normalized=False, special=False)])
    built: PreTrainedTokenizerFast = tokenizer
    return built


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes ``tokenizer.json`` and its config into a folder, for :func:`load_tokenizer`.

    The config names the class that loads ``tokenizer.json`` as it is; the model's own class would
    put its normaliser over ours.
    """
    write_text(folder / "tokenizer.json", tokenizer.backend_tokenizer.to_str())
    names = ("pad_token", "cls_token", "sep_token", "unk_token", "mask_token")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        **{name: getattr(tokenizer, name) for name in names},
    }
    write_json(folder / "tokenizer_config.json", config)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Loads what :func:`save_tokenizer` wrote.

    Raises:
        ArtifactError: there is no ``tokenizer.json``. A tokenizer is never rebuilt at inference:
            another version of transformers would build another one, without a word.
    """
    if not (folder / "tokenizer.json").is_file():
        raise ArtifactError(
            f"{folder} has no tokenizer.json. Inference loads only what training saved, since "
            "transformers 5 builds another tokenizer from spm.model. Copy the whole run folder."
        )
    names = ("pad_token", "cls_token", "sep_token", "unk_token", "mask_token")
    config = read_json(folder / "tokenizer_config.json")
    try:
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, **{name: config[name] for name in names}
        )
    except Exception as error:  # tokenizers raises plain Exception
        raise ArtifactError(
            f"tokenizer.json or tokenizer_config.json in {folder} is damaged ({error!r}). "
            "Copy them again."
        ) from None
    return tokenizer


def token_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of a fixed awkward text's ids: equal at training and inference, or the run stops."""
    ids = tokenizer(FINGERPRINT_TEXT)["input_ids"]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16]


def check_tokens(folder: Path, tokenizer: PreTrainedTokenizerBase, written: str | None) -> None:
    """Raises ArtifactError when a tokenizer that was loaded from a folder gives other ids than in
    training, whose fingerprint was ``written``."""
    found = token_fingerprint(tokenizer)
    if found != written:
        raise ArtifactError(
            f"the tokenizer in {folder} gives other ids (fingerprint {found}) than "
            f"in training ({written}): altered, or read differently by this version of tokenizers."
        )


def _from_sentencepiece(path: Path) -> PreTrainedTokenizerFast:
    """DeBERTa-v3's tokenizer: unigram pieces, the model's character map, [CLS] text [SEP]."""
    model = _sentencepiece_format().ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError: its class differs between versions
        raise BackboneError(f"{path} is not a sentencepiece model ({error}).") from None
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    unknown = [index for index, piece in enumerate(model.pieces) if piece.type == piece.UNKNOWN]
    if len(unknown) != 1:
        raise BackboneError(f"{path} must have one unknown piece, it has {len(unknown)}.")
    backend = Tokenizer(
        models.Unigram(pieces, unk_id=unknown[0], byte_fallback=model.trainer_spec.byte_fallback)
    )
    steps: list[normalizers.Normalizer] = []
    if model.normalizer_spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap))
    steps.append(normalizers.Replace(Regex(r"\A +| +\z"), ""))
    steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁")])
    backend.add_special_tokens(list(DEBERTA_SPECIAL_TOKENS))
    cls_id, sep_id = backend.token_to_id("[CLS]"), backend.token_to_id("[SEP]")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls_id), ("[SEP]", sep_id)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    )


def _sentencepiece_format() -> Any:
    """The protobuf module of ``spm.model``; needed when a tokenizer is built, not at inference.

    sentencepiece's own refuses protobuf of another major version; transformers' copy of it takes
    any. Where the first is loaded already, the second cannot be.
    """
    try:
        from transformers.utils import sentencepiece_model_pb2_new

        return sentencepiece_model_pb2_new
    except (ImportError, TypeError):
        from sentencepiece import sentencepiece_model_pb2

        return sentencepiece_model_pb2


def _read(reader: Any, backbone: Path) -> Any:
    try:
        tokenizer = reader.from_pretrained(backbone, local_files_only=True, trust_remote_code=False)
        tokenizer("a")
    except Exception as error:  # tokenizers raises plain Exception
        raise BackboneError(f"the tokenizer files in {backbone} cannot be read: {error}") from error
    return tokenizer


def _check_special_tokens(tokenizer: PreTrainedTokenizerBase, backbone: Path) -> None:
    ids = tokenizer("a")["input_ids"]
    if (
        tokenizer.pad_token_id is None
        or ids[0] != tokenizer.cls_token_id
        or (ids[-1] != tokenizer.sep_token_id)
    ):
        raise BackboneError(
            f"the tokenizer of {backbone} encodes 'a' as {ids}, without its special tokens at both "
            f"ends (cls {tokenizer.cls_token_id}, sep {tokenizer.sep_token_id}, pad "
            f"{tokenizer.pad_token_id}). Put the model's original tokenizer files there."
        )
