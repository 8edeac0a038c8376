"""Row order and count never depend on batching; a full memory and a short clock are met."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from kernel_lib.errors import TrainingError
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.device import Precision
from kernel_lib.text.batches import Example
from kernel_lib.training.prediction import TimeIsUp, predict

CPU = torch.device("cpu")


class SumOfTokens(nn.Module):
    """A model whose right answer is known for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()
        self.shapes: list[tuple[int, ...]] = []
        self.linear = nn.Linear(1, 1, bias=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        assert not self.training
        self.shapes.append(tuple(input_ids.shape))
        self.dtypes.add(self.linear(torch.ones(1, 1, device=input_ids.device)).dtype)
        total = (input_ids * attention_mask).sum(1, keepdim=True).float()
        return torch.cat([total, -total], dim=1)


class Filled(SumOfTokens):
    """Its memory is full above so many rows, with an error that a test chooses."""

    def __init__(self, most_rows: int, make_error: Callable[[], Exception]) -> None:
        super().__init__()
        self.most_rows, self.make_error = most_rows, make_error
        self.held: weakref.ref[torch.Tensor] | None = None

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        assert self.held is None or self.held() is None, "what the failed batch held is still held"
        output = super().forward(input_ids, attention_mask)
        activations = output * 2
        if len(input_ids) > self.most_rows:
            self.held = weakref.ref(activations)
            raise self.make_error()
        return output


class Slow(SumOfTokens):
    """Each batch moves the time, by so much a token and, the first one, by some more."""

    def __init__(self, token_seconds: float, warm_up_seconds: float = 0.0) -> None:
        super().__init__()
        self.token_seconds, self.warm_up_seconds = token_seconds, warm_up_seconds
        self.moment = 0.0
        self.begun_at: list[float] = []

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        self.begun_at.append(self.moment)
        self.moment += input_ids.numel() * self.token_seconds + self.warm_up_seconds
        self.warm_up_seconds = 0.0
        return super().forward(input_ids, attention_mask)

    def clock(self, budget_seconds: float) -> Clock:
        return Clock(budget_seconds, now=lambda: self.moment)


class Bar:
    """Notes how far it was moved and what was written."""

    def __init__(self) -> None:
        self.moved, self.lines = 0, []

    def update(self, count: int) -> None:
        self.moved += count

    def write(self, line: str) -> None:
        self.lines.append(line)


def run(
    model: nn.Module,
    examples: list[Example],
    batch_size: int,
    precision: str = "float32",
    device: torch.device = CPU,
    **options,
):
    return predict(
        model,
        examples,
        pad_id=999,
        batch_size=batch_size,
        device=device,
        precision=Precision(precision, device.type),
        **options,
    )


def make_examples(rows: int, longest: int = 50) -> list[Example]:
    random = np.random.default_rng(rows)
    tokens = [random.integers(1, 90, length) for length in random.integers(1, longest, rows)]
    return [Example(str(i), ids) for i, ids in enumerate(tokens)]


def sums(examples: list[Example]) -> list[int]:
    return [int(example.input_ids.sum()) for example in examples]


@pytest.mark.parametrize("rows", [1, 3, 16, 37])
@pytest.mark.parametrize("batch_size", [1, 4, 16, 100])
def test_order_and_count_do_not_depend_on_the_batch_size(rows: int, batch_size: int) -> None:
    examples = make_examples(rows)
    values = run(SumOfTokens(), examples, batch_size)
    assert values.shape == (rows, 2) and values.dtype == np.float32
    assert values[:, 0].tolist() == sums(examples)


def test_it_predicts_under_autocast_and_puts_the_mode_back() -> None:
    model = SumOfTokens().train()
    run(model, [Example("a", np.array([1, 2]))], 1, "bf16")
    assert model.dtypes == {torch.bfloat16}
    assert model.training


def test_the_bar_moves_by_one_a_row() -> None:
    bar = Bar()
    run(SumOfTokens(), make_examples(13), 4, bar=bar)
    assert bar.moved == 13 and bar.lines == []


def real_error_of_a_full_memory() -> Exception:
    """What torch's own allocator says: nobody has an exabyte."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    return caught.value


FULL = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling create"),
    "cpu": real_error_of_a_full_memory,
    "windows": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you"),
    "numpy": MemoryError,
}


@pytest.mark.parametrize("kind", FULL)
def test_a_full_memory_halves_the_batch_and_changes_no_value(kind: str) -> None:
    examples, bar = make_examples(37), Bar()
    model = Filled(5, FULL[kind])
    values = run(model, examples, 16, bar=bar)
    assert values[:, 0].tolist() == sums(examples)
    assert [rows for rows, _ in model.shapes] == [16, 8, *[4] * 9, 1]  # never large again
    assert bar.moved == 37
    assert [line.split(";")[1] for line in bar.lines] == [
        " going on with 8 at a time",
        " going on with 4 at a time",
    ]


def test_without_a_bar_the_halving_is_printed(capsys) -> None:
    run(Filled(1, MemoryError), [Example("a", np.arange(1, 9)), Example("b", np.arange(3))], 2)
    assert "memory is full with 2 texts of up to 8 tokens; going on with 1" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("precision", "cure"), [("float32", 'precision="fp16"'), ("bf16", "a smaller max_length")]
)
def test_a_single_row_that_does_not_fit_is_an_error_with_the_cure(precision, cure) -> None:
    examples = [Example("long", np.ones(333, dtype=np.int64)), *make_examples(5)]
    model = Filled(0, MemoryError).train()
    with pytest.raises(TrainingError, match=f"single text of 333 tokens in {precision}.*{cure}"):
        run(model, examples, 4, precision, bar=Bar())
    assert model.training


def test_another_error_of_the_model_is_not_taken_for_a_full_memory() -> None:
    model = Filled(0, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        run(model, make_examples(3), 2)
    assert len(model.shapes) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU to fill")
def test_a_gpu_that_is_really_full_halves_the_batch() -> None:
    class Large(SumOfTokens):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            output = super().forward(input_ids, attention_mask)
            bulk = torch.ones(len(input_ids), 1 << 28, device="cuda")  # 1 GiB a row
            return output + 0 * bulk[:, :1]

    device = torch.device("cuda", 0)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(5.5 * 2**30 / total, device)
    try:
        examples, model = make_examples(37), Large().to(device)
        values = run(model, examples, 16, device=device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    assert values[:, 0].tolist() == sums(examples)
    assert [rows for rows, _ in model.shapes] == [16, 8, *[4] * 9, 1]


def test_a_clock_that_is_over_lets_no_batch_begin() -> None:
    model = Slow(1.0)
    clock = model.clock(10)
    model.moment = 10.1
    with pytest.raises(TimeIsUp):
        run(model, make_examples(5), 2, clock=clock)
    assert model.begun_at == []


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.6, 0.9])
def test_no_batch_begins_after_the_budget(share: float) -> None:
    examples = make_examples(37)
    whole = Slow(1.0)
    values = run(whole, examples, 4, clock=whole.clock(1e9))
    model = Slow(1.0).train()
    budget = share * whole.moment
    with pytest.raises(TimeIsUp):
        run(model, examples, 4, clock=model.clock(budget))
    assert 0 < len(model.begun_at) < len(whole.begun_at) and max(model.begun_at) <= budget
    assert model.training
    late = Slow(1.0)  # by less than its last batch
    assert (run(late, examples, 4, clock=late.clock(whole.moment - 1)) == values).all()


def test_what_cannot_be_finished_is_given_up_early_with_time_left() -> None:
    model = Slow(1.0)
    examples = [Example(str(i), np.ones(8, dtype=np.int64)) for i in range(100)]
    clock = model.clock(200)  # 800 are needed
    with pytest.raises(TimeIsUp) as stop:
        run(model, examples, 1, clock=clock)
    assert len(model.begun_at) == 2  # one that warms up, one that tells the pace
    assert stop.value.more_seconds == pytest.approx(98 * 8 / 2)
    assert stop.value.more_seconds > clock.left_seconds > 0


def test_a_slow_first_batch_is_no_reason_to_give_up() -> None:
    model = Slow(0.01, warm_up_seconds=60.0)
    examples = [Example(str(i), np.ones(8, dtype=np.int64)) for i in range(100)]
    run(model, examples, 1, clock=model.clock(70))
    assert len(model.begun_at) == 100
