"""Two tests for a notebook: Kaggle's public few rows, and a hidden test made up to be awkward.

The hidden one has other ids, another number of rows, and texts that a real test may hold: none,
only blanks, very long ones, other scripts, quotes, line breaks and a control character. Its ids
stand in no order, so that rows which were sorted and not put back show; test and sample keep the
same order where they have it in the competition's own files. Answers are in no hidden test, also
where the given one has them.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from kernel_lib.errors import DataError

PUBLIC_ROWS = 3
HIDDEN_ROWS = 53  # a prime: no batch size divides it
TEST, SAMPLE, TRAIN = "test.csv", "sample_submission.csv", "train.csv"
ODD_TEXTS = (
    "",
    "   ",
    "\n\n\n",
    "NA",
    "word",
    "?!" * 400,
    "a" * 5_000,
    "sentence after sentence, and on it goes. " * 2_500,
    'He said "yes", then: \'no\'; a,b,"c"\r\nand a new line\ttab',
    "naïve café Ĳ ﬁ ½ Å",
    "中文作文也可能出现在这里。",
    "他说：“2026年ＡＢＣ１２３，iPhone15　很好……”——對嗎？\x07",
    "今天的天气很好，我们一起去公园。" * 150,
    "العربية من اليمين إلى اليسار",
    "👩‍👩‍👧 👍🏽 \u200b\u200d\ufeff",
    "[CLS] [SEP] [MASK] <s> </s> {curly} %s \\n",
)
# Bytes on average, since a Chinese character says as much as three letters, and letters among all
# characters.
FREE_TEXT, LETTERS = 20, 0.4
ALPHABETS = ("0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
HEXADECIMAL = ("0123456789", "ABCDEF", "abcdef")


def write_public(data: Path, target: Path) -> int:
    """Writes test and sample with the first three rows of the competition's; returns their number.

    Args:
        data: the competition's folder.
        target: where to; made.

    Raises:
        DataError: ``data`` lacks a file, or test and sample are of different rows.
    """
    test, sample = _read(data / TEST), _read(data / SAMPLE)
    first = _check_ids(data, test, sample)
    kept = sample[first][:PUBLIC_ROWS]
    _write(target, test[test[first].isin(kept)], sample[sample[first].isin(kept)])
    return len(kept)


def write_hidden(data: Path, target: Path, *, rows: int = HIDDEN_ROWS, seed: int = 0) -> int:
    """Writes a made-up test and its sample; returns their row count.

    Args:
        data: the competition's folder, with ``train.csv`` when there is one.
        target: where to; made.
        rows: at least as many as there are odd texts.
        seed: of ids and texts.

    Raises:
        DataError: ``data`` lacks a file, or test and sample are of different rows.
    """
    test, sample = _read(data / TEST), _read(data / SAMPLE)
    first = _check_ids(data, test, sample)
    random = np.random.default_rng(seed)
    pool = _read(data / TRAIN) if (data / TRAIN).is_file() else test
    columns = [name for name in test if name == first or name not in sample]
    if not len(pool) or not set(columns) <= set(pool.columns):
        pool = test
    drawn = pool.iloc[random.integers(len(pool), size=rows)][columns]
    drawn = drawn.reset_index(drop=True)
    drawn[first] = _new_ids(test[first].tolist(), rows, random)
    for text in text_columns(pool[columns], first):
        places = random.permutation(rows)[: len(ODD_TEXTS)]
        drawn.loc[places, text] = list(ODD_TEXTS)[: len(places)]
    ids = drawn[first].to_numpy()
    new_sample = pd.DataFrame({name: sample[name].iloc[0] for name in sample}, index=range(rows))
    in_step = test[first].tolist() == sample[first].tolist()
    new_sample[first] = ids if in_step else random.permutation(ids)
    _write(target, drawn, new_sample)
    return rows


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # of pandas, and of the encoding
        raise DataError(f"{path} cannot be read as CSV ({error}): give DATA= its folder.") from None


def _check_ids(data: Path, test: pd.DataFrame, sample: pd.DataFrame) -> str:
    """The id column's name: the sample's first, which must be in the test with the same ids."""
    first = str(sample.columns[0])
    if first not in test.columns or set(test[first]) != set(sample[first]):
        raise DataError(
            f"{data / SAMPLE} and {data / TEST} do not have the same ids in a column {first!r}: "
            "are they of one competition?"
        )
    if not len(sample):
        raise DataError(f"{data / SAMPLE} has no rows: are the competition's files complete?")
    return first


def text_columns(pool: pd.DataFrame, first: str) -> list[str]:
    """The columns of free text: made of letters, mostly different, and long. When no column is
    long, the longest of them.

    Args:
        pool: rows, all of it text.
        first: the id column, which is none of them.
    """
    lengths: dict[str, float] = {}
    for name in pool.columns:
        some = "".join(pool[name][:200])
        letters = sum(map(str.isalpha, some)) > len(some) * LETTERS
        if name != first and letters and pool[name].nunique() > len(pool) / 2:
            lengths[str(name)] = float(np.mean([len(text.encode()) for text in pool[name]]))
    longest = max(lengths.values(), default=0)
    return [name for name, length in lengths.items() if length >= min(FREE_TEXT, longest)]


def _new_ids(old: list[str], count: int, random: np.random.Generator) -> list[str]:
    """Ids of the same look as the old ones, none of them the same: digits stay digits, capitals
    stay capitals, a zero in front stays."""
    whole = set("".join(old))
    alphabets = HEXADECIMAL if whole <= set("-_".join(HEXADECIMAL)) else ALPHABETS
    ids: list[str] = []
    taken = set(old)
    tries = itertools.count()
    while len(ids) < count:
        pattern = old[int(random.integers(len(old)))]
        # Short ids of one kind run out: they grow, and in the end by a number.
        extra = next(tries) // (4 * count)
        longer = pattern + pattern[-1:] * min(extra, 1) + "0" * max(0, extra - 1)
        head = "0" if pattern[:1] == "0" and len(pattern) > 1 else ""
        new = head + "".join(
            _like(character, alphabets, random, lowest_digit=0 if at else 1)
            for at, character in enumerate(longer)
            if at >= len(head)
        )
        if new not in taken:
            taken.add(new)
            ids.append(new)
    return ids


def _like(
    character: str,
    alphabets: tuple[str, ...],
    random: np.random.Generator,
    *,
    lowest_digit: int,
) -> str:
    for alphabet in alphabets:
        if character in alphabet:
            lowest = lowest_digit if alphabet[0] == "0" else 0
            return alphabet[int(random.integers(lowest, len(alphabet)))]
    return character


def _write(target: Path, test: pd.DataFrame, sample: pd.DataFrame) -> None:
    target.mkdir(parents=True)
    test.to_csv(target / TEST, index=False)
    sample.to_csv(target / SAMPLE, index=False)
