"""The official files of the SIGHAN bake-offs on Chinese spelling check (2013, 2014, 2015).

- Test input: ``(pid=A2-0011-1)``, blanks, the text; 2013 writes ``NID`` for ``pid``.
- Truth: ``id, 0`` for a text without errors, or ``id, position, character, position, character``.
  Positions count from 1. That of 2013's sub-task 1 has positions only: nothing to correct to.
- Training, SGML: ``<PASSAGE id=..>text</PASSAGE>`` and, after them, ``<MISTAKE id=.. location=..>
  <WRONG>word</WRONG><CORRECTION>word</CORRECTION></MISTAKE>``; the location is that of the wrong
  character, not of the word. 2013: ``<DOC Nid=..><P>text</P><TEXT><MISTAKE wrong_position=..>
  <WRONG>..</WRONG><CORRECT>..</CORRECT></MISTAKE></TEXT></DOC>``, position 0 without an error.
"""

from __future__ import annotations

import re
import warnings
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel_lib.errors import DataError
from kernel_lib.text.tables import listed

INPUT_LINE = re.compile(r"\((?:pid|nid|sid)=([^)]*)\)[ \t]*(.*)", re.IGNORECASE | re.DOTALL)
ESSAYS = re.compile(r"\s*<(?:ESSAY|DOC)\b", re.IGNORECASE)
PASSAGE = re.compile(r"<PASSAGE\b([^>]*)>(.*?)</PASSAGE>", re.IGNORECASE | re.DOTALL)
DOC = re.compile(r"<DOC\b([^>]*)>(.*?)</DOC>", re.IGNORECASE | re.DOTALL)
PARAGRAPH = re.compile(r"<P>(.*?)</P>", re.IGNORECASE | re.DOTALL)
MISTAKE = re.compile(r"<MISTAKE\b([^>]*)>(.*?)</MISTAKE>", re.IGNORECASE | re.DOTALL)
WORDS = re.compile(
    r"\s*<WRONG>(.*?)</WRONG>\s*<CORRECT(ION)?>(.*?)</CORRECT(?:ION)?>\s*",
    re.IGNORECASE | re.DOTALL,
)
ATTRIBUTE = re.compile(r'(\w+)\s*=\s*"?([^"\s>]*)"?')
Truth = dict[str, list[tuple[int, str]]]


@dataclass(frozen=True)
class Sentence:
    """One text of a file: its line, its id, and its source and target (None where unknown)."""

    line: int
    id: str
    source: str
    target: str | None


@dataclass(frozen=True)
class _Mistake:
    location: int
    wrong: str
    right: str


def looks_like_input(text: str) -> bool:
    """Whether a file begins as a test input does."""
    return INPUT_LINE.match(text.lstrip()) is not None


def looks_like_essays(text: str) -> bool:
    """Whether a file begins as training SGML does."""
    return ESSAYS.match(text) is not None


def find_truth(path: Path) -> Path | None:
    """The truth file beside a test input: the same name, but for "input", "truth" and ``._-``.

    ``X.truth.txt`` and ``X_Truth.txt`` belong to ``X.txt``, ``X_TestTruth.txt`` to
    ``X_TestInput.txt``.

    Raises:
        DataError: there is more than one.
    """

    def bare(name: str) -> str:
        return re.sub(r"[._\- ]|input|truth", "", name.lower())

    found = sorted(
        other
        for other in path.parent.glob("*.txt")
        if other != path and "truth" in other.name.lower() and bare(other.stem) == bare(path.stem)
    )
    if len(found) > 1:
        names = ", ".join(other.name for other in found)
        raise DataError(f"{path} has more than one truth file beside it: {names}. Keep one.")
    return found[0] if found else None


def read_input(path: Path, text: str) -> list[Sentence]:
    """The sentences of a test input, without targets.

    Raises:
        DataError: a line is of another form.
    """
    sentences, wrong = [], []
    for number, line in _lines(text):
        if match := INPUT_LINE.fullmatch(line):
            sentences.append(Sentence(number, match[1].strip(), match[2], None))
        else:
            wrong.append(number)
    if wrong:
        raise DataError(
            f"{path}: line {listed(wrong)} does not begin with (pid=...), as the official test "
            "inputs do. Mend these lines, or drop them here and in the truth file."
        )
    return sentences


def read_truth(path: Path, text: str) -> Truth | None:
    """Positions, from 1, and right characters for each id; None if the file has positions only.

    Raises:
        DataError: a line is of another form, or an id comes twice.
    """
    rows: dict[str, tuple[int, list[str]]] = {}
    wrong, twice = [], []
    for number, line in _lines(text):
        name, *labels = (cell.strip(" \t") for cell in line.split(","))
        if labels[-1:] == [""]:
            labels.pop()  # 2013 has a line that ends with a comma
        if not name or not labels:
            wrong.append(number)
        elif name in rows:
            twice.append(name)
        rows[name] = number, labels if labels != ["0"] else []
    marked = [label for _, labels in rows.values() for label in labels]
    if marked and not wrong and not twice and all(label.isdecimal() for label in marked):
        return None
    truth: Truth = {}
    for name, (number, labels) in rows.items():
        positions, characters = labels[::2], labels[1::2]
        good = all(position.isdecimal() and int(position) > 0 for position in positions)
        if len(labels) % 2 or not good or any(len(character) != 1 for character in characters):
            wrong.append(number)
            continue
        truth[name] = [(int(at), right) for at, right in zip(positions, characters, strict=True)]
    if wrong or twice:
        found = f"line {listed(sorted(wrong))} is not 'id, 0' or 'id, position, character, ...'"
        faults = [found] if wrong else []
        faults += [f"ids that come more than once: {listed(twice)}"] if twice else []
        raise DataError(f"{path}: {'; '.join(faults)}. Mend these lines.")
    return truth


def apply_truth(sentences: Sequence[Sentence], truth: Truth, path: Path) -> list[Sentence]:
    """The sentences with their targets.

    A truth that repeats the character that is there already changes nothing (the repaired files
    of 2013 and 2014 have nine such).

    Args:
        path: the truth file, for the message.

    Raises:
        DataError: ids of one file are not in the other, or a position lies behind the text's end.
    """
    unlabelled = [one.id for one in sentences if one.id not in truth]
    unknown = sorted(truth.keys() - {one.id for one in sentences})
    outside = [
        f"{one.id} (position {max(at for at, _ in truth[one.id])}, {len(one.source)} characters)"
        for one in sentences
        if any(at > len(one.source) for at, _ in truth.get(one.id, ()))
    ]
    faults = [
        f"no line for {listed(unlabelled)}" if unlabelled else "",
        f"ids that the input does not have: {listed(unknown)}" if unknown else "",
        f"positions behind the end of the text: {listed(outside)}" if outside else "",
    ]
    if any(faults):
        raise DataError(
            f"{path} does not fit its input: {'; '.join(filter(None, faults))}. "
            "Take both files from the same release."
        )
    labelled = []
    for one in sentences:
        characters = list(one.source)
        for at, right in truth[one.id]:
            characters[at - 1] = right
        labelled.append(Sentence(one.line, one.id, one.source, "".join(characters)))
    return labelled


def read_essays(path: Path, text: str) -> list[Sentence]:
    """The passages of training SGML with their targets, as they stand between the tags.

    A word is replaced where it covers its location, or, if it does not, where it occurs only once.
    A passage with a mistake that fits nowhere, or whose two words differ in length, is left out
    with a warning that names it: its target is not known. So are mistakes without their passage.

    Raises:
        DataError: the file is cut or damaged, or holds no passage.
    """
    breaks = [found.start() for found in re.finditer("\n", text)]
    passages: list[Sentence] = []
    mistakes: defaultdict[str, list[_Mistake]] = defaultdict(list)
    if re.search(r"<DOC\b", text, re.IGNORECASE):
        whole, blocks = "DOC", [(doc.start(), doc[1], doc[2]) for doc in DOC.finditer(text)]
        for start, attributes, body in blocks:
            name = _attributes(attributes).get("nid", "")
            for paragraph in PARAGRAPH.finditer(body):
                line = bisect_right(breaks, start) + 1
                passages.append(Sentence(line, name, paragraph[1], None))
            for _, mistake in _mistakes(body):
                mistakes[name].append(mistake)
    else:
        whole, blocks = "PASSAGE", [(p.start(), p[1], p[2]) for p in PASSAGE.finditer(text)]
        for start, attributes, body in blocks:
            name = _attributes(attributes).get("id", "")
            passages.append(Sentence(bisect_right(breaks, start) + 1, name, body, None))
        for name, mistake in _mistakes(text):
            mistakes[name].append(mistake)
    for tag, found in ((whole, len(blocks)), ("MISTAKE", len(MISTAKE.findall(text)))):
        opened = len(re.findall(rf"<{tag}\b", text, re.IGNORECASE))
        if opened != found:
            raise DataError(
                f"{path} is cut or damaged: {opened} <{tag}> begin, {found} end. Copy it again."
            )
    if not passages:
        raise DataError(f"{path} holds no passage. Is it an official training file?")
    return _labelled(passages, mistakes, path)


def _labelled(
    passages: Sequence[Sentence], mistakes: dict[str, list[_Mistake]], path: Path
) -> list[Sentence]:
    known = {one.id for one in passages}
    labelled, left_out = [], [f"{name} (no such passage)" for name in mistakes if name not in known]
    for one in passages:
        target = list(one.source)
        for mistake in mistakes.get(one.id, ()):
            start = _place(one.source, mistake)
            if start is None:
                left_out.append(f"{one.id} ({mistake.wrong} -> {mistake.right})")
                break
            for offset, (wrong, right) in enumerate(zip(mistake.wrong, mistake.right, strict=True)):
                if wrong != right:
                    target[start + offset] = right
        else:
            labelled.append(Sentence(one.line, one.id, one.source, "".join(target)))
    if left_out:
        warnings.warn(
            f"{path}: {len(labelled)} of {len(passages)} passages are taken, since some mistakes "
            f"do not fit the text: {listed(left_out)}.",
            stacklevel=6,
        )
    return labelled


def _place(source: str, mistake: _Mistake) -> int | None:
    """Where the wrong word begins in the source; None if that cannot be said."""
    wrong, right, at = mistake.wrong, mistake.right, mistake.location - 1
    if not wrong or len(wrong) != len(right):
        return None
    for start in range(max(0, at - len(wrong) + 1), at + 1):
        if source.startswith(wrong, start) and wrong[at - start] != right[at - start]:
            return start
    return source.index(wrong) if source.count(wrong) == 1 else None


def _mistakes(text: str) -> Iterator[tuple[str, _Mistake]]:
    for found in MISTAKE.finditer(text):
        attributes = _attributes(found[1])
        location = attributes.get("location", attributes.get("wrong_position", ""))
        if location == "0":
            continue
        words = WORDS.fullmatch(found[2])
        at = int(location) if location.isdecimal() else 0
        wrong, right = (words[1].strip(), words[3].strip()) if words else ("", "")
        yield attributes.get("id", ""), _Mistake(at, wrong, right)


def _attributes(text: str) -> dict[str, str]:
    return {name.lower(): value for name, value in ATTRIBUTE.findall(text)}


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Line numbers and lines without their ends; blank ones are skipped."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")
