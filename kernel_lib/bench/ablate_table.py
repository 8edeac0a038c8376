"""The results of ``make ablate`` as a record and as markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kernel_lib.bench.ablate_differences import RESAMPLES, Comparison, compare_all
from kernel_lib.bench.ablate_errors import (
    ALIKE,
    HELPS,
    HURTS,
    NOTHING,
    OPTIMISTIC,
    UNDECIDED,
)
from kernel_lib.bench.ablate_runs import Trained
from kernel_lib.bench.ablate_techniques import BASE, Technique

ORDER = (HELPS, NOTHING, UNDECIDED, HURTS, OPTIMISTIC)
HEADER = ("technique", "what it is", "difference", "pairs", "time", "memory", "verdict")


def make_record(
    techniques: Sequence[Technique],
    runs: Mapping[str, Sequence[Trained]],
    failures: Mapping[str, str],
    *,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """All that the finished runs say, ready for JSON.

    Args:
        techniques: in the order of the list, without the base.
        runs: the finished ones of the base and of each technique.
        failures: why a technique has none, or not all.
        resamples: of the bootstrap.

    Raises:
        ArtifactError: runs of the same seed and fold were not scored on the same rows.
    """
    base = list(runs.get(BASE, ()))
    optimistic = [t.name for t in techniques if t.is_optimistic]
    others = {t.name: runs.get(t.name, ()) for t in techniques}
    found = compare_all(others, base, optimistic=optimistic, resamples=resamples)
    rivals: dict[str, tuple[str, Comparison]] = {}
    for technique in techniques:
        rival, own = runs.get(technique.rival, ()), runs.get(technique.name, ())
        if rival and own:
            selects = (
                [technique.name] if {technique.name, technique.rival} & set(optimistic) else []
            )
            compared = compare_all(
                {technique.name: own},
                rival,
                plain=base,
                optimistic=selects,
                resamples=resamples,
            )
            rivals |= {name: (technique.rival, each) for name, each in compared.items()}
    return {
        "base": {
            "runs": [_about_run(run) for run in base],
            "score": _mean([run.score for run in base]),
            "seconds": _mean([run.seconds for run in base]),
            "peak_bytes": _mean([run.peak_bytes for run in base if run.peak_bytes is not None]),
            "rows": sorted({len(run.ids) for run in base}),
            "settings": base[0].record["settings"] if base else {},
            "versions": base[0].record["versions"] if base else {},
            "machine": base[0].record["machine"] if base else {},
            "kernel_lib": sorted({r.record["kernel_lib"] for rs in runs.values() for r in rs}),
        },
        "techniques": [
            {
                "name": technique.name,
                "about": technique.about,
                "settings": dict(technique.settings),
                "failure": failures.get(technique.name),
                "runs": [_about_run(run) for run in runs.get(technique.name, ())],
                **(dataclasses.asdict(found[technique.name]) if technique.name in found else {}),
            }
            for technique in techniques
        ],
        "rivals": [
            {"name": name, "rival": rival, **dataclasses.asdict(each)}
            for name, (rival, each) in rivals.items()
        ],
    }


def markdown(record: dict[str, Any]) -> str:
    """The record as tables for the README: techniques by verdict, the best first in each."""
    base = record["base"]
    if not base["runs"]:
        failed = _failures(record)
        return "\n\n".join(["No run of the base is finished yet.", *([failed] if failed else [])])
    parts = [_about_base(base), _table(HEADER, [_row(each) for each in sorted_by_verdict(record)])]
    if record["rivals"]:
        header = ("technique", "against", "difference", "pairs", "time", "verdict")
        rows = [
            (
                *(each["name"], each["rival"], _signed(each), str(len(each["pairs"]))),
                *(f"{each['time']:.2f}x", _verdict(each)),
            )
            for each in record["rivals"]
        ]
        parts += ["Against a rival that spends its time otherwise:", _table(header, rows)]
    failed = _failures(record)
    parts += [failed] if failed else []
    return "\n\n".join([*parts, _footnote(record)])


def sorted_by_verdict(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The techniques that were compared, those that help first."""
    compared = [each for each in record["techniques"] if "verdict" in each]
    return sorted(compared, key=lambda each: (ORDER.index(each["verdict"]), each["difference"]))


def about_machine(base: dict[str, Any]) -> str:
    """One line: what it was measured on, and with which versions."""
    machine, versions = base["machine"], base["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers"))
    cores = f"{machine.get('threads')} thread{'s' * (machine.get('threads') != 1)}"
    where = machine.get("gpu") or f"{cores} of {machine.get('cpu')}"
    return f"{where}; {named}; kernel_lib {', '.join(base['kernel_lib'])}"


def _about_base(base: dict[str, Any]) -> str:
    seeds = sorted({run["seed"] for run in base["runs"]})
    folds = sorted({run["fold"] for run in base["runs"]})
    memory = f", {base['peak_bytes'] / 1e9:.2f} GB" if base["peak_bytes"] else ""
    return (
        f"{about_machine(base)}. The base: MCRMSE {base['score']:.4f}, {base['seconds']:.0f} s"
        f"{memory} a run, {' or '.join(map(str, base['rows']))} rows held out; "
        f"seeds {', '.join(map(str, seeds))}, folds {', '.join(map(str, folds))}."
    )


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    memory = "-" if each["memory"] is None else f"{each['memory']:.2f}x"
    return (
        *(each["name"], each["about"], _signed(each), str(len(each["pairs"]))),
        *(f"{each['time']:.2f}x", memory, _verdict(each)),
    )


def _signed(each: dict[str, Any]) -> str:
    return f"{each['difference']:+.4f} ± {each['error']:.4f}"


def _verdict(each: dict[str, Any]) -> str:
    if each["verdict"] == OPTIMISTIC:
        return "no evidence: chosen on the fold it reports"
    bold = each["verdict"] in (HELPS, HURTS)
    return f"**{each['verdict']}**" if bold else each["verdict"]


def _failures(record: dict[str, Any]) -> str:
    found = [each for each in record["techniques"] if each["failure"]]
    lines = [f"- {each['name']} ({each['about']}): {each['failure']}" for each in found]
    return "\n".join(["Not measured, or not in full:", "", *lines]) if lines else ""


def _footnote(record: dict[str, Any]) -> str:
    compared = [each for each in record["techniques"] if "verdict" in each]
    judged = [each for each in compared if each["verdict"] != OPTIMISTIC and each["degrees"]]
    return (
        "Difference: mean over pairs (a run of the technique, one of the base, same seed, fold and "
        "rows) of the MCRMSE's; negative is better. After ±: its standard error, from the rows "
        f"(paired bootstrap) and the training noise (known from: {_sources(compared)}). Helps, "
        "hurts: the 95 % interval does not hold 0; does nothing: it lies within "
        f"{ALIKE} of 0. {_widths(judged)}Of {len(judged)} techniques without any effect, about "
        f"{0.05 * len(judged):.1f} at most would pass for helping or hurting."
    )


def _sources(compared: Sequence[dict[str, Any]]) -> str:
    """What the noise is known from, and how well."""
    degrees: dict[str, list[float]] = {}
    for each in compared:
        degrees.setdefault(each["noise_from"], []).append(each["degrees"])
    named = []
    for source, found in sorted(degrees.items()):
        low, high = f"{min(found):.3g}", f"{max(found):.3g}"
        span = low if low == high else f"{low} to {high}"
        unit = "degree" if span == "1" else "degrees"
        named.append(f"{source}, {span} {unit} of freedom" if max(found) else source)
    return "; ".join(named) or "nothing yet"


def _widths(judged: Sequence[dict[str, Any]]) -> str:
    """How many standard errors wide the intervals are."""
    if not judged:
        return ""
    low, high = (f"{bound(each['quantile'] for each in judged):.1f}" for bound in (min, max))
    span = low if low == high else f"{low} to {high}"
    return (
        f"The fewer degrees of freedom, the wider the interval: here {span} standard errors on "
        "either side. "
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _about_run(run: Trained) -> dict[str, Any]:
    return {
        "seed": run.seed,
        "fold": run.fold,
        "score": run.score,
        "seconds": run.seconds,
        "peak_bytes": run.peak_bytes,
        "precision": run.record["precision"],
        "run_id": run.record["run_id"],
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
