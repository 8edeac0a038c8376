"""From words to windows of token ids in which every token knows its word.

A tokenizer makes one, several or no tokens of a word: DeBERTa-v3 none of a line break, a blank or
an empty word, BERT none of a zero-width mark. So words are never counted along tokens. The list of
words goes to the fast tokenizer as it is (``is_split_into_words``), which encodes each by itself
and says of every token which word it came from; a word without tokens keeps its number all the
same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from kernel_lib.errors import SettingsError
from kernel_lib.runtime.progress import progress_bar
from kernel_lib.text.windows import owner_spans

NO_WORD = -1
ENCODE_CHUNK = 64  # texts that the tokenizer shares out among the cores at once


@dataclass(frozen=True)
class WordWindow:
    """Part of a text, as the encoder reads it.

    Attributes:
        input_ids: ``(seq_len,)`` token ids, special tokens included.
        words: ``(seq_len,)`` the number of each token's word in the whole text; ``NO_WORD`` for a
            special token. Of a word's tokens the first has another number before it.
        start, stop: the words ``[start, stop)`` are in this window; some may have no token.
    """

    input_ids: NDArray[np.int32]
    words: NDArray[np.int32]
    start: int
    stop: int


def encode_words(
    tokenizer: PreTrainedTokenizerBase,
    words: Sequence[str],
    *,
    max_length: int,
    overlap: int,
    special_tokens: bool = True,
) -> list[WordWindow]:
    """The windows of a text, most often one, in order; no word is cut at a window's end.

    A window takes as many whole words as fit. The next one begins so many words earlier that both
    share at least ``overlap`` tokens, or fewer where the word that comes next needs the room; the
    last is moved back until it is full. A word of more tokens than a window holds keeps the first
    that fit, alone in its window. With room for 6 tokens and an overlap of 2, words of 3, 2, 1, 2,
    4 tokens give the windows ``[0, 3)``, ``[1, 4)``, ``[3, 5)``.

    Line ends within words become ``\\n`` first, as those of whole texts do.

    Args:
        tokenizer: a fast one.
        words: any texts: blanks, line breaks, empty ones; no half surrogates.
        max_length: the most tokens of a window, special ones included.
        overlap: tokens that neighbours share.
        special_tokens: put ``[CLS]`` and ``[SEP]`` around each window; ``words`` of the others is
            the same without.

    Returns:
        At least one; a text without words has one without words.

    Raises:
        SettingsError: a window has no room for a token, or does not go beyond the overlap.
    """
    size = _room(max_length, overlap, special_tokens=special_tokens)
    (encoded,) = _encode(tokenizer, [words], size=size)
    framing = tokenizer if special_tokens else None
    return _windows(*encoded, len(words), size=size, overlap=overlap, framing=framing)


def encode_word_lists(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Sequence[str]],
    *,
    max_length: int,
    overlap: int,
    special_tokens: bool = True,
) -> list[list[WordWindow]]:
    """What :func:`encode_words` makes of each of many texts, on all cores; shows progress."""
    size = _room(max_length, overlap, special_tokens=special_tokens)
    framing = tokenizer if special_tokens else None
    found: list[list[WordWindow]] = []
    with progress_bar(len(texts), "tokenize", unit="text") as bar:
        for start in range(0, len(texts), ENCODE_CHUNK):
            chunk = texts[start : start + ENCODE_CHUNK]
            found += [
                _windows(*encoded, len(words), size=size, overlap=overlap, framing=framing)
                for words, encoded in zip(chunk, _encode(tokenizer, chunk, size=size), strict=True)
            ]
            bar.update(len(chunk))
    return found


def owned_words(windows: Sequence[WordWindow]) -> list[tuple[int, int]]:
    """For each window the words ``[start, stop)`` that are taken from it: together all words, each
    once, from the window in which it is farthest from a cut (see ``windows.owner_spans``)."""
    return owner_spans([(window.start, window.stop) for window in windows])


def _room(max_length: int, overlap: int, *, special_tokens: bool) -> int:
    """Tokens of words that a window has room for."""
    size = max_length - 2 * special_tokens
    if size < 1 or not 0 <= overlap < size:
        raise SettingsError(
            f"windows of {max_length} tokens, {2 * special_tokens} of them special, cannot overlap "
            f"by {overlap}: the overlap must be from 0 to {size - 1}."
        )
    return size


def _encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[str]], *, size: int
) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Of each text the tokens' ids and words; of each word at most ``size`` tokens."""
    filled = [
        [re.sub(r"\r\n?", "\n", word) if "\r" in word else word for word in words]
        for words in texts
        if len(words)  # one without words would pass for a batch without texts
    ]
    encoded = (
        tokenizer(
            filled,
            is_split_into_words=True,
            add_special_tokens=False,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # no word about long texts: they are cut below
        )
        if filled
        else None
    )
    found, number = [], 0
    for words in texts:
        ids, owners = np.zeros((2, 0), dtype=np.int32)
        if encoded is not None and len(words):
            ids = np.asarray(encoded["input_ids"][number], dtype=np.int32)
            owners = np.asarray(encoded.word_ids(number), dtype=np.int32)
            number += 1
        kept = np.arange(len(owners)) - np.searchsorted(owners, owners, side="left") < size
        found.append((ids[kept], owners[kept]))
    return found


def _windows(
    ids: NDArray[np.int32],
    owners: NDArray[np.int32],
    count: int,
    *,
    size: int,
    overlap: int,
    framing: PreTrainedTokenizerBase | None,
) -> list[WordWindow]:
    """The windows of a text of ``count`` words, between special tokens if ``framing`` has them."""
    begins = np.zeros(count + 1, dtype=np.int64)  # where each word's tokens begin, and their end
    np.cumsum(np.bincount(owners, minlength=count), out=begins[1:])
    windows = []
    for start, stop in _cut(begins, size=size, overlap=overlap):
        tokens = slice(begins[start], begins[stop])
        window = WordWindow(ids[tokens], owners[tokens], start, stop)
        windows.append(_framed(window, framing) if framing else window)
    return windows


def _cut(begins: NDArray[np.int64], *, size: int, overlap: int) -> list[tuple[int, int]]:
    """Windows of words, given where each word's tokens begin; no word has more than ``size``."""
    count = len(begins) - 1
    start, windows = 0, []
    while True:
        stop = int(np.searchsorted(begins, begins[start] + size, side="right")) - 1
        if stop == count:
            break
        windows.append((start, stop))
        shares_enough = np.searchsorted(begins, begins[stop] - overlap, side="right") - 1
        has_room = np.searchsorted(begins, begins[stop + 1] - size, side="left")
        start = int(max(shares_enough, has_room))
    if windows:
        start = int(np.searchsorted(begins, begins[count] - size, side="left"))
    return [*windows, (start, count)]


def _framed(window: WordWindow, tokenizer: PreTrainedTokenizerBase) -> WordWindow:
    ids = np.concatenate([[tokenizer.cls_token_id], window.input_ids, [tokenizer.sep_token_id]])
    words = np.concatenate([[NO_WORD], window.words, [NO_WORD]])
    return WordWindow(
        ids.astype(np.int32), words.astype(np.int32), start=window.start, stop=window.stop
    )
