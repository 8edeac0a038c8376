"""Which outputs a notebook is shown in a rehearsal, and what its reader is told to declare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kernel_lib.offline.rehearsal.declare import declare_outputs
from kernel_lib.offline.rehearsal.plan import Kernel
from kernel_lib.offline.upload.kernel_rules import METADATA
from kernel_lib.offline.upload.package import build_kernel
from kernel_lib.runtime.files import read_json, write_json


@pytest.fixture
def built(tmp_path: Path) -> Any:
    """Builds notebooks as the rehearsal does; gives the kernels."""

    def build(*names: str) -> list[Kernel]:
        for name in names:
            build_kernel(name, tmp_path / name, "me")
        return [Kernel(tmp_path / name, predicts=name.endswith("_infer")) for name in names]

    return build


def sources(kernel: Kernel, kind: str) -> list[str]:
    """What the built file says, which is what the rehearsal reads too."""
    written: list[str] = read_json(kernel.folder / METADATA)[f"{kind}_sources"]
    assert kernel.metadata[f"{kind}_sources"] == written
    return written


def test_a_pair_that_fits_its_templates_stays_as_it_is(built) -> None:
    kernels = built("fb3_train", "fb3_infer")
    before = [read_json(kernel.folder / METADATA) for kernel in kernels]
    assert declare_outputs(kernels) == []
    assert [read_json(kernel.folder / METADATA) for kernel in kernels] == before


def test_what_was_rehearsed_instead_is_shown_and_told_with_its_encoder(built) -> None:
    kernels = built("fb3_features", "fb3_infer")
    skipped, added = declare_outputs(kernels)
    assert sources(kernels[1], "kernel") == ["me/fb3-features"]
    assert sources(kernels[1], "dataset") == ["me/kernel-lib", "me/deberta-v3-base"]
    assert "fb3-infer was not shown me/fb3-train, which was not rehearsed" in skipped
    assert added.startswith(
        'BEFORE A PUSH add "OWNER/fb3-features" to kernel_sources and "OWNER/deberta-v3-base" to '
        "dataset_sources in datasets_meta/fb3_infer.kernel.json"
    )
    assert len(declare_outputs(kernels)) == 0  # with these lines there is nothing left to say


def test_both_kinds_are_shown_for_a_blend(built) -> None:
    kernels = built("fb3_train", "fb3_features", "fb3_infer")
    (added,) = declare_outputs(kernels)
    assert sources(kernels[2], "kernel") == ["me/fb3-train", "me/fb3-features"]
    assert "BEFORE A PUSH" in added and "fb3-train" not in added


def test_alone_or_with_a_broken_template_nothing_is_changed(built) -> None:
    (alone,) = built("fb3_infer")
    assert declare_outputs([alone]) == [] and sources(alone, "kernel") == ["me/fb3-train"]
    kernels = built("fb3_features", "fb3_infer")
    write_json(kernels[0].folder / METADATA, {})
    assert declare_outputs(kernels) == [] and sources(kernels[1], "kernel") == ["me/fb3-train"]
