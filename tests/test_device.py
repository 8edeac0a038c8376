"""Device, precision by capability, and random states that come back bit for bit."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from kernel_lib.errors import SettingsError
from kernel_lib.runtime import device as module
from kernel_lib.runtime.device import (
    Place,
    Precision,
    keep_freed_memory,
    make_places,
    pick_device,
    pick_devices,
    pick_precision,
    random_states,
    restore_random_states,
    seed_everything,
    versions,
)

ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_90a", "sm_100f", "sm_120", "compute_120"]
CUDA = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch):
    """Makes torch report GPUs of these capabilities; nothing is computed on them."""

    def make(*capabilities: tuple[int, int], architectures=ARCHITECTURES) -> None:
        def capability(device=0) -> tuple[int, int]:
            return capabilities[getattr(device, "index", device)]

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: architectures)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "A made-up GPU")
        # On a T4 torch says yes: it counts emulation.
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)

    return make


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((7, 5), "fp16"), ((8, 0), "bf16"), ((8, 6), "bf16"), ((9, 0), "bf16"), ((12, 0), "bf16")],
    ids=["T4", "A100", "A10", "H100", "Blackwell"],
)
def test_auto_precision_follows_the_hardware_not_what_torch_emulates(
    gpu, capability, precision: str
) -> None:
    gpu(capability)
    assert pick_precision("auto", CUDA) == Precision(precision, "cuda")


@pytest.mark.parametrize(("multiplies", "precision"), [(True, "bf16"), (False, "float32")])
def test_a_cpu_never_gets_fp16_by_itself(monkeypatch, multiplies: bool, precision: str) -> None:
    monkeypatch.setattr(module, "_cpu_multiplies_bf16", lambda: multiplies)
    assert pick_precision("auto", torch.device("cpu")) == Precision(precision, "cpu")


@pytest.mark.parametrize("wanted", ["float32", "bf16", "fp16"])
def test_a_precision_asked_for_is_the_one_given(gpu, wanted: str) -> None:
    gpu((7, 5))
    assert pick_precision(wanted, CUDA).name == wanted


def test_only_fp16_needs_a_loss_scaler() -> None:
    assert [Precision(name, "cpu").needs_scaler for name in ("float32", "bf16", "fp16")] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_autocast_multiplies_in_the_precision_and_ends_with_its_block(name: str, dtype) -> None:
    a = torch.ones(4, 4)
    with Precision(name, "cpu").autocast():
        assert (a @ a).dtype == dtype
    assert (a @ a).dtype == torch.float32


def test_float32_is_float32_inside_another_autocast_too() -> None:
    a = torch.ones(4, 4)
    with Precision("bf16", "cpu").autocast(), Precision("float32", "cpu").autocast():
        assert (a @ a).dtype == torch.float32


def test_without_a_gpu_the_cpu_is_picked(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0), (12, 1)])
def test_a_gpu_that_torch_has_kernels_for_is_picked(gpu, capability) -> None:
    gpu(capability)
    assert pick_device() == CUDA


@pytest.mark.parametrize("capability", [(6, 0), (7, 0)], ids=["P100", "V100"])
def test_a_gpu_too_old_for_this_torch_is_an_error_with_the_cure(gpu, capability) -> None:
    gpu(capability)
    with pytest.raises(SettingsError) as caught:
        pick_device()
    message = str(caught.value)
    assert "A made-up GPU" in message and f"{capability[0]}.{capability[1]}" in message
    assert "7.5" in message and "T4" in message


@pytest.mark.parametrize(
    ("capabilities", "wanted", "picked"),
    [
        ([(7, 5), (7, 5)], 0, [0, 1]),
        ([(7, 5), (7, 5)], 1, [0]),
        ([(7, 5), (7, 5)], 2, [0, 1]),
        ([(8, 0)] * 4, 3, [0, 1, 2]),
        ([(6, 0), (8, 6), (3, 5), (7, 5)], 0, [1, 3]),
    ],
    ids=["T4 x2", "one of them", "both", "three of four", "old cards between"],
)
def test_as_many_gpus_as_wanted_are_picked_of_those_torch_can_use(
    gpu, capabilities, wanted: int, picked: list[int], capsys
) -> None:
    gpu(*capabilities)
    assert pick_devices(wanted) == [torch.device("cuda", index) for index in picked]
    assert pick_device() == torch.device("cuda", picked[0])
    assert capsys.readouterr().out == ""


def test_more_gpus_than_there_are_is_said_and_all_are_used(gpu, capsys) -> None:
    gpu((7, 5))
    assert pick_devices(2) == [CUDA]
    assert capsys.readouterr().out == "devices=2, but torch can use 1 here\n"


@pytest.mark.parametrize(("wanted", "count"), [(0, 1), (1, 1), (3, 3)])
def test_a_cpu_is_one_device_unless_several_processes_are_wanted(wanted: int, count: int) -> None:
    assert pick_devices(wanted) == [torch.device("cpu")] * count


def test_a_device_alone_keeps_all_threads_and_several_share_them(monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    two = [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert make_places(two, jobs=3) == [Place(two[0], 2), Place(two[1], 2)]
    assert make_places(two, jobs=1) == [Place(two[0])] == make_places(two, jobs=0)
    assert [place.threads for place in make_places([torch.device("cpu")] * 6, jobs=9)] == [1] * 6


def test_a_place_that_is_occupied_counts_its_threads_and_is_the_current_gpu(monkeypatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    before = torch.get_num_threads()
    second = torch.device("cuda", 1)
    try:
        assert Place(second, 1).occupy() == second
        assert torch.get_num_threads() == 1 and current == [second]
        Place(torch.device("cpu")).occupy()
        assert torch.get_num_threads() == 1 and current == [second]
    finally:
        torch.set_num_threads(before)
    assert str(Place(second, 1)) == "cuda:1"


def draw() -> list[object]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.normal()),
        np.random.randint(0, 1000, 5).tolist(),
        torch.rand(3).tolist(),
        torch.randn(3).tolist(),
        torch.nn.functional.dropout(torch.ones(32)).tolist(),
    ]


@pytest.mark.parametrize("before", [0, 1, 3])
def test_random_states_come_back_bit_for_bit_after_json(before: int) -> None:
    """An odd number of normal draws leaves a second one cached: it is part of the state."""
    seed_everything(5)
    for _ in range(before):
        random.gauss(0, 1)
        np.random.normal()
        torch.rand(1)
    tensors, values = random_states()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    text = json.dumps(values)
    expected = draw()
    seed_everything(99)
    restore_random_states(tensors, json.loads(text))
    assert draw() == expected


def test_a_seed_fixes_all_generators_and_another_seed_changes_all() -> None:
    drawn = []
    for seed in (1, 1, 2):
        seed_everything(seed)
        drawn.append(draw())
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32 + 7])
def test_any_seed_that_the_settings_allow_is_accepted(seed: int) -> None:
    seed_everything(seed)


def test_the_record_names_the_versions_that_matter() -> None:
    found = versions()
    assert found["torch"] == torch.__version__.split()[0]
    assert {"python", "transformers", "tokenizers", "numpy"} <= set(found)


def test_asking_the_allocator_to_keep_memory_changes_no_result() -> None:
    a = torch.randn(64, 64)
    before = a @ a
    keep_freed_memory()
    assert torch.equal(a @ a, before)
