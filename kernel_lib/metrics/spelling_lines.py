"""Spelling scores as lines of text for a notebook."""

from __future__ import annotations

from kernel_lib.metrics.spelling import SpellingScores

# Heading of a block, then the label and the field of each line.
BLOCKS = (
    (
        "As the reference log prints them",
        (
            ("Character-level Detect (C-log)", "character_detection"),
            ("Character-level Correct (C-log)", "character_correction_log"),
            ("Sentence-level Detect (S-official)", "official_detection"),
            ("Sentence-level Correct (S-official)", "official_correction"),
        ),
    ),
    (
        "Strict, as papers print them",
        (
            ("Sentence-level Detect (S-strict)", "strict_detection"),
            ("Sentence-level Correct (S-strict)", "strict_correction"),
        ),
    ),
    (
        "Other definitions",
        (
            ("Sentence-level Detect (S-loose)", "loose_detection"),
            ("Sentence-level Correct (official tool, bug for bug)", "official_tool_correction"),
            ("SIGHAN 13 sub-task 1, location (S-2013)", "sighan13_location"),
            ("SIGHAN 13 sub-task 2, location (S-2013)", "sighan13_second_location"),
            ("SIGHAN 13 sub-task 2, correction (S-2013)", "sighan13_second_correction"),
            ("Character-level Correct (C-all)", "character_correction_all"),
            ("Character-level Correct (C-detected)", "character_correction_detected"),
            ("Character-level Correct (C-Wang2019)", "character_correction_wang"),
        ),
    ),
)
PARTICLES = {
    "as they are": "as they are",
    "drop_predicted": "changes into 地 or 得 taken back",
    "give_gold": "set right before counting",
}
WIDTH = max(len(label) for _, lines in BLOCKS for label, _ in lines) + 2


def format_lines(scores: SpellingScores) -> str:
    """The scores as an aligned table, one definition a line.

    First the four lines of the reference log, then the strict ones, then the rest. The false
    positive rate stands on every line, because no other column shows the clean sentences that
    were changed as a share of all clean ones. A dash stands where a definition has no accuracy,
    and for the rate where no sentence is clean.

    Args:
        scores: of :func:`kernel_lib.metrics.spelling.spelling_scores`.

    Returns:
        Lines joined by line breaks, to be printed.
    """
    columns = "".join(f"{name:>8}" for name in ("Acc", "P", "R", "F1", "FPR"))
    lines: list[str] = []
    clean = scores.sentences - scores.positives
    fpr = scores.fpr if clean else None
    for heading, block in BLOCKS:
        lines.append(f"{heading:<{WIDTH}}{columns}" if not lines else heading)
        for label, field in block:
            score = getattr(scores, field)
            figures = (score.accuracy, score.precision, score.recall, score.f1, fpr)
            cells = "".join(f"{'-' if x is None else f'{x:.4f}':>8}" for x in figures)
            lines.append(f"  {label:<{WIDTH - 2}}{cells}")
    lines += [
        f"{scores.sentences:,} sentences, {scores.positives:,} with errors; "
        f"{scores.characters:,} characters, {scores.wrong_characters:,} wrong.",
        f"FPR: {scores.clean_changed:,} of {clean:,} clean sentences were changed.",
        f"Particles 的, 地, 得: {PARTICLES[scores.particles]}.",
    ]
    return "\n".join(lines)
