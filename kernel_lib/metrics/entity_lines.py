"""Entity scores and confused types as lines of text for a notebook."""

from __future__ import annotations

from kernel_lib.metrics.entities import EntityScores
from kernel_lib.metrics.entity_definitions import DefinitionScores, EntityScore
from kernel_lib.metrics.entity_errors import TypeConfusion

COLUMNS = ("P", "R", "F1", "correct", "predicted", "gold")
PARTIAL = {
    "strict": "type and boundaries",
    "exact": "boundaries, whatever type",
    "partial": "boundaries, an overlap half",
    "ent_type": "type, any overlap",
}
MICRO, MACRO = "micro (all entities)", "macro (mean of types)"


def format_lines(scores: EntityScores) -> str:
    """The scores as an aligned table.

    First the strict ones by type, then the other definitions over all types.

    Args:
        scores: of :func:`kernel_lib.metrics.entities.entity_scores`.

    Returns:
        Lines joined by line breaks, to be printed.
    """
    rows: list[tuple[str, str]] = [("Strict", "".join(f"{name:>10}" for name in COLUMNS))]
    rows += [(f"  {type}", _cells(score)) for type, score in scores.strict.by_type.items()]
    rows += _summary(scores.strict)
    rows += [("Lenient (conlleval, seqeval's default)", ""), *_summary(scores.lenient)]
    rows += [("Partial matches (nervaluate)", "")]
    rows += [
        (f"  {name}: {PARTIAL[name]}", _cells(score)) for name, score in scores.partial.items()
    ]
    if scores.course is not None:
        rows += [("As the reference log counts (surfaces)", ""), *_summary(scores.course)]
    width = max(len(label) for label, _ in rows) + 1
    lines = [f"{label:<{width}}{cells}".rstrip() for label, cells in rows]
    lines += [
        f"{scores.sentences:,} sentences; {scores.right_tokens:,} of {scores.tokens:,} tags are "
        f"right ({scores.token_accuracy:.4f}).",
        f"Tags that cannot stand in {scores.scheme}: {scores.illegal_predicted:,} predicted, "
        f"{scores.illegal_gold:,} gold.",
    ]
    return "\n".join(lines)


def format_confusion(confusion: TypeConfusion) -> str:
    """Which type was predicted for which, a row for each gold type.

    Args:
        confusion: of :func:`kernel_lib.metrics.entity_errors.type_confusion`.

    Returns:
        Lines joined by line breaks, to be printed.
    """
    heads = ["gold \\ predicted", *confusion.types, "(missed)", "boundary"]
    rows = [heads]
    for number, type in enumerate(confusion.types):
        rows.append([type, *map(str, confusion.counts[number]), str(confusion.boundary[number])])
    rows.append(["(spurious)", *map(str, confusion.counts[-1, :-1]), "", ""])
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(len(heads))]
    lines = [
        "".join(
            f"{cell:>{width}}" if column else f"{cell:<{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "boundary: of those of the right type, with a wrong start or end."])


def _summary(scores: DefinitionScores) -> list[tuple[str, str]]:
    means = (scores.macro_precision, scores.macro_recall, scores.macro_f1)
    return [
        (f"  {MICRO}", _cells(scores.micro)),
        (f"  {MACRO}", "".join(f"{mean:>10.4f}" for mean in means)),
    ]


def _cells(score: EntityScore) -> str:
    figures = "".join(f"{x:>10.4f}" for x in (score.precision, score.recall, score.f1))
    counts = (f"{x:,.1f}".removesuffix(".0") for x in (score.correct, score.predicted, score.gold))
    return figures + "".join(f"{count:>10}" for count in counts)
