"""A made-up task of named entities: sentences of our own, in English and, by character, in Chinese.

Names come from lists, so that a small model can learn them, but some are of two types: Ashford is
a surname and a town, and part of a bank's name. Which it is, the words around it tell.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

CHINESE = 0.15  # the share of sentences by character
TYPES = {"P": "PERSON", "L": "LOCATION", "O": "ORGANIZATION", "T": "TIME"}

_FIRST = ("Anna", "Boris", "Clara", "David", "Elena", "Farid", "Grace", "Hugo", "Ines", "Jonas")
_LAST = ("Marlow", "Ashford", "Lindqvist", "Okoro", "Moreau", "Weber", "Santos", "Novak")
_TOWNS = ("Marlow", "Ashford", "Santos", "Riverton", "Norbury", "Port Ellis", "New Harbor")
_FIELDS = ("Bank", "University", "Motors", "Institute", "Airlines")
_NOUNS = ("old bank", "river", "university", "airport", "market", "small institute", "garden")
_TIMES = (
    "Monday",
    "last summer",
    "two weeks ago",
    "in March 2021",
    "at 9:30",
    "3 May 1998",
    "yesterday",
    "this evening",
)
SENTENCES = (
    "{P} moved to {L} {T} .",
    "{T} {P} joined {O} .",
    "{O} opened an office in {L} .",
    "The meeting of {O} starts {T} .",
    "Nobody in {L} remembers {P} .",
    "{P} and {P} both work for {O} .",
    "Trains from {L} to {L} were late {T} .",
    "My teacher , {P} , was born in {L} .",
    "The director of {O} met {P} {T} .",
    "They like the {N} and the {N} .",
    "It rained near the {N} , so we stayed at the {N} .",
    'She said : " I know {P} well . "',
)
_CHINESE_NAMES = {
    "P": ("王小明", "李华", "张伟", "陈晓红", "周杰"),
    "L": ("北京", "上海", "杭州", "南湖", "东山县"),
    "O": ("新光公司", "东海大学", "和平银行", "北京大学"),
    "N": ("大学", "公司", "东边", "银行", "湖边"),
    "T": ("昨天", "三月五日", "1998年", "今年春天", "13日"),
}
CHINESE_SENTENCES = (
    "{T}，{P}去了{L}。",
    "{P}在{O}工作。",
    "{O}在{L}开会。",
    "{L}{L}两地{T}下雨。",
    "{N}有一个{N}。",
)

# What users' texts hold beside plain sentences.
AWKWARD = (
    "anna weber moved to riverton yesterday .",
    "NOBODY IN NORBURY REMEMBERS HUGO NOVAK .",
    "\u200b Anna\u200b Weber \ufeff joined \u200d Ashford Bank .",
    "naïve ﬁne ½ … “ quoted ” ‘ it’s ’ ＡＢＣ１２３",
    "👩‍👩‍👧 👍🏽 Clara 😀",
    "[CLS] Anna [SEP] [MASK] <s> {P} %s \\n",
    "[ ]",
    "O",
    "今 天 我 用 i P h o n e 1 5 在 𠮷 野 家",
    "Anna",
    "?!" * 40,
    " ",
    "",
)
LONG_PARTS = 90  # sentences in the one text that no window holds


def write_entity_competition(
    folder: Path, *, train_rows: int, test_rows: int, seed: int = 0
) -> None:
    """Writes ``train.csv``, ``test.csv`` and ``sample_submission.csv``.

    Training rows have ``id, tokens, tags``: words and their tags in BIO, with blanks between them.
    Test rows have ``id, tokens``; the sample has ``id, tags``, all O, in an order of its own. Up
    to half of the test are awkward texts. No sentence comes twice.

    Args:
        folder: where to; made if missing.
        train_rows: sentences with their tags.
        test_rows: sentences without.
        seed: of everything.
    """
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(_rows(train_rows + test_rows, random), columns=["tokens", "tags"])
    numbers = random.choice(10**6, size=len(frame), replace=False)
    frame.insert(0, "id", [f"{number:06d}" for number in numbers])
    train = frame[:train_rows]
    test = frame[train_rows:].drop(columns="tags").reset_index(drop=True)
    awkward = _awkward(test["tokens"].tolist())[: test_rows // 2]
    test.loc[random.permutation(test_rows)[: len(awkward)], "tokens"] = awkward
    sample = test.sample(frac=1, random_state=seed)
    sample["tags"] = [" ".join("O" for _ in words.split()) for words in sample["tokens"]]
    folder.mkdir(parents=True, exist_ok=True)
    train.to_csv(folder / "train.csv", index=False)
    test.to_csv(folder / "test.csv", index=False)
    sample[["id", "tags"]].to_csv(folder / "sample_submission.csv", index=False)


def _rows(count: int, random: np.random.Generator) -> list[tuple[str, str]]:
    rows: dict[str, str] = {}
    while len(rows) < count:
        words, tags = make_tagged(random)
        rows.setdefault(" ".join(words), " ".join(tags))
    return list(rows.items())


def make_tagged(random: np.random.Generator) -> tuple[list[str], list[str]]:
    """The words of one sentence and their tags; of a Chinese one each character is a word."""
    chinese = bool(random.random() < CHINESE)
    pattern = _one_of(CHINESE_SENTENCES if chinese else SENTENCES, random)
    words, tags = [], []
    for number, part in enumerate(pattern.replace("}", "{").split("{")):
        text = _name(part, random, chinese=chinese) if number % 2 else part
        pieces = list(text) if chinese else text.split()
        words += pieces
        tags += [
            f"{'I' if place else 'B'}-{TYPES[part]}" if part in TYPES else "O"
            for place in range(len(pieces))
        ]
    return words, tags


def _name(kind: str, random: np.random.Generator, *, chinese: bool) -> str:
    if chinese:
        return _one_of(_CHINESE_NAMES[kind], random)
    if kind == "P":
        surname = _one_of(_LAST, random)
        return surname if random.random() < 0.3 else f"{_one_of(_FIRST, random)} {surname}"
    if kind == "O":
        return f"{_one_of((*_LAST, *_TOWNS), random)} {_one_of(_FIELDS, random)}"
    return _one_of({"L": _TOWNS, "T": _TIMES, "N": _NOUNS}[kind], random)


def _one_of(words: tuple[str, ...], random: np.random.Generator) -> str:
    return words[random.integers(len(words))]


def _awkward(texts: list[str]) -> list[str]:
    long = " ".join(texts[number % len(texts)] for number in range(LONG_PARTS if texts else 0))
    return [long, *AWKWARD] if texts else []
