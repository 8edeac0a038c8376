"""The results as Markdown, for a terminal and the README."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from kernel_lib.bench.cells import PASSES, Cell
from kernel_lib.bench.ways import FAST, REFERENCE, STOCK
from kernel_lib.runtime.clock import format_seconds

NOTHING = "-"
PHASES_SHOWN = ("training", "training_fgm", "inference")
NOTES = {
    "reference": "the public FB3 notebook: random batches of {batch_size}, padded to {cap} tokens "
    "(in training to the longest of the batch), transformers' attention, evaluation in float32, "
    "FGM with the whole embedding table cloned and written. Its autocast is CUDA's: on a CPU "
    "it trains in float32.",
    "memory kept": "the C library's allocator keeps freed blocks, as this kit tells it to; "
    "otherwise as it comes.",
    "this kit": "batches of like length, as many rows as fit into {batch_size} x {cap} padded "
    "tokens in training; "
    "autocast in training and inference; FGM on the used rows only; its own exact attention.",
    "Hugging Face Trainer": "batches as group_by_length makes them, bf16 in training and "
    "prediction, dynamic padding, fused AdamW, texts sorted by hand for prediction. It has no FGM.",
}


def markdown(results: dict[str, Any]) -> str:
    """All tables, with the machine, the date and what each row is."""
    parts = ["# Speed, side by side", "", *_about(results), ""]
    for part in results["end_to_end"]:
        parts += [f"## Texts of real lengths: {part['job']}", "", *_sizes(part, results), ""]
        parts += [*_end_to_end(part, results["limits"]), ""]
    parts += [*(f"- **{name}**: {note}" for name, note in _notes(results).items()), ""]
    parts += ["## The encoder alone, all rows of one length", "", *_cells(results), ""]
    parts += ["## Inference in every precision", "", *_precisions(results["precisions"]), ""]
    parts += ["## Inference on ever more texts", "", *_growth(results), ""]
    return "\n".join(parts)


def rows_of(cells: list[Any]) -> list[tuple[dict[str, Any], str, str]]:
    """Each length, pass and precision that was measured: the cell's record and both names."""
    found = []
    for record in cells:
        if isinstance(record, str):
            continue
        names = [name.split(" ") for name in record["seconds"]]
        precisions = list(dict.fromkeys(precision for _, precision, _ in names))
        found += [(record, passes, precision) for passes in PASSES for precision in precisions]
    return found


def best_seconds(record: dict[str, Any], attention: str, precision: str, passes: str) -> Any:
    """A cell's quickest time; None where there is none, or what kept it from running."""
    seconds = record["seconds"].get(Cell(attention, precision, passes).name)
    return min(seconds) if isinstance(seconds, list) else seconds


def share_of_limit(phase: dict[str, Any], limit: float | None, key: str) -> float | None:
    """A phase's arithmetic (``flops_needed`` or ``flops_done``) over what the limit allows."""
    return None if not limit else phase[key] / phase["seconds"] / limit


def measured_on(results: dict[str, Any]) -> str:
    """The machine, the versions and the day, in a line."""
    machine, made = results["machine"], datetime.datetime.fromisoformat(results["made"])
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] > 1)}"
    where = f"{threads} of {' with '.join([machine['cpu'], *machine['bf16'][:1]])}"
    where = f"{machine['gpu']}, {where}" if machine["gpu"] else f"{where}, no GPU"
    known = [f"{name} {results['versions'][name]}" for name in ("torch", "transformers")]
    return f"{where}; {', '.join(known)}; {made.day} {made:%B %Y}"


def _about(results: dict[str, Any]) -> list[str]:
    rates = " and ".join(
        f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in results["limits"].items()
    )
    shape = " x ".join(map(str, results["limit_shape"]))
    rounds, load = results["settings"]["rounds"], results["machine"]["load_before"]
    return [
        f"{measured_on(results)}. One run of {format_seconds(results['seconds'])}, the ways in "
        f"turn, the best of {rounds} rounds. Load before: {load:.1f}.",
        "",
        f"The limit: a matrix product of {shape} ran at {rates}.",
    ]


def _sizes(part: dict[str, Any], results: dict[str, Any]) -> list[str]:
    settings = results["settings"]
    return [
        f"{part['source']}, cut at {settings['cap']} tokens. Tokens are counted without padding. "
        "Share of the limit: of what tokens need, and in brackets with the padding; each against "
        "its own precision. Memory and share in training are those with FGM, where there is one."
    ]


def _end_to_end(part: dict[str, Any], limits: dict[str, float]) -> list[str]:
    ways = part["ways"]
    base: dict[str, Any] = next((way for way in ways.values() if way["method"] == REFERENCE), {})
    header = (
        "way",
        "training, tokens/s",
        "training with FGM, tokens/s",
        "inference, tokens/s",
        "peak memory in training, GB",
        "in inference, GB",
        "of the limit in training",
        "in inference",
    )
    rows = []
    for way in ways.values():
        name = f"**{way['label']}**" if way["name"] == "kit" else way["label"]
        if "error" in way:
            rows.append([name, way["error"], *[NOTHING] * 6])
            continue
        training = way["training_fgm"] or way["training"]
        limit = [limits.get(way[f"{phase}_precision"]) for phase in ("training", "inference")]
        rows.append(
            [
                name,
                *(_rate(way[phase], base.get(phase)) for phase in PHASES_SHOWN),
                _gigabytes(training["peak_bytes"]),
                _gigabytes(way["inference"]["peak_bytes"]),
                _shares(training, limit[0]),
                _shares(way["inference"], limit[1]),
            ]
        )
    return _table(header, rows)


def _rate(phase: dict[str, Any] | None, base: dict[str, Any] | None) -> str:
    if phase is None:
        return "has none"
    rate = f"{phase['tokens_per_second']:,.0f}"
    return (
        f"{rate} ({_times(phase['tokens_per_second'], base['tokens_per_second'])})"
        if base
        else rate
    )


def _shares(phase: dict[str, Any], limit: float | None) -> str:
    needed, done = (share_of_limit(phase, limit, key) for key in ("flops_needed", "flops_done"))
    return NOTHING if needed is None or done is None else f"{needed:.0%} ({done:.0%})"


def _cells(results: dict[str, Any]) -> list[str]:
    found = rows_of(results["cells"])
    attentions = [STOCK, FAST]
    others = {name.split(" ")[0] for record, *_ in found for name in record["seconds"]}
    attentions += sorted(others - set(attentions))
    header = ["tokens", "rows", "pass", "precision"]
    header += [f"{attention}, ms a layer" for attention in attentions]
    header += ["fast is quicker", "fast, of the limit"]
    lines, gains = [], []
    for record, passes, precision in found:
        seconds = {a: best_seconds(record, a, precision, passes) for a in attentions}
        fast, stock = seconds[FAST], seconds[STOCK]
        both = isinstance(fast, float) and isinstance(stock, float)
        flops = record["flops"] * (3 if passes == PASSES[1] else 1)
        gains += [stock / fast] if both else []
        limit = results["limits"].get(precision)
        known = isinstance(fast, float) and limit
        lines.append(
            [
                str(record["length"]),
                str(record["rows"]),
                passes.replace("_", " + "),
                precision,
                *(_milliseconds(seconds[a], record["layers"]) for a in attentions),
                _times(stock, fast) if both else NOTHING,
                f"{flops / fast / limit:.0%}" if known else NOTHING,
            ]
        )
    failures = [f"- not measured: {each}" for each in results["cells"] if isinstance(each, str)]
    least = [f"The least gain of all cells: {min(gains):.2f}x."] if gains else []
    return [*_table(header, lines), "", *failures, *least]


def _precisions(found: dict[str, Any] | str) -> list[str]:
    if isinstance(found, str):
        return [f"Not measured: {found}"]
    variants = found["variants"]
    base: dict[str, Any] = next(iter(variants.values()))
    header = ["precision", "tokens/s", "largest change of a prediction", "mean change"]
    scored = base["score"] is not None
    header += ["score", "change of the score"] if scored else []
    rows = []
    for name, variant in variants.items():
        rate = found["tokens"] / variant["seconds"]
        row = [name, f"{rate:,.0f} ({_times(base['seconds'], variant['seconds'])})"]
        row += [f"{variant['largest']:.2g}", f"{variant['mean']:.2g}"]
        if scored:
            row += [f"{variant['score']:.5f}", f"{variant['score'] - base['score']:+.5f}"]
        rows.append(row)
    about = (
        f"{found['name']}: {found['rows']} texts, the same in all rows. Changes are against the "
        f"first row; the predictions' own deviation is {found['deviation']:.2g}."
    )
    return [about, "", *_table(header, rows)]


def _growth(results: dict[str, Any]) -> list[str]:
    rows = []
    for each in results["growth"]:
        if isinstance(each, str):
            rows.append([NOTHING, f"not measured: {each}", *[NOTHING] * 3])
            continue
        peak = each["peak_bytes"]
        rows.append(
            [
                f"{each['rows']:,}",
                f"{each['seconds']:.2f}",
                f"{1000 * each['seconds'] / each['rows']:.3f}",
                f"{each['data_bytes'] / 1e6:,.1f}",
                NOTHING if peak is None else f"{peak / 1e6:,.1f}",
            ]
        )
    divisor = results["settings"]["growth_divisor"]
    about = (
        f"A tiny encoder with random weights, texts {divisor} times shorter than FB3's: what grows "
        "here is not the model's."
    )
    header = (
        "texts",
        "seconds",
        "seconds a 1,000",
        "texts themselves, MB",
        "peak memory beyond, MB",
    )
    return [about, "", *_table(header, rows)]


def _notes(results: dict[str, Any]) -> dict[str, str]:
    labels = [way["label"] for part in results["end_to_end"] for way in part["ways"].values()]
    return {
        name: text.format(**results["settings"])
        for name, text in NOTES.items()
        if any(name in label for label in labels)
    }


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown whose columns also line up in a terminal; numbers stand at the right."""
    widths = [max(len(row[at]) for row in (header, *rows)) for at in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join((first, *others))} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [line(header), line(rule), *map(line, rows)]


def _times(slow: float, quick: float) -> str:
    return f"{slow / quick:.2f}x"


def _milliseconds(seconds: float | str | None, layers: int) -> str:
    if seconds is None:
        return NOTHING
    return seconds if isinstance(seconds, str) else f"{1000 * seconds / layers:,.1f}"


def _gigabytes(size: int | None) -> str:
    return NOTHING if size is None else f"{size / 1e9:.2f}"
