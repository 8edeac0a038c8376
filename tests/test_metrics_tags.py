"""Tags read as entities and written again: by hand, by a slow reading, and as seqeval does."""

from __future__ import annotations

import itertools
import random
from typing import get_args

import pytest

from kernel_lib.errors import DataError, SettingsError
from kernel_lib.metrics.tag_faults import illegal_tags
from kernel_lib.metrics.tags import (
    PREFIXES,
    Scheme,
    Span,
    convert_tags,
    label_names,
    read_spans,
    write_tags,
)

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
BILOU_AS_BIOES = str.maketrans("LU", "ES")


def random_tags(generator: random.Random, scheme: Scheme, types: str = "PLT") -> list[str]:
    """Tags in any order, most of them illegal."""
    labels = label_names(types, scheme=scheme) + ["O"] * generator.randrange(4)
    return generator.choices(labels, k=generator.randrange(13))


def slow_spans(tags: list[str], scheme: Scheme, strict: bool) -> list[Span]:
    """The definitions, tried on each pair of places."""
    if scheme == "BILOU":
        tags, scheme = [tag[0].translate(BILOU_AS_BIOES) + tag[1:] for tag in tags], "BIOES"
    parts = [(tag[0], tag[2:]) for tag in tags]

    def opens(i: int) -> bool:
        if tags[i] == "O":
            return False
        before, type = parts[i - 1] if i else ("O", "")
        if not strict:
            return tags[i][0] in "BS" or before in "OES" or type != parts[i][1]
        if scheme == "IOB1" and tags[i][0] == "B":
            return type == parts[i][1]
        return tags[i][0] in "BS"

    def goes_on(i: int, type: str) -> bool:
        return parts[i][1] == type and parts[i][0] in "IE" and (strict or not opens(i))

    found: list[Span] = []
    for i in range(len(tags)):
        for j in range(i + 1, len(tags) + 1):
            type = parts[i][1]
            begins = opens(i)
            if strict and scheme == "IOB1" and tags[i][0] == "I":
                begins = not (found and found[-1].end == i and found[-1].type == type)
            whole = all(goes_on(k, type) for k in range(i + 1, j))
            ends = j == len(tags) or not goes_on(j, type)
            if strict and scheme == "BIOES":
                kinds = "".join(prefix for prefix, _ in parts[i:j])
                whole = whole and (kinds == "S" or kinds == "B" + "I" * (j - i - 2) + "E")
                ends = True
            if begins and whole and ends and not (found and found[-1].end > i):
                found.append(Span(type, i, j))
    return found


READ = [
    # tags, scheme, lenient, strict
    ("I-P I-P O", "BIO", [("P", 0, 2)], []),
    ("B-P I-L I-L O", "BIO", [("P", 0, 1), ("L", 1, 3)], [("P", 0, 1)]),
    ("B-P B-P I-P", "BIO", [("P", 0, 1), ("P", 1, 3)], [("P", 0, 1), ("P", 1, 3)]),
    ("B-P I-L I-P", "BIO", [("P", 0, 1), ("L", 1, 2), ("P", 2, 3)], [("P", 0, 1)]),
    ("I-P I-P B-P I-L", "IOB1", [("P", 0, 2), ("P", 2, 3), ("L", 3, 4)], None),
    ("O B-P I-P", "IOB1", [("P", 1, 3)], [("P", 2, 3)]),
    ("S-P B-P I-P E-P S-L", "BIOES", [("P", 0, 1), ("P", 1, 4), ("L", 4, 5)], None),
    ("B-P I-P O E-L", "BIOES", [("P", 0, 2), ("L", 3, 4)], []),
    ("B-P B-P E-P E-P", "BIOES", [("P", 0, 1), ("P", 1, 3), ("P", 3, 4)], [("P", 1, 3)]),
    ("B-P E-L", "BIOES", [("P", 0, 1), ("L", 1, 2)], []),
    ("B-creative-work I-creative-work", "BIO", [("creative-work", 0, 2)], None),
    ("B-a-b I-a-c", "BIO", [("a-b", 0, 1), ("a-c", 1, 2)], [("a-b", 0, 1)]),
    ("O O", "BIO", [], []),
    ("", "BIOES", [], []),
]


@pytest.mark.parametrize(("tags", "scheme", "lenient", "strict"), READ)
def test_tags_read_by_hand(
    tags: str, scheme: Scheme, lenient: list[Span], strict: list[Span] | None
) -> None:
    assert read_spans(tags.split(), scheme=scheme, strict=False) == lenient
    expected = lenient if strict is None else strict
    assert read_spans(tags.split(), scheme=scheme, strict=True) == expected


@pytest.mark.parametrize("scheme", SCHEMES)
def test_tags_read_as_the_definitions_say(scheme: Scheme) -> None:
    generator = random.Random(1)
    for _ in range(1000):
        tags = random_tags(generator, scheme)
        for strict in (True, False):
            found = read_spans(tags, scheme=scheme, strict=strict)
            assert found == slow_spans(tags, scheme, strict), (tags, strict)


def test_tags_read_as_seqeval_reads_them() -> None:
    reason = "needs seqeval 1.2.2, whose reading this one should equal"
    scheme = pytest.importorskip("seqeval.scheme", reason=reason)
    labeling = pytest.importorskip("seqeval.metrics.sequence_labeling", reason=reason)
    classes = {"BIO": scheme.IOB2, "IOB1": scheme.IOB1, "BIOES": scheme.IOBES}
    generator = random.Random(2)
    for _ in range(1000):
        for name, its_class in classes.items():
            tags = random_tags(generator, name)
            lenient = read_spans(tags, scheme=name, strict=False)
            assert [(a, b, c + 1) for a, b, c in labeling.get_entities(tags)] == lenient
            # seqeval's IOB1 loses an entity that a B- opened and a B- of another type follows.
            if name == "IOB1" and any(
                a[0] == b[0] == "B" and a != b for a, b in itertools.pairwise(tags)
            ):
                continue
            found = [entity.to_tuple()[1:] for entity in scheme.Tokens(tags, its_class).entities]
            strict = read_spans(tags, scheme=name, strict=True)
            assert found == strict, (name, tags)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_written_is_legal_and_reads_the_same_in_either_way(scheme: Scheme) -> None:
    generator = random.Random(3)
    for _ in range(1000):
        cuts = sorted(generator.sample(range(16), k=2 * generator.randrange(6)))
        # Entities may touch: the next one begins where this one ends.
        spans = [
            Span(generator.choice("PL"), start, generator.choice([end, end + 1]))
            for start, end in zip(cuts[::2], cuts[1::2], strict=True)
        ]
        tags = write_tags(reversed(spans), 17, scheme=scheme)
        assert len(tags) == 17 and not illegal_tags(tags, scheme=scheme)
        assert read_spans(tags, scheme=scheme, strict=False) == spans
        assert read_spans(tags, scheme=scheme, strict=True) == spans
        for other in SCHEMES:
            converted = convert_tags(tags, from_scheme=scheme, to_scheme=other)
            assert converted == write_tags(spans, 17, scheme=other)


ONE_SENTENCE = {
    "BIO": "O B-P I-P B-P B-L I-L I-L O B-L",
    "IOB1": "O I-P I-P B-P I-L I-L I-L O I-L",
    "BIOES": "O B-P E-P S-P B-L I-L E-L O S-L",
    "BILOU": "O B-P L-P U-P B-L I-L L-L O U-L",
}


def test_one_sentence_in_the_four_schemes() -> None:
    for one, tags in ONE_SENTENCE.items():
        for other, expected in ONE_SENTENCE.items():
            converted = convert_tags(tags.split(), from_scheme=one, to_scheme=other)
            assert " ".join(converted) == expected
    illegal = ["I-P", "I-P", "O", "I-L"]
    mended = ["B-P", "I-P", "O", "B-L"]
    assert convert_tags(illegal, from_scheme="BIO", to_scheme="BIO") == mended


def test_what_cannot_be_written_is_refused() -> None:
    one = Span("P", 1, 3)
    with pytest.raises(DataError, match=r"Span\(type='P', start=1, end=3\) and .*'L'.* overlap"):
        write_tags([Span("L", 2, 4), one], 5)
    with pytest.raises(DataError, match="overlap"):
        write_tags([one, one], 5)
    for span in (Span("P", 2, 2), Span("P", -1, 2), Span("P", 4, 6), Span("", 1, 2)):
        with pytest.raises(DataError, match="does not fit a sentence of 5 tokens"):
            write_tags([span], 5)


@pytest.mark.parametrize(
    "tag", ["X-P", "B", "B-", "B- ", "-P", "", "b-P", "BI-P", "P", "E-P", 3, None]
)
def test_a_tag_of_no_scheme_is_refused_with_its_number(tag: str) -> None:
    with pytest.raises(DataError, match=r"tag 3: .* is no tag of BIO\. Write O, or one of B-,"):
        read_spans(["O", "B-P", tag], scheme="BIO", strict=False)


def test_an_unknown_scheme_is_refused() -> None:
    for call in (
        lambda: read_spans([], scheme="IOB2", strict=True),
        lambda: write_tags([], 0, scheme="IOB2"),
        lambda: label_names([], scheme="IOB2"),
    ):
        with pytest.raises(SettingsError, match="'IOB2'; choose one of 'BIO', 'IOB1', 'BIOES'"):
            call()


def test_label_names_do_not_depend_on_the_order_of_the_types() -> None:
    assert label_names(["b", "a", "b"]) == ["O", "B-a", "I-a", "B-b", "I-b"]
    assert label_names({"x"}, scheme="BIOES") == ["O", "B-x", "I-x", "E-x", "S-x"]
    assert label_names({"x"}, scheme="BILOU") == ["O", "B-x", "I-x", "L-x", "U-x"]
    assert label_names(iter("ba")) == label_names("ab")
    assert all(len(label_names("ab", scheme=s)) == 1 + 2 * len(PREFIXES[s]) for s in SCHEMES)


def test_spans_are_sets_of_values() -> None:
    assert len({Span("P", 0, 1), Span("P", 0, 1), Span("L", 0, 1)}) == 2
    with pytest.raises(AttributeError):
        Span("P", 0, 1).start = 2  # type: ignore[misc]
