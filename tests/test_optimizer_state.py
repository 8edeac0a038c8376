"""What optimizers of other packages remember goes into a file and back."""

from __future__ import annotations

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from kernel_lib.training.optimizer_state import load_optimizer_state, optimizer_state


class Odd(Optimizer):
    """Keeps bytes, a table that all parameters share, numbers, and something common to all."""

    def __init__(self, parameters) -> None:
        super().__init__(parameters, {"lr": 1.0})
        self.table = torch.arange(4.0)

    def remember(self, number: int) -> None:
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter] = {
                "state.1": torch.full_like(parameter, number, dtype=torch.uint8),
                "table": self.table,
                "step": number,
                "norm": number + 0.5,
            }
        self.state["k"] = torch.tensor([number])


def odd(n: int = 3) -> Odd:
    return Odd([nn.Parameter(torch.zeros(5)) for _ in range(n)])


def test_bytes_shared_tables_numbers_and_common_values_travel(tmp_path) -> None:
    optimizer, another = odd(), odd()
    optimizer.remember(7)
    del optimizer.state[optimizer.param_groups[0]["params"][1]]  # one that never had a gradient
    tensors, numbers = optimizer_state(optimizer)
    save_file(tensors, tmp_path / "state")
    load_optimizer_state(another, load_file(tmp_path / "state"), numbers)
    first, second, third = another.param_groups[0]["params"]
    assert second not in another.state
    for parameter in (first, third):
        found = another.state[parameter]
        assert found["state.1"].dtype == torch.uint8 and found["state.1"].tolist() == [7] * 5
        assert found["table"].tolist() == [0.0, 1.0, 2.0, 3.0]
        assert (found["step"], found["norm"]) == (7, 7.5)
    assert another.state["k"].tolist() == [7]


def test_what_was_not_used_yet_remembers_nothing() -> None:
    assert optimizer_state(odd()) == ({}, {})
