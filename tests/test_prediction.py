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
from kernel_lib.training import prediction
from kernel_lib.training.prediction import TimeIsUp, TokenLimit, predict

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
    """Its memory is full above so many tokens, with an error that a test chooses."""

    def __init__(self, most_tokens: int, make_error: Callable[[], Exception]) -> None:
        super().__init__()
        self.most_tokens, self.make_error = most_tokens, make_error
        self.held: weakref.ref[torch.Tensor] | None = None

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        assert self.held is None or self.held() is None, "what the failed batch held is still held"
        output = super().forward(input_ids, attention_mask)
        activations = output * 2
        if input_ids.numel() > self.most_tokens:
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
    batch_tokens: int,
    precision: str = "float32",
    device: torch.device = CPU,
    **options,
):
    return predict(
        model,
        examples,
        pad_id=999,
        batch_tokens=batch_tokens,
        device=device,
        precision=Precision(precision, device.type),
        **options,
    )


def make_examples(rows: int, longest: int = 50) -> list[Example]:
    random = np.random.default_rng(rows)
    tokens = [random.integers(1, 90, length) for length in random.integers(1, longest, rows)]
    return [Example(str(i), ids.astype(np.int32)) for i, ids in enumerate(tokens)]


def of_length(length: int, rows: int) -> list[Example]:
    return [Example(str(i), np.ones(length, dtype=np.int32)) for i in range(rows)]


def sums(examples: list[Example]) -> list[int]:
    return [int(example.input_ids.sum()) for example in examples]


@pytest.mark.parametrize("rows", [1, 3, 16, 37])
@pytest.mark.parametrize("batch_tokens", [1, 64, 200, 10_000])
@pytest.mark.parametrize("left_behind", [0, 1, 2])
def test_order_and_count_do_not_depend_on_the_batch_size(
    rows: int, batch_tokens: int, left_behind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(prediction.LEFT_BEHIND, "cpu", left_behind)
    examples, model = make_examples(rows), SumOfTokens()
    values = run(model, examples, batch_tokens)
    assert values.shape == (rows, 2) and values.dtype == np.float32
    assert values[:, 0].tolist() == sums(examples)
    assert all(rows == 1 or rows * width <= batch_tokens for rows, width in model.shapes)


class EachToken(SumOfTokens):
    """Says of each token its id and the sum of its row; of padding what nobody may see."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        total = super().forward(input_ids, attention_mask)[:, :1]
        output = torch.stack([input_ids.float(), total.expand(input_ids.shape)], dim=2)
        return output.masked_fill(attention_mask[..., None] == 0, torch.nan)


@pytest.mark.parametrize("batch_tokens", [1, 200, 10_000])
@pytest.mark.parametrize("left_behind", [0, 1])
def test_outputs_by_token_stand_one_row_after_the_other_without_padding(
    batch_tokens: int, left_behind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(prediction.LEFT_BEHIND, "cpu", left_behind)
    examples, bar = make_examples(37), Bar()
    values = run(EachToken(), examples, batch_tokens, bar=bar)
    assert values.dtype == np.float32
    assert values[:, 0].tolist() == [int(t) for e in examples for t in e.input_ids]
    assert values[:, 1].tolist() == [int(e.input_ids.sum()) for e in examples for _ in e.input_ids]
    assert bar.moved == 37


def test_a_full_memory_changes_no_value_of_a_token() -> None:
    class FilledByToken(EachToken):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            output = super().forward(input_ids, attention_mask)
            if input_ids.numel() > 150:
                raise MemoryError
            return output

    examples = make_examples(37)
    expected, limit = run(EachToken(), examples, 10_000), TokenLimit()
    assert np.array_equal(run(FilledByToken(), examples, 10_000, limit=limit), expected)
    assert limit.tokens is not None and limit.tokens <= 150


def test_a_token_that_is_not_finite_is_counted() -> None:
    class Broken(EachToken):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            output = super().forward(input_ids, attention_mask)
            return output.masked_fill(input_ids[..., None] == 1, torch.inf)

    with pytest.raises(TrainingError, match="8 of 16 predictions are not finite"):
        examples = of_length(8, 2)
        examples[1].input_ids[:] = 2
        run(Broken(), examples, 64)


def test_outputs_are_fetched_one_batch_late_on_a_gpu_and_at_once_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Noting(Bar):
        def update(self, count: int) -> None:
            events.append("fetched")

    class Model(SumOfTokens):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            events.append("begun")
            return super().forward(input_ids, attention_mask)

    orders = {}
    for left_behind in (prediction.LEFT_BEHIND.get("cpu", 0), prediction.LEFT_BEHIND["cuda"]):
        monkeypatch.setitem(prediction.LEFT_BEHIND, "cpu", left_behind)
        events: list[str] = []
        run(Model(), of_length(8, 4), 8, bar=Noting())
        orders[left_behind] = events
    assert orders == {
        0: ["begun", "fetched"] * 4,
        1: ["begun", *["begun", "fetched"] * 3, "fetched"],
    }


def test_it_predicts_under_autocast_and_puts_the_mode_back() -> None:
    model = SumOfTokens().train()
    run(model, of_length(2, 1), 1, "bf16")
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
@pytest.mark.parametrize("left_behind", [0, 1])
def test_a_full_memory_halves_the_batch_and_changes_no_value(
    kind: str, left_behind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(prediction.LEFT_BEHIND, "cpu", left_behind)
    examples, bar = make_examples(21) + of_length(56, 16), Bar()
    model, limit = Filled(5 * 56, FULL[kind]), TokenLimit()
    values = run(model, examples, 16 * 56, bar=bar, limit=limit)
    assert values[:, 0].tolist() == sums(examples)
    assert model.shapes[:6] == [(16, 56), (8, 56), *[(4, 56)] * 4]
    assert max(rows * width for rows, width in model.shapes[2:]) <= 4 * 56  # never large again
    assert max(rows for rows, _ in model.shapes[6:]) > 4  # of short texts there may be more
    assert bar.moved == 37
    assert [line.split(";")[1] for line in bar.lines] == [
        " going on with 448 tokens at a time",
        " going on with 224 tokens at a time",
    ]
    assert limit.tokens == 224


def test_what_memory_holds_is_known_to_the_next_call() -> None:
    limit = TokenLimit()
    for fold in range(2):
        model, bar = Filled(100, MemoryError), Bar()
        run(model, of_length(16, 20), 160, bar=bar, limit=limit)
        assert len(bar.lines) == (1 if fold == 0 else 0)
        assert model.shapes[-1] == (5, 16)
        assert ((10, 16) in model.shapes) == (fold == 0)
    smaller = SumOfTokens()
    run(smaller, of_length(16, 4), 32, limit=limit)  # asked for less: that counts
    assert set(smaller.shapes) == {(2, 16)}


def test_a_limit_is_taken_when_the_memory_ends_in_a_later_batch() -> None:
    class Later(Filled):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            self.most_tokens = 10_000 if len(self.shapes) < 2 else 16
            return super().forward(input_ids, attention_mask)

    examples = make_examples(9, longest=9)
    model = Later(0, MemoryError)
    values = run(model, examples, 32, bar=Bar())
    assert values[:, 0].tolist() == sums(examples)
    assert [rows for rows, _ in model.shapes] == [4, 4, 1]
    few = Later(0, MemoryError)
    values = run(few, make_examples(20, longest=9), 32, bar=Bar())
    assert values[:, 0].tolist() == sums(make_examples(20, longest=9))
    assert [rows for rows, _ in few.shapes] == [4, 4, 4, *[2] * 6]


def test_without_a_bar_the_halving_is_printed(capsys) -> None:
    run(Filled(8, MemoryError), [*of_length(8, 1), *of_length(3, 1)], 16)
    assert "memory is full with 2 texts of up to 8 tokens; going on with 8 tokens at a time" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("precision", "cure"), [("float32", 'precision="fp16"'), ("bf16", "a smaller max_length")]
)
def test_a_single_row_that_does_not_fit_is_an_error_with_the_cure(precision, cure) -> None:
    examples = [*of_length(333, 1), *make_examples(5)]
    model = Filled(0, MemoryError).train()
    with pytest.raises(TrainingError, match=f"single text of 333 tokens in {precision}.*{cure}"):
        run(model, examples, 4 * 336, precision, bar=Bar())
    assert model.training


def test_another_error_of_the_model_is_not_taken_for_a_full_memory() -> None:
    model = Filled(0, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        run(model, make_examples(3), 100)
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
        examples, model = make_examples(21) + of_length(56, 16), Large().to(device)
        values = run(model, examples, 16 * 56, device=device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    assert values[:, 0].tolist() == sums(examples)
    assert [rows for rows, _ in model.shapes][:6] == [16, 8, *[4] * 4]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_and_is_not_waited_for_batch_by_batch() -> None:
    device, examples = torch.device("cuda", 0), make_examples(200)
    model = SumOfTokens().to(device)
    values = run(model, examples, 64, device=device)
    assert values[:, 0].tolist() == sums(examples)
    torch.cuda.set_sync_debug_mode("error")  # of every call that waits for all that is under way
    try:
        again = run(model, examples, 64, device=device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (again == values).all()


def test_a_clock_that_is_over_lets_no_batch_begin() -> None:
    model = Slow(1.0)
    clock = model.clock(10)
    model.moment = 10.1
    with pytest.raises(TimeIsUp):
        run(model, make_examples(5), 64, clock=clock)
    assert model.begun_at == []


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("left_behind", [0, 1])
def test_no_batch_begins_after_the_budget(
    share: float, left_behind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(prediction.LEFT_BEHIND, "cpu", left_behind)
    examples = make_examples(37)
    whole = Slow(1.0)
    values = run(whole, examples, 150, clock=whole.clock(1e9))
    model = Slow(1.0).train()
    budget = share * whole.moment
    with pytest.raises(TimeIsUp):
        run(model, examples, 150, clock=model.clock(budget))
    assert 0 < len(model.begun_at) < len(whole.begun_at) and max(model.begun_at) <= budget
    assert model.training
    late = Slow(1.0)  # by less than its last batch
    monkeypatch.delitem(prediction.LEFT_BEHIND, "cpu")
    assert (run(late, examples, 150, clock=late.clock(whole.moment - 1)) == values).all()


def test_what_cannot_be_finished_is_given_up_early_with_time_left() -> None:
    model = Slow(1.0)
    clock = model.clock(200)  # 800 are needed
    with pytest.raises(TimeIsUp) as stop:
        run(model, of_length(8, 100), 8, clock=clock)
    assert len(model.begun_at) == 2  # one that warms up, one that tells the pace
    assert stop.value.more_seconds == pytest.approx(98 * 8 / 2)
    assert stop.value.more_seconds > clock.left_seconds > 0


def test_a_slow_first_batch_is_no_reason_to_give_up() -> None:
    model = Slow(0.01, warm_up_seconds=60.0)
    run(model, of_length(8, 100), 8, clock=model.clock(70))
    assert len(model.begun_at) == 100


def weight_casts(model: nn.Module, batches: int) -> int:
    """How often predicting so many batches makes a bf16 copy of a weight of the model."""
    with torch.profiler.profile(record_shapes=True) as profile:
        run(model, of_length(8, batches), 8, "bf16")
    shapes = [list(p.shape) for p in model.parameters() if p.ndim == 2]
    copies = [event for event in profile.events() if event.name == "aten::copy_"]
    return sum(event.input_shapes[0] in shapes for event in copies)


@pytest.mark.parametrize("frozen", [False, True])
def test_autocast_casts_each_weight_once_however_many_batches(frozen: bool) -> None:
    class TwoLayers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(8, 33), nn.Linear(33, 5))

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            assert not torch.is_grad_enabled()
            return self.layers(input_ids.float())

    model = TwoLayers()
    model.layers[0].requires_grad_(not frozen)
    before = {name: p.clone() for name, p in model.named_parameters()}
    assert weight_casts(model, 6) == 2
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad == (not frozen or not name.startswith("layers.0"))
    with torch.no_grad(), Precision("bf16", "cpu").autocast():  # nothing old is kept for the next
        model.layers[0].weight.mul_(0)
        assert float(model.layers[0](torch.ones(1, 8)).sum()) == pytest.approx(
            float(model.layers[0].bias.sum()), abs=0.05
        )
