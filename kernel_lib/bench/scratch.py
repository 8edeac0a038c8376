"""A small BERT or RoFormer with random weights and a genuine vocabulary, to train from scratch.

python -m kernel_lib.bench.scratch VOCAB FOLDER [--family bert] [--hidden 128] [--layers 3]
                                  [--heads 4] [--intermediate 512] [--seed 0] [--no-head]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    PreTrainedConfig,
    RoFormerConfig,
)

from kernel_lib.config import nearest
from kernel_lib.errors import DataError, SettingsError
from kernel_lib.runtime.command import exit_status
from kernel_lib.runtime.files import write_json, write_text

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
POSITIONS = 512
FAMILIES = ["bert", "roformer"]
NARROW_DEVIATION = 0.04  # of a small RoFormer's first weights; 0.02 is for far wider encoders


def write_scratch_backbone(
    folder: Path,
    vocab: Path,
    *,
    hidden: int,
    layers: int,
    heads: int,
    intermediate: int,
    seed: int,
    masked_lm_head: bool = True,
    family: str = "bert",
) -> None:
    """Writes what a downloaded BERT folder holds, with random weights: float32, safetensors.

    Args:
        folder: where to; made if missing, files of the same names are replaced.
        vocab: a ``vocab.txt``, one entry a line; it is copied into the folder.
        hidden: width; a multiple of ``heads``.
        layers: how many.
        heads: of attention, in each layer.
        intermediate: width inside the feed-forward part.
        seed: of the weights; torch's random state is as before afterwards.
        masked_lm_head: also the head that predicts masked words, its decoder tied to the
            embeddings.
        family: ``bert`` has a table of positions; ``roformer`` turns the vectors by their place (Su
            et al. 2021, arXiv 2104.09864), from which a small encoder without pretraining learns
            who is next to whom far sooner.

    Raises:
        DataError: the vocabulary is missing, not UTF-8, lacks a special entry or has one twice.
        SettingsError: a size is below 1, the sizes do not fit each other, or there is no such
            family.
    """
    sizes = {"hidden": hidden, "layers": layers, "heads": heads, "intermediate": intermediate}
    for name, size in sizes.items():
        if size < 1:
            raise SettingsError(f"{name} = {size} must be at least 1.")
    if hidden % heads:
        raise SettingsError(f"hidden = {hidden} must be a multiple of heads = {heads}.")
    if family not in FAMILIES:
        raise SettingsError(f"family={family!r}: {nearest(family, FAMILIES)}")
    entries = _entries(vocab)
    common: dict[str, Any] = {
        "vocab_size": len(entries),
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "pad_token_id": entries.index("[PAD]"),
    }
    config: PreTrainedConfig = (
        roformer_config(**common)
        if family == "roformer"
        else BertConfig(max_position_embeddings=POSITIONS, **common)
    )
    folder.mkdir(parents=True, exist_ok=True)
    kind = AutoModelForMaskedLM if masked_lm_head else AutoModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind.from_config(config, dtype=torch.float32, trust_remote_code=False)
    model.save_pretrained(folder)
    write_text(folder / "vocab.txt", "".join(f"{entry}\n" for entry in entries))
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": POSITIONS},
    )


def roformer_config(**sizes: Any) -> PreTrainedConfig:
    """A small RoFormer's configuration, without dropout.

    Args:
        sizes: ``vocab_size``, ``hidden_size``, ``num_hidden_layers``, ``num_attention_heads``,
            ``intermediate_size`` and ``pad_token_id``.
    """
    if sizes["hidden_size"] // sizes["num_attention_heads"] % 2:
        raise SettingsError(
            f"a RoFormer's heads have an even width: hidden = {sizes['hidden_size']} over heads = "
            f"{sizes['num_attention_heads']} has none."
        )
    return RoFormerConfig(
        embedding_size=sizes["hidden_size"],
        max_position_embeddings=POSITIONS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=NARROW_DEVIATION,
        **sizes,
    )


def _entries(vocab: Path) -> list[str]:
    try:
        # Not splitlines: entries of the Chinese vocabulary are line ends to Unicode.
        lines = vocab.read_bytes().decode("utf-8").split("\n")
    except FileNotFoundError:
        raise DataError(f"{vocab} does not exist; give the path of a BERT vocab.txt.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{vocab} is not UTF-8 ({error.reason} at byte {error.start}).") from None
    entries = [line.removesuffix("\r") for line in lines]
    if entries[-1] == "":
        entries.pop()
    missing = [name for name in SPECIAL if name not in entries]
    if missing:
        raise DataError(f"{vocab} lacks {', '.join(missing)}: not a BERT vocabulary?")
    if len(set(entries)) < len(entries):
        twice = next(entry for at, entry in enumerate(entries) if entry in entries[:at])
        raise DataError(f"{vocab} holds {twice!r} twice; every entry must stand there once.")
    return entries


def main() -> int:
    """Command line; returns the exit status."""
    about = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m kernel_lib.bench.scratch", description=about)
    parser.add_argument("vocab", type=Path, help="a BERT vocab.txt")
    parser.add_argument("folder", type=Path, help="where the backbone is written")
    parser.add_argument("--family", choices=FAMILIES, default=FAMILIES[0])
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--intermediate", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-head", action="store_true", help="the encoder alone")
    options = vars(parser.parse_args())
    head = not options.pop("no_head")

    def work() -> None:
        write_scratch_backbone(**options, masked_lm_head=head)
        print(f"{options['folder']}: random weights, to train from scratch")

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
