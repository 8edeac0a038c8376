"""What training took: parameters and memory, told, kept in the manifest and in the report."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from torch import nn

from kernel_lib.results.report import write_report
from kernel_lib.training.cost import FoldCost, cost_text, costs_text

GIBIBYTE = 2**30


def test_frozen_parameters_count_in_the_whole_only() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    groups = [{"params": [model[1].weight]}, {"params": [model[1].bias]}]
    cost = FoldCost.of(model, groups, 3 * GIBIBYTE)
    assert (cost.trained_parameters, cost.parameters) == (8, 23)
    assert str(cost) == "8 of 23 parameters trained, peak memory 3,072 MiB"
    assert str(FoldCost.of(model, groups, None)) == "8 of 23 parameters trained"


@pytest.mark.parametrize("record", [{}, None, 3, {"peak_memory_bytes": "x"}, {"parameters": 3}])
def test_a_fold_of_an_earlier_release_tells_nothing(record: Any) -> None:
    assert cost_text(record) == "" and costs_text([record, record]) == ""


def test_of_several_folds_the_largest() -> None:
    one, two = FoldCost(8, 23, 1 * GIBIBYTE), FoldCost(8, 23, 2 * GIBIBYTE)
    records = [one.record(), {}, two.record(), FoldCost(8, 23, None).record()]
    assert costs_text(records) == "8 of 23 parameters trained, peak memory 2,048 MiB"


def test_each_fold_says_it_at_its_end_and_keeps_it(make_case, capsys) -> None:
    case = make_case(freeze_embeddings=True)
    run = case.cross_validate()
    lines = re.findall(
        r"^fold (\d): ([\d,]+) of ([\d,]+) parameters trained(?:, peak memory ([\d,]+) MiB)?$",
        capsys.readouterr().out,
        re.MULTILINE,
    )
    assert [int(line[0]) for line in lines] == run.finished_folds()
    for fold, trained, whole, _ in lines:
        manifest = json.loads((run.fold_folder(int(fold)) / "manifest.json").read_text())
        cost = manifest["cost"]
        assert f"{cost['trained_parameters']:,}" == trained and f"{cost['parameters']:,}" == whole
        assert 0 < cost["trained_parameters"] < cost["parameters"]
        assert run.record["folds"][int(fold)]["cost"] == cost
    report = write_report(run).read_text(encoding="utf-8")
    assert f"{lines[0][1]} of {lines[0][2]} parameters trained" in report
