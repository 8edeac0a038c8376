"""The benchmark measures what it says: every part is there, and the ways differ as they claim."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kernel_lib.artifacts import open_run
from kernel_lib.bench import __main__ as command
from kernel_lib.bench import cells, end_to_end, hf_trainer
from kernel_lib.bench import ways as ways_module
from kernel_lib.bench.cells import measure_length
from kernel_lib.bench.end_to_end import PHASES, measure_way, summarised
from kernel_lib.bench.essays import fb3_lengths, made_up, pretrained_job, shaped_job
from kernel_lib.bench.meters import Watch, batch_flops
from kernel_lib.bench.models import build_model, random_encoder
from kernel_lib.bench.plot import plot_results
from kernel_lib.bench.precisions import measure_precisions, quantise
from kernel_lib.bench.processes import run_apart
from kernel_lib.bench.reference import WholeTableFGM
from kernel_lib.bench.run import PLOT, RESULTS, TABLE, run_bench
from kernel_lib.bench.runner import in_batches, largest, representative
from kernel_lib.bench.settings import BenchSettings, Shape, for_device
from kernel_lib.bench.table import markdown
from kernel_lib.bench.ways import all_ways
from kernel_lib.errors import DataError, SettingsError, TrainingError
from kernel_lib.runtime.device import Precision, pick_precision
from kernel_lib.runtime.files import read_json
from tests.conftest import ROOT, Material

CPU = torch.device("cpu")
HALF = pick_precision("auto", CPU).name
HAS_TRAINER = importlib.util.find_spec("accelerate") is not None
TINY = BenchSettings(
    shape=Shape(hidden=32, heads=2, layers=1, vocabulary=600, buckets=16),
    cap=64,
    divisor=8,
    batch_size=4,
    eval_batch_size=8,
    rounds=1,
    limit_repeats=1,
    lengths=(16, 32),
    cell_tokens=64,
    cell_rounds=2,
    precision_rows=8,
    run_rows=10,
    growth_rows=(20, 40),
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A whole run, written to the folder that its settings name."""
    out = tmp_path_factory.mktemp("bench") / "out"
    return run_bench(dataclasses.replace(TINY, out=str(out)))


def ways_of(results: dict[str, Any]) -> dict[str, Any]:
    return results["end_to_end"][0]["ways"]


def seen(results: dict[str, Any], way: str, phase: str) -> dict[str, Any]:
    return ways_of(results)[way]["seen"][phase]


def widths(results: dict[str, Any], way: str, phase: str) -> set[int]:
    return {width for _, width in seen(results, way, phase)["batches"]}


# A whole run


def test_every_way_is_measured_in_every_phase(results) -> None:
    ways = ways_of(results)
    expected = {"reference", "reference_kept", "kit_stock", "kit", "trainer", "trainer_kept"}
    expected |= {"reference_half", "kit_float32"} if HALF != "float32" else set()
    assert set(ways) == expected
    for name, way in ways.items():
        if way["method"] == "trainer" and not HAS_TRAINER:
            assert "accelerate" in way["error"]
            continue
        for phase in PHASES:
            if phase == "training_fgm" and way["method"] == "trainer":
                assert way[phase] is None
                continue
            found = way[phase]
            assert len(found["all_seconds"]) == TINY.rounds, name
            assert found["seconds"] == min(found["all_seconds"]) > 0
            assert found["positions"] >= found["tokens"] > 0
            assert found["flops_done"] >= found["flops_needed"] > 0
            assert found["peak_bytes"] is None or found["peak_bytes"] > 0


def test_every_cell_precision_and_size_is_measured(results) -> None:
    assert [cell["length"] for cell in results["cells"]] == [16, 32]
    precisions = dict.fromkeys(("float32", HALF))
    for cell in results["cells"]:
        assert cell["rows"] * cell["length"] == TINY.cell_tokens
        assert set(cell["seconds"]) == {
            f"{attention} {precision} {passes}"
            for attention in ("stock", "fast")
            for precision in precisions
            for passes in ("forward", "forward_backward")
        }
        assert all(len(seconds) == TINY.cell_rounds for seconds in cell["seconds"].values())
    variants = results["precisions"]["variants"]
    assert {name.split(",")[0] for name in variants} == {*precisions, "int8 weights"}
    assert [each["rows"] for each in results["growth"]] == [20, 40]
    assert set(results["limits"]) == set(precisions)
    assert all(rate > 1e9 for rate in results["limits"].values())


def test_what_is_written_can_be_read(results) -> None:
    folder = Path(results["settings"]["out"])
    written = read_json(folder / RESULTS)
    assert written["end_to_end"][0]["ways"].keys() == ways_of(results).keys()
    assert {"machine", "versions", "made", "seconds", "settings"} <= written.keys()
    assert written["versions"]["torch"] == torch.__version__
    picture = (folder / PLOT).read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
    table = (folder / TABLE).read_text(encoding="utf-8")
    assert table == markdown(results) == markdown(written)
    for way in ways_of(results).values():
        assert way["label"] in table
    for word in ("tokens/s", "peak memory", "of the limit", "fast is quicker", "int8", "a 1,000"):
        assert word in table


def test_all_tables_are_well_formed(results) -> None:
    blocks = [block for block in markdown(results).split("\n\n") if block.startswith("|")]
    assert len(blocks) == 4
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_the_quickest_round_counts_and_the_largest_peak(results) -> None:
    way = ways_of(results)["kit"]
    slow = {**way, "training": {**way["training"], "seconds": 1e3, "peak_bytes": 10**12}}
    quick = {**way, "training": {**way["training"], "seconds": 0.5, "peak_bytes": 10**9}}
    found = summarised([slow, quick])["training"]
    assert found["all_seconds"] == [1e3, 0.5] and found["seconds"] == 0.5
    assert found["tokens_per_second"] == 2 * way["training"]["tokens"]
    assert found["peak_bytes"] == 10**12


def test_gains_and_shares_are_reckoned_the_right_way_round(results) -> None:
    made = copy.deepcopy(results)
    reference, kit = ways_of(made)["reference"], ways_of(made)["kit"]
    for way, rate in ((reference, 1000.0), (kit, 3500.0)):
        way["inference"]["tokens_per_second"] = rate
    kit["inference"] |= {"seconds": 2.0, "flops_needed": 50e9, "flops_done": 55e9}
    made["limits"] = dict.fromkeys(made["limits"], 100e9)
    for cell in made["cells"]:
        cell["seconds"] = {name: [0.2] for name in cell["seconds"]}
    cell = made["cells"][0]
    cell |= {"flops": 1e9, "layers": 2}
    cell["seconds"] |= {"stock float32 forward": [0.3, 0.5], "fast float32 forward": [0.1, 0.2]}
    lines = markdown(made).splitlines()
    (row,) = (line for line in lines if line.startswith("| **this kit**"))
    assert "| 3,500 (3.50x) |" in " ".join(row.split())
    assert row.split("|")[8].strip() == "25% (28%)"
    row = next(line for line in lines if line.startswith("| 16 "))
    assert " ".join(row.split()).endswith("| float32 | 150.0 | 50.0 | 3.00x | 10% |")
    cell["seconds"]["stock float32 forward"] = [0.05]
    assert "The least gain of all cells: 0.50x." in markdown(made)


# The ways differ as they say


def test_the_reference_pads_to_the_cap_and_the_kit_does_not(results) -> None:
    assert widths(results, "reference", "inference") == {TINY.cap}
    for phase in PHASES:
        assert min(widths(results, "kit", phase)) < TINY.cap
        waste = {
            name: ways_of(results)[name][phase]["positions"]
            / ways_of(results)[name][phase]["tokens"]
            for name in ("reference", "kit")
        }
        assert waste["kit"] < 1.1 < waste["reference"], phase
    rows = {rows for rows, _ in seen(results, "reference", "training")["batches"]}
    assert rows == {TINY.batch_size}
    for rows, width in seen(results, "kit", "training")["batches"]:
        assert rows * width <= TINY.batch_size * TINY.cap


def test_the_reference_pads_to_the_cap_even_where_no_text_is_so_long() -> None:
    settings = dataclasses.replace(TINY, cap=256)
    (reference, *_) = all_ways(CPU, has_fast_attention=True)
    found = measure_way(shaped_job(settings), reference, settings)["seen"]
    assert {width for _, width in found["inference"]["batches"]} == {256}
    assert max(width for _, width in found["training"]["batches"]) < 180


def test_each_way_computes_in_its_own_precision_and_attention(results) -> None:
    torch_name = {"float32": "float32", "bf16": "bfloat16"}
    for name, way in ways_of(results).items():
        if "error" in way:
            continue
        for phase in PHASES[: 2 if way["method"] == "trainer" else 3]:
            precision = way[f"{phase.split('_')[0]}_precision"]
            assert seen(results, name, phase)["computed_in"] == torch_name[precision], name
            fast = seen(results, name, phase)["attention"] == "FastSelfAttention"
            assert fast == (name in ("kit", "kit_float32")), name
    assert ways_of(results)["reference"]["inference_precision"] == "float32"
    assert ways_of(results)["kit"]["inference_precision"] == HALF


def test_fgm_goes_through_the_encoder_twice(results) -> None:
    for name in ("reference", "kit"):
        once, twice = (len(seen(results, name, phase)["batches"]) for phase in PHASES[1:])
        assert twice == 2 * once == 2 * (1 if name == "reference" else TINY.train_batches)
        way = ways_of(results)[name]
        assert way["training_fgm"]["flops_needed"] == 2 * way["training"]["flops_needed"]
        assert way["training_fgm"]["positions"] == way["training"]["positions"]


@pytest.mark.skipif(not HAS_TRAINER, reason="accelerate is not installed")
def test_the_trainer_gets_the_batches_that_its_own_sampler_makes(results) -> None:
    way = ways_of(results)["trainer"]
    batches = seen(results, "trainer", "training")["batches"]
    assert [rows for rows, _ in batches] == TINY.train_batches * [TINY.batch_size]
    assert way["training"]["positions"] / way["training"]["tokens"] < 1.15
    assert way["inference"]["positions"] / way["inference"]["tokens"] < 1.15


def test_without_accelerate_the_trainers_row_says_so(monkeypatch) -> None:
    monkeypatch.setattr(hf_trainer.importlib.util, "find_spec", lambda name: None)
    trainer = next(way for way in all_ways(CPU, has_fast_attention=True) if way.name == "trainer")
    with pytest.raises(TrainingError, match="needs accelerate"):
        measure_way(shaped_job(TINY), trainer, TINY)


def test_only_one_thing_changes_from_the_reference_to_the_kit() -> None:
    ways = all_ways(CPU, has_fast_attention=True)
    ladder = ways[: [way.name for way in ways].index("kit") + 1]
    for before, after in itertools.pairwise(ladder):
        changed = {
            field.name
            for field in dataclasses.fields(before)
            if getattr(before, field.name) != getattr(after, field.name)
        } - {"name", "label"}
        precision = {"training_precision", "inference_precision"}
        assert changed in ({"keeps_memory"}, precision, {"method"}, {"attention"})


def test_on_a_gpu_the_reference_trains_in_fp16_and_evaluates_in_float32(monkeypatch) -> None:
    monkeypatch.setattr(
        ways_module, "pick_precision", lambda wanted, device: Precision("bf16", device.type)
    )
    ways = {way.name: way for way in all_ways(torch.device("cuda"), has_fast_attention=True)}
    assert {"reference", "reference_half", "kit", "kit_stock", "kit_float32", "trainer"} <= set(
        ways
    )
    assert not any("kept" in name for name in ways)
    reference = ways["reference"]
    assert (reference.training_precision, reference.inference_precision) == ("fp16", "float32")


@pytest.mark.parametrize("way", all_ways(CPU, has_fast_attention=True), ids=lambda way: way.name)
def test_the_allocator_is_told_only_where_the_way_says_so(way, monkeypatch) -> None:
    told: list[str] = []

    def runner(*arguments: Any) -> None:
        raise TrainingError("far enough")

    monkeypatch.setattr(end_to_end, "keep_freed_memory", lambda: told.append(way.name))
    monkeypatch.setitem(end_to_end.RUNNERS, way.method, runner)
    with pytest.raises(TrainingError, match="far enough"):
        measure_way(shaped_job(TINY), way, TINY)
    assert bool(told) == way.keeps_memory == (way.name not in ("reference", "trainer"))


def test_an_encoder_without_fast_attention_has_one_row_of_the_kit_less() -> None:
    names = [way.name for way in all_ways(CPU, has_fast_attention=False)]
    assert "kit" in names and "kit_stock" not in names
    assert all(way.attention == "stock" for way in all_ways(CPU, has_fast_attention=False))


def test_the_references_fgm_clones_and_writes_the_whole_table() -> None:
    embedding = nn.Embedding(50, 4)
    before = embedding.weight.detach().clone()
    embedding(torch.tensor([[3, 7]])).square().sum().backward()
    fgm = WholeTableFGM(embedding, 0.5)
    fgm.attack()
    assert fgm.backup is not None and torch.equal(fgm.backup, before)
    moved = embedding.weight.detach() - before
    assert moved.norm() == pytest.approx(0.5, rel=1e-5)
    assert set(moved.abs().sum(dim=1).nonzero().flatten().tolist()) == {3, 7}
    fgm.restore()
    assert torch.equal(embedding.weight, before) and fgm.backup is None


# Texts and batches


def test_made_up_texts_have_the_lengths_of_fb3() -> None:
    lengths = fb3_lengths(3911, 0)
    assert lengths.mean() == pytest.approx(487, abs=4)
    assert np.percentile(lengths, [50, 90]).tolist() == pytest.approx([456, 758], abs=2)
    assert (lengths > 512).mean() == pytest.approx(0.385, abs=0.005)
    assert lengths.max() == pytest.approx(1428, abs=10)
    assert fb3_lengths(3911, 1).tolist() != lengths.tolist()
    assert sorted(fb3_lengths(3911, 1)) == sorted(lengths)
    assert fb3_lengths(100, 0, divisor=8).mean() == pytest.approx(487 / 8, rel=0.02)


def test_words_of_made_up_texts_are_as_unevenly_frequent_as_words_are() -> None:
    examples = made_up([400] * 10, vocabulary=20_000, seed=0)
    ids = np.concatenate([example.input_ids for example in examples])
    assert ids.min() >= 10 and ids.max() < 20_000
    assert 500 < len(np.unique(ids)) < 2500  # of 4,000
    assert all(example.target is not None and example.target.shape == (6,) for example in examples)


def test_lengths_follow_the_words_of_data(material: Material) -> None:
    job = shaped_job(dataclasses.replace(TINY, data=str(material.competition), cap=10_000))
    texts = (material.competition / "train.csv").read_text(encoding="utf-8")
    assert len(job.examples) == 40 and "DATA" in job.source
    total = sum(len(example.input_ids) for example in job.examples)
    assert total == pytest.approx(1.13 * len(texts.split()), rel=0.15)


def test_representative_batches_come_from_equal_parts_of_the_ranking() -> None:
    lengths = list(range(1, 41))
    batches = in_batches(np.random.default_rng(0).permutation(40), 1)
    chosen = [int(rows[0]) for rows in representative(batches, 4, lengths)]
    assert sorted(chosen) == [5, 15, 25, 35]
    order = [int(rows[0]) for rows in batches]
    assert chosen == sorted(chosen, key=order.index)
    assert len(representative(batches[:1], 3, lengths)) == 1
    assert largest(batches, lengths).tolist() == [39]


def test_an_epoch_without_the_ragged_end() -> None:
    assert [rows.tolist() for rows in in_batches(np.arange(7), 3)] == [[0, 1, 2], [3, 4, 5]]


def test_a_pretrained_encoder_is_measured_on_real_texts(material: Material) -> None:
    data, backbone = str(material.competition), str(material.backbone)
    settings = dataclasses.replace(TINY, data=data, backbone=backbone, train_batches=1)
    job = pretrained_job(settings)
    assert len(job.examples) == 40 and job.folder == backbone and "own weights" in job.name
    kit = next(way for way in all_ways(CPU, has_fast_attention=True) if way.name == "kit")
    found = summarised([measure_way(job, kit, settings)])
    assert found["training_fgm"]["tokens_per_second"] > 0
    assert found["seen"]["inference"]["attention"] == "FastSelfAttention"


# Meters


def test_flops_are_those_of_the_formula() -> None:
    config = Shape().config()
    width, slots, length = 768, 512, 512
    pooling = 2 * length * width**2
    assert batch_flops(config, 8 * [512]) / 8 - pooling == pytest.approx(108.1e9, rel=1e-3)
    assert batch_flops(config, 8 * [1024]) / 8 - 2 * pooling == pytest.approx(233.7e9, rel=1e-2)
    plain = copy.copy(config)
    plain.relative_attention = False
    a_layer = 4 * length * slots * width + 4 * slots * width**2
    assert batch_flops(config, [512]) - batch_flops(plain, [512]) == 12 * a_layer


def test_the_watch_sees_what_goes_through_the_encoder() -> None:
    encoder = random_encoder(TINY.shape)
    watch = Watch(encoder)
    ids = torch.ones(3, 16, dtype=torch.int64)
    with Precision(HALF, "cpu").autocast():
        encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert watch.batches == [(3, 16)] and watch.positions == 48
    assert watch.flops() == batch_flops(encoder.config, [16, 16, 16])
    assert watch.computed_in == ("bfloat16" if HALF == "bf16" else "float32")
    watch.clear()
    assert watch.batches == []


def test_a_function_runs_in_a_process_of_its_own() -> None:
    assert run_apart(os.getpid) != os.getpid()
    assert run_apart(os.path.join, "a", "b") == "a/b"


def test_an_error_of_a_measurement_comes_back() -> None:
    with pytest.raises(DataError, match=r"DATA=/nowhere: the folder does not exist"):
        run_apart(BenchSettings(data="/nowhere").checked)


def test_a_killed_measurement_is_one_clear_error() -> None:
    with pytest.raises(TrainingError, match=r"status -9 and no result"):
        run_apart(signal.raise_signal, signal.SIGKILL)


def test_what_cannot_be_measured_is_named_and_the_rest_is_there(results) -> None:
    broken = copy.deepcopy(results)
    ways_of(broken)["kit_stock"] = {
        **{key: ways_of(results)["kit_stock"][key] for key in ("name", "label", "method")},
        "error": "the memory was full",
    }
    broken["cells"][0] = broken["growth"][1] = "it was killed"
    broken["precisions"] = "there is no run"
    broken["limits"] = {}
    table = markdown(broken)
    for words in ("the memory was full", "it was killed", "Not measured: there is no run"):
        assert words in table
    assert plot_results(broken).png().startswith(b"\x89PNG")
    for way in ways_of(broken).values():
        way["error"] = "nothing works"
    broken["cells"], broken["growth"] = ["no"], ["no"]
    assert plot_results(broken).png().startswith(b"\x89PNG")


def test_a_cell_that_cannot_run_says_why_and_the_others_go_on(monkeypatch) -> None:
    def action(encoder: Any, ids: torch.Tensor, cell: cells.Cell) -> Any:
        broken = cell.attention == "fast" and cell.passes == "forward"
        return refuse if broken else true_action(encoder, ids, cell)

    def refuse() -> None:
        raise RuntimeError("no kernel for this")

    true_action = cells._action
    monkeypatch.setattr(cells, "_action", action)
    found = measure_length(16, TINY)
    assert found["seconds"]["fast float32 forward"] == "failed: RuntimeError"
    assert len(found["seconds"]["stock float32 forward"]) == TINY.cell_rounds


# Precisions


def test_int8_leaves_the_model_as_it_was_and_comes_near_it() -> None:
    job = shaped_job(TINY)
    model = build_model(job, attention="fast", seed=0).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantised = quantise(model)
    kinds = {type(module).__module__ for module in quantised.backbone.modules()}
    assert any("quantized" in kind for kind in kinds)
    assert not any("quantized" in type(module).__module__ for module in model.modules())
    ids = torch.from_numpy(job.examples[0].input_ids[None].astype(np.int64))
    with torch.no_grad():
        exact, rounded = (each(ids, torch.ones_like(ids)) for each in (model, quantised))
    assert not torch.equal(exact, rounded)
    assert (exact - rounded).norm() < 0.2 * exact.norm()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_precisions_are_compared_with_stock_float32(results) -> None:
    variants = results["precisions"]["variants"]
    first = next(iter(variants))
    assert first == "float32, stock attention"
    assert variants[first]["largest"] == 0
    assert variants["float32, fast attention"]["largest"] < 1e-5
    assert variants["int8 weights, fast attention"]["largest"] > 0
    if HALF != "float32":
        exact = variants["float32, fast attention"]["largest"]
        assert exact < variants[f"{HALF}, fast attention"]["largest"] < 0.1
    assert all(variant["score"] is None for variant in variants.values())


def test_a_run_is_scored_in_every_precision(results, make_case, trained) -> None:
    run = trained(folds=(0,))
    found = measure_precisions(dataclasses.replace(TINY, run=str(run), run_rows=1000))
    assert found["rows"] == int((make_case().folds == 0).sum())
    scores = [variant["score"] for variant in found["variants"].values()]
    (fold,) = open_run(run).record["folds"]
    assert scores[0] == pytest.approx(fold["scores"]["mcrmse"], abs=1e-5)
    assert all(score == pytest.approx(scores[0], abs=0.02) for score in scores)
    assert "change of the score" in markdown({**results, "precisions": found})


# Settings and the command


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"device": "tpu"}, SettingsError, "DEVICE=tpu is not known: cpu or cuda"),
        ({"data": "{tmp}/none"}, DataError, "DATA=.*none: the folder does not exist"),
        ({"data": "{tmp}"}, DataError, "DATA=.*: the folder has no train.csv"),
        ({"run": "{tmp}"}, DataError, "RUN=.*: the folder has no run.json"),
        ({"backbone": "{tmp}"}, SettingsError, "add DATA="),
    ],
)
def test_bad_input_is_one_clear_error(changes, error, words, tmp_path: Path) -> None:
    values = {name: value.format(tmp=tmp_path) for name, value in changes.items()}
    with pytest.raises(error, match=words):
        run_bench(dataclasses.replace(TINY, **values))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_ends_the_command_with_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--device", "cuda", "--quick"])
    assert command.main() == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("SettingsError: DEVICE=cuda, but torch") and "Leave DEVICE out" in line


def test_sizes_of_full_and_quick_runs() -> None:
    cpu, gpu = for_device("cpu"), for_device("cuda")
    assert (cpu.shape.hidden, cpu.shape.heads, gpu.shape.layers) == (768, 12, 12)
    assert gpu.shape.vocabulary == 128_100
    assert cpu.shape.vocabulary * 12 == gpu.shape.vocabulary * cpu.shape.layers
    assert cpu.lengths == (256, 512, 768, 1024, 1536)
    assert cpu.growth_rows == (1_000, 10_000, 100_000)
    quick = for_device("cpu", quick=True)
    assert (quick.rounds, quick.shape.layers, quick.device) == (1, 1, "cpu")
    assert cpu.resized(layers=6, rounds=1).shape.vocabulary == 64_050


def test_make_hands_its_variables_on() -> None:
    given = ["DEVICE=cuda", "QUICK=1", "DATA=a b", "BACKBONE=m", "RUN=r", "LAYERS=2", "ROUNDS=4"]
    done = subprocess.run(
        ["make", "--dry-run", "bench", *given],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    flat = " ".join(done.stdout.replace("\\\n", " ").split())
    expected = '--device cuda --quick --data "a b" --backbone "m" --run "r" --layers 2 --rounds 4'
    assert f"-m kernel_lib.bench {expected}" in flat
