"""Row order and count never depend on batching."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kernel_lib.runtime.device import Precision
from kernel_lib.text.batches import Example
from kernel_lib.training.prediction import predict


class SumOfTokens(nn.Module):
    """A model whose right answer is known for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()
        self.linear = nn.Linear(1, 1, bias=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        assert not self.training
        self.dtypes.add(self.linear(torch.ones(1, 1)).dtype)
        total = (input_ids * attention_mask).sum(1, keepdim=True).float()
        return torch.cat([total, -total], dim=1)


def run(model: nn.Module, examples: list[Example], batch_size: int, precision: str = "float32"):
    return predict(
        model,
        examples,
        pad_id=999,
        batch_size=batch_size,
        device=torch.device("cpu"),
        precision=Precision(precision, "cpu"),
    )


@pytest.mark.parametrize("rows", [1, 3, 16, 37])
@pytest.mark.parametrize("batch_size", [1, 4, 16, 100])
def test_order_and_count_do_not_depend_on_the_batch_size(rows: int, batch_size: int) -> None:
    random = np.random.default_rng(rows)
    lengths = random.integers(1, 50, rows)
    tokens = [random.integers(1, 90, length) for length in lengths]
    examples = [Example(str(i), ids) for i, ids in enumerate(tokens)]
    values = run(SumOfTokens(), examples, batch_size)
    assert values.shape == (rows, 2) and values.dtype == np.float32
    assert values[:, 0].tolist() == [ids.sum() for ids in tokens]


def test_it_predicts_under_autocast_and_puts_the_mode_back() -> None:
    model = SumOfTokens().train()
    run(model, [Example("a", np.array([1, 2]))], 1, "bf16")
    assert model.dtypes == {torch.bfloat16}
    assert model.training
