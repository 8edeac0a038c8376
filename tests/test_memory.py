"""Training in little memory: batches go through in parts, and nothing else changes."""

from __future__ import annotations

import weakref

import pytest
import torch

from kernel_lib.runtime.clock import Clock
from kernel_lib.training import update
from kernel_lib.training.task import Machine
from tests.test_update import gradients_at_step, rows, weights


class LittleMemory:
    """Lets a model run out of memory: with too many rows at once, and in passes by number.

    Args:
        model: whose passes are counted from 1.
        rows: how many fit.
        backward: the passes whose backward pass fails.
        forward: the passes whose forward pass fails.
        error: what is raised.
    """

    def __init__(self, model, *, rows=10**9, backward=(), forward=(), error=None) -> None:
        self.model_forward, self.rows, self.passes = model.forward, rows, 0
        self.failing_backward, self.failing_forward = backward, forward
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        self.seen: list[int] = []
        model.forward = self

    def __call__(self, input_ids, attention_mask):
        self.passes += 1
        self.seen.append(len(input_ids))
        if len(input_ids) > self.rows or self.passes in self.failing_forward:
            self.fail()
        outputs = self.model_forward(input_ids, attention_mask)
        if self.passes in self.failing_backward:
            outputs.register_hook(lambda gradient: self.fail())
        return outputs

    def fail(self) -> None:
        raise type(self.error)(*self.error.args)  # a new one, which nobody holds


LINEAR = {"adam_epsilon": 1.0, "learning_rate": 0.1, "head_learning_rate": 0.1}
"""AdamW without the division by small numbers that makes a large step of a rounding error."""


@pytest.mark.parametrize("epsilon", [0.0, 0.5])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_fold_in_little_memory_ends_with_the_same_weights(
    make_case, capsys: pytest.CaptureFixture[str], epsilon: float, accumulated: int
) -> None:
    case = make_case(
        **LINEAR,
        fgm_epsilon=epsilon,
        gradient_accumulation_steps=accumulated,
        epochs=2,
        eval_batch_tokens=1,
    )
    whole, cut = case.trainer(), case.trainer()
    start = weights(whole)
    whole.train()
    memory = LittleMemory(cut.model, rows=3)
    cut.train()
    assert memory.seen.count(8) == 1 and memory.seen.count(4) == 1 and memory.seen[-1] <= 2
    moved = 0.0
    for name, value in cut.model.state_dict().items():
        assert torch.allclose(value, whole.model.state_dict()[name], atol=1e-6), name
        moved = max(moved, float((value - start[name]).abs().max()))
    assert moved > 1e-3
    lines = [line for line in capsys.readouterr().out.splitlines() if "memory is full" in line]
    assert len(lines) == 1 and "with 8 texts" in lines[0]
    assert lines[0].endswith("with 2 at a time, the updates stay the same")


@pytest.mark.parametrize("changes", [{"loss": "mcrmse"}, {"rank_loss_weight": 1.0}], ids=str)
def test_a_loss_that_compares_texts_is_said_to_change_when_they_are_cut(
    make_case, changes, capsys: pytest.CaptureFixture[str]
) -> None:
    case = make_case(**changes, max_grad_norm=1e9)
    whole, cut = case.trainer(), case.trainer()
    expected, found = gradients_at_step(whole), gradients_at_step(cut)
    LittleMemory(cut.model, rows=2)
    for trainer in (whole, cut):
        trainer.updater.update([rows(*range(8))], None)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "memory is full" in line]
    assert "stay the same" not in line and "it is another one from here on" in line
    apart = sum(float((a - b).square().sum()) for a, b in zip(expected, found, strict=True))
    whole_norm = sum(float(a.square().sum()) for a in expected)
    assert apart > 0.01 * whole_norm


@pytest.mark.parametrize(
    ("failing", "limit"),
    [
        ({"forward": (1,)}, 4),  # the first pass of all
        ({"forward": (2,)}, 4),  # the adversarial pass
        ({"forward": (3,)}, 4),  # the second batch
        ({"backward": (1,)}, 4),
        ({"backward": (2,)}, 4),
        ({"backward": (4,)}, 4),
        ({"rows": 4, "backward": (3,)}, 2),  # the second part, the first's gradient is there
        ({"rows": 4, "backward": (5,)}, 2),  # its adversarial pass
        ({"rows": 4, "forward": (7,)}, 2),
        ({"rows": 1}, 1),
    ],
)
def test_no_half_gradient_stays_wherever_memory_ends(make_case, failing, limit: int) -> None:
    case = make_case(fgm_epsilon=0.5, max_grad_norm=1e9)
    whole, cut = case.trainer(), case.trainer()
    before = weights(cut)["backbone.embeddings.word_embeddings.weight"]
    expected, found = gradients_at_step(whole), gradients_at_step(cut)
    table = cut.model.backbone.get_input_embeddings().weight
    tables: list[torch.Tensor] = []
    cut.state.optimizer.register_step_pre_hook(lambda *_: tables.append(table.detach().clone()))
    group = [rows(*range(8)), rows(8, 9, 10)]
    LittleMemory(cut.model, **failing)
    loss = cut.updater.update(group, cut.updater.make_fgm())
    assert loss == pytest.approx(whole.updater.update(group, whole.updater.make_fgm()), rel=1e-5)
    assert cut.state.progress.rows_at_once == limit
    assert cut.state.progress.fgm_ratio == pytest.approx(whole.state.progress.fgm_ratio, rel=1e-3)
    assert torch.equal(tables[0], before)
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_all_of_a_failed_pass_is_let_go_before_memory_is_released(
    make_case, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_case(fgm_epsilon=0.2).trainer()
    fgm = trainer.updater.make_fgm()
    held: list[int] = []

    def look(device) -> None:
        gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
        held.append(len(gradients) + len(fgm._gradients) + sum(o() is not None for o in outputs))

    def note(module, inputs, output) -> None:
        outputs.append(weakref.ref(output))

    outputs: list[weakref.ref] = []
    trainer.model.head.register_forward_hook(note)
    monkeypatch.setattr(update, "release_memory", look)
    LittleMemory(trainer.model, rows=8, backward=(2, 4))
    trainer.updater.update([rows(*range(8))], fgm)
    assert held == [0, 0] and len(outputs) > 4


def test_a_batch_made_again_draws_the_same_dropout(make_case) -> None:
    case = make_case(fgm_epsilon=0.2, dropout=0.3)
    gradients = []
    for limit, failing in ((2, {}), (None, {"rows": 7, "backward": (3,)})):
        trainer = case.trainer()
        gradients.append(gradients_at_step(trainer))
        trainer.state.progress.rows_at_once = limit
        LittleMemory(trainer.model, **failing)
        torch.manual_seed(7)
        trainer.updater.update([rows(*range(8))], trainer.updater.make_fgm())
        assert trainer.state.progress.rows_at_once == 2
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    ],
)
def test_memory_also_ends_with_other_errors(make_case, error: Exception) -> None:
    trainer = make_case().trainer()
    LittleMemory(trainer.model, forward=(1,), error=error)
    trainer.updater.update([rows(0, 1)], None)
    assert trainer.state.progress.rows_at_once == 1


def test_another_error_is_no_reason_to_cut(make_case) -> None:
    trainer = make_case().trainer()
    LittleMemory(trainer.model, forward=(1,), error=RuntimeError("mat1 and mat2 shapes"))
    with pytest.raises(RuntimeError, match="shapes"):
        trainer.updater.update([rows(0, 1)], None)
    assert trainer.state.progress.rows_at_once is None


def test_a_resumed_fold_knows_how_much_memory_holds(make_case, capsys) -> None:
    case = make_case(fgm_epsilon=0, batch_size=5, eval_batch_tokens=1)
    first = case.trainer()
    first.machine = Machine(first.machine.device, first.machine.precision, Clock(0.0))
    LittleMemory(first.model, rows=3)
    assert first.train() is None
    resumed = case.trainer()
    memory = LittleMemory(resumed.model, rows=3)
    assert resumed.train() is not None
    assert max(memory.seen) == 3
    assert capsys.readouterr().out.count("memory is full") == 1
