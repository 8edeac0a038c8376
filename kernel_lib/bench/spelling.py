"""Scores Chinese spelling correction on the public test sets, beside its two floors.

python -m kernel_lib.bench.spelling --data FOLDER [--predictions FOLDER ...]

The data folder holds JSON lines (id, source, target) and ``confusion/``. Predictions are the
``corrections.jsonl`` (id, source, corrected) of a run, for any of the test sets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kernel_lib.bench.spelling_floors import NgramCorrector, choose_margin
from kernel_lib.errors import DataError
from kernel_lib.metrics.spelling import spelling_scores
from kernel_lib.runtime.command import exit_status
from kernel_lib.text.confusion import ConfusionSet
from kernel_lib.text.sentences import read_sentences

TESTS = ("sighan15_test", "ecspell_law_test", "ecspell_med_test", "ecspell_odw_test")
TRAINING = (
    "*_train.jsonl",
    "wang271k_sample*.jsonl",
    "macro_gen_*.jsonl",
    "macro_faspell_dev.jsonl",
)
CONFUSIONS = ("same_pinyin.txt", "same_stroke.txt")
PREDICTIONS = "corrections.jsonl"
NOTHING, NGRAMS = "do nothing", "n-gram floor"
HEADER = (
    "test set",
    "way",
    "sentences",
    "with errors",
    "strict detection F1",
    "strict correction F1",
    "official correction F1",
    "false positive rate",
)


@dataclass(frozen=True)
class TestSet:
    """A test set and what each way made of it.

    Attributes:
        name: of its file.
        frame: ``id, source, target`` and ``seen``: whether the target is one of training.
        corrected: for each way the corrected sentences, in the frame's order.
        margin: of the n-gram floor, chosen on training sentences of the same kind.
    """

    __test__ = False  # nothing for pytest

    name: str
    frame: pd.DataFrame
    corrected: Mapping[str, Sequence[str]]
    margin: float


def read_training(folder: Path) -> dict[str, pd.DataFrame]:
    """Every training file of the folder by its name; test sets and files that hold them are none.

    Raises:
        DataError: there is none, or one cannot be read.
    """
    paths = sorted({path for pattern in TRAINING for path in folder.glob(pattern)})
    if not paths:
        raise DataError(f"{folder} holds no training file ({', '.join(TRAINING)}).")
    return {path.stem: read_sentences(path, needs_target=True) for path in paths}


def measure(data: Path, predictions: Sequence[Path] = ()) -> list[TestSet]:
    """Corrects every test set of the folder with both floors, and reads what runs made of it.

    Args:
        data: folder of the files; ``confusion/`` in it.
        predictions: folders with a ``corrections.jsonl``.

    Raises:
        DataError: a file is missing or wrong, or predictions do not fit a test set.
    """
    training = read_training(data)
    confusions = ConfusionSet.read([data / "confusion" / name for name in CONFUSIONS]).table
    targets = [text for frame in training.values() for text in frame["target"]]
    known, corrector = set(targets), NgramCorrector(targets, confusions)
    runs = {
        str(folder): read_sentences(
            folder / PREDICTIONS, target_column="corrected", needs_target=True
        )
        for folder in predictions
    }
    found = []
    for name in TESTS:
        if not (data / f"{name}.jsonl").exists():
            continue
        frame = read_sentences(data / f"{name}.jsonl", needs_target=True)
        sources = frame["source"].tolist()
        kind = name.replace("_test", "_train")
        own = [training[kind]] if kind in training else list(training.values())
        rest = [other for other in training.values() if not any(other is each for each in own)]
        margin = choose_margin(
            [text for each in own for text in each["source"]],
            [text for each in own for text in each["target"]],
            [text for each in rest for text in each["target"]],
            confusions,
        )
        corrected: dict[str, Sequence[str]] = {
            NOTHING: sources,
            NGRAMS: corrector.correct(sources, margin),
        }
        for run, lines in runs.items():
            fitting = _matched(lines, frame, where=f"{run}/{PREDICTIONS}", name=name)
            if fitting is not None:
                corrected[run] = fitting
        found.append(
            TestSet(name, frame.assign(seen=frame["target"].isin(known)), corrected, margin)
        )
    for run in runs:
        if found and not any(run in each.corrected for each in found):
            raise DataError(f"{run}/{PREDICTIONS} has no sentence of any test set: other ids?")
    if not found:
        raise DataError(f"{data} holds no test set ({', '.join(TESTS)}; .jsonl).")
    return found


def table(sets: Sequence[TestSet]) -> str:
    """Two tables: all sentences, and those whose right form is no training sentence."""
    parts = ["All sentences:", "", _scores(sets, unseen=False), ""]
    parts += ["Without the sentences whose target is also one of training:", ""]
    parts += [_scores(sets, unseen=True), ""]
    margins = ", ".join(f"{each.name} {each.margin:g}" for each in sets)
    parts += [f"The n-gram floor's margin, chosen on held-out training sentences: {margins}."]
    return "\n".join(parts)


def _scores(sets: Sequence[TestSet], *, unseen: bool) -> str:
    rows: list[tuple[str | int | float, ...]] = []
    for each in sets:
        keep = ~each.frame["seen"] if unseen else each.frame["seen"].notna()
        kept = each.frame[keep]
        for way, corrected in each.corrected.items():
            if kept.empty:
                rows.append((each.name, way, 0, 0, *[float("nan")] * 4))
                continue
            chosen = [text for text, stays in zip(corrected, keep, strict=True) if stays]
            scores = spelling_scores(kept["source"].tolist(), kept["target"].tolist(), chosen)
            rates = (
                scores.strict_detection.f1,
                scores.strict_correction.f1,
                scores.official_correction.f1,
                scores.fpr,
            )
            rows.append((each.name, way, len(kept), scores.positives, *rates))
    return pd.DataFrame(rows, columns=list(HEADER)).to_string(
        index=False, float_format="{:.4f}".format, na_rep="-"
    )


def _matched(
    lines: pd.DataFrame, frame: pd.DataFrame, *, where: str, name: str
) -> list[str] | None:
    """A run's corrected sentences in the test set's order; None where it has none of them."""
    by_id = lines.set_index("id")
    ids = frame["id"]
    if by_id.index.str.startswith(f"{name}/").any():  # as a run names those of several files
        ids = f"{name}/" + ids
    missing = [each for each in ids if each not in by_id.index]
    if len(missing) == len(frame):
        return None
    if missing:
        raise DataError(
            f"{where} has {len(frame) - len(missing)} of the {len(frame)} sentences of {name}; "
            f"the first that is missing: {missing[0]!r}. Predict all of them."
        )
    ordered = by_id.loc[ids]
    for number, source, given in zip(ids, frame["source"], ordered["source"], strict=True):
        if source != given:
            raise DataError(
                f"{where}, id {number!r}: its source is {given!r}, in {name} it is {source!r}. "
                "Predict the file as it is."
            )
    return ordered["corrected"].tolist()


def main() -> int:
    """Command line; returns the exit status."""
    about = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m kernel_lib.bench.spelling", description=about)
    parser.add_argument("--data", type=Path, required=True, help="folder of the JSON lines")
    parser.add_argument(
        "--predictions", type=Path, nargs="*", default=[], help=f"folders with {PREDICTIONS}"
    )
    options = parser.parse_args()
    return exit_status(lambda: print(table(measure(options.data, options.predictions))))


if __name__ == "__main__":
    sys.exit(main())
