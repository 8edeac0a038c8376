"""One token id for each character of a text.

A tokenizer merges digits and Latin letters into pieces and drops control characters and zero-width
marks, so its token i is not character i. Spelling correction needs them to be the same place: every
character is looked up by itself, and what the vocabulary lacks becomes the unknown token, which a
correction copies.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from kernel_lib.errors import BackboneError

SPECIAL_TOKENS = ("cls_token", "sep_token", "mask_token", "unk_token", "pad_token")
LEAST_CHINESE_SHARE = 0.05  # bert-base-chinese has 0.35, DeBERTa-v3 0.025
IDEOGRAPHS = (
    (0x3007, 0x3007),  # the zero 〇, written with Chinese numerals
    (0x3400, 0x4DBF),  # extension A
    (0x4E00, 0x9FFF),  # unified ideographs
    (0xF900, 0xFAFF),  # compatibility ideographs
    (0x20000, 0x3FFFD),  # extensions B onwards: Unicode keeps planes 2 and 3 for ideographs
)


def is_chinese(character: str) -> bool:
    """Whether one character is a Chinese one: any CJK ideograph, also the zero ``〇``."""
    code = ord(character)
    return any(first <= code <= last for first, last in IDEOGRAPHS)


class CharacterEncoder:
    """One token id for each character of a text.

    A character is looked up as it is; then in lower case; then in lower case without accents; then
    its compatibility form (full-width letters and digits, compatibility ideographs) in the same
    three ways. The first that is one character and in the vocabulary counts, otherwise the unknown
    token. Word pieces and special tokens never stand for a character.

    Attributes:
        cls_id, sep_id, mask_id, unknown_id, pad_id: the special tokens.
        size: ids run from 0 to ``size - 1``.
        writable: ``(size,)`` bool, the ids of one Chinese character each: what a correction may
            write.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Reads the tokenizer's vocabulary; the tokenizer itself is not kept.

        Raises:
            BackboneError: the tokenizer lacks a special token, or hardly any token of it is a
                Chinese character.
        """
        special = {name: getattr(tokenizer, f"{name}_id") for name in SPECIAL_TOKENS}
        lacking = [name for name, index in special.items() if index is None]
        if lacking:
            raise BackboneError(
                f"the tokenizer has no {', '.join(lacking)}. Chinese spelling correction needs a "
                "backbone with BERT's special tokens, such as a Chinese BERT or MacBERT."
            )
        vocabulary = tokenizer.get_vocab()
        self.cls_id, self.sep_id, self.mask_id, self.unknown_id, self.pad_id = (
            int(index) for index in special.values()
        )
        self.size = max(vocabulary.values()) + 1
        reserved = set(tokenizer.all_special_tokens)
        singles = {
            token: int(index)
            for token, index in vocabulary.items()
            if len(token) == 1 and token not in reserved
        }
        self._characters = {index: token for token, index in singles.items()}
        self._table = _Table(singles, self.unknown_id)
        self.writable: NDArray[np.bool_] = np.zeros(self.size, dtype=np.bool_)
        self.writable[[i for i, token in self._characters.items() if is_chinese(token)]] = True
        if self.writable.sum() < LEAST_CHINESE_SHARE * self.size:
            raise BackboneError(
                f"{int(self.writable.sum())} of the tokenizer's {self.size} tokens are single "
                "Chinese characters. Chinese spelling correction needs a backbone whose "
                "vocabulary has a token for each character (vocab.txt of a Chinese BERT, RoBERTa "
                "or MacBERT), not an English or a sentencepiece one."
            )

    def ids(self, text: str) -> NDArray[np.int32]:
        """Token ids of a text's characters, without special tokens.

        Args:
            text: anything, also ``[SEP]`` spelled out, control characters, half surrogates.

        Returns:
            ``(len(text),)``: the id at i is that of ``text[i]``.
        """
        return np.fromiter(map(self._table.__getitem__, text), dtype=np.int32, count=len(text))

    def character(self, token_id: int) -> str:
        """The one character of an id; empty for word pieces, words and special tokens."""
        return self._characters.get(int(token_id), "")


class _Table(dict[str, int]):
    """Character to id; what is looked up for the first time is worked out and kept."""

    def __init__(self, singles: dict[str, int], unknown_id: int) -> None:
        super().__init__(singles)
        self._singles = singles
        self._unknown_id = unknown_id

    def __missing__(self, character: str) -> int:
        found = (self._singles[form] for form in _forms(character) if form in self._singles)
        self[character] = index = next(found, self._unknown_id)
        return index


def _forms(character: str) -> Iterator[str]:
    """What a character may be looked up as, best first."""
    for form in (character, unicodedata.normalize("NFKC", character)):
        yield form
        yield form.lower()
        parts = unicodedata.normalize("NFD", form.lower())
        yield "".join(part for part in parts if unicodedata.category(part) != "Mn")
