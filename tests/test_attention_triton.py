"""Triton's attention against the formula and against transformers.

Three places to run. Without triton: what must hold without it. With triton: the kernels in its
interpreter, on the CPU, in a process of their own (triton must be told before it is imported), and
compiled for GPUs that need not be there. With a GPU of compute capability 8.0 or more: the kernels
themselves, by the same tests.
"""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kernel_lib.errors import SettingsError
from kernel_lib.model import attention_triton
from kernel_lib.model.attention_triton import disentangled_attention, is_available
from tests.conftest import ROOT

HAS_TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu")
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")
runs_kernels = pytest.mark.skipif(
    not (HAS_TRITON and (INTERPRETED or is_available(DEVICE))),
    reason="no triton, or no GPU for it outside its interpreter",
)
pytestmark = [
    # Positions past the end are computed and thrown away.
    pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION:UserWarning"),
]
Vectors = list[Tensor | None]


@pytest.fixture(autouse=True)
def a_truer_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Triton's interpreter does otherwise than a GPU, put right.

    It holds bf16 as integers, multiplies these, and cuts off instead of rounding to the nearest.
    Up to 3.6 it also makes the end of a loop from an array in a way that numpy gave up in 2.4.
    """
    if not (HAS_TRITON and INTERPRETED):
        return
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    multiply, cast, patch = builder.create_dot, builder.cast_impl, interpreter._patch_lang_tensor

    def create_dot(self: Any, a: Any, b: Any, *others: Any) -> Any:
        widened = [self.cast_impl(x, tl.float32) if x.dtype == tl.bfloat16 else x for x in (a, b)]
        return multiply(self, *widened, *others)

    def cast_impl(self: Any, source: Any, target: Any) -> Any:
        if (source.dtype.scalar, target.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, source, target)
        rounded = torch.from_numpy(source.data.copy()).bfloat16()
        return interpreter.TensorHandle(rounded.view(torch.uint16).numpy(), tl.bfloat16)

    def patch_tensor(tensor: Any, *others: Any) -> None:
        patch(tensor, *others)
        tensor.__index__ = lambda self: self.handle.data.item()

    monkeypatch.setattr(builder, "create_dot", create_dot)
    monkeypatch.setattr(builder, "cast_impl", cast_impl)
    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch_tensor)


def formula(vectors: Vectors, indices: list[Tensor | None], mask: Tensor | None) -> Tensor:
    """The attention as its definition has it, in the vectors' type."""
    query, key, value, position_key, position_query = vectors
    seq_len, head_size = query.shape[2:]
    places = torch.arange(seq_len, device=query.device)
    slots = places[:, None] - places[None, :] + seq_len - 1
    scores = query @ key.mT
    if position_key is not None:
        scores = scores + torch.einsum("bhid,hijd->bhij", query, position_key[:, indices[0][slots]])
    if position_query is not None:
        scores = scores + torch.einsum("bhjd,hijd->bhij", key, position_query[:, indices[1][slots]])
    scores = scores / math.sqrt(3 * head_size)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min)
    return scores.softmax(-1) @ value


def made_up(
    seq_len: int,
    *,
    span: int = 24,
    terms: str = "c2p|p2c",
    head_size: int = 24,
    dtype: torch.dtype = torch.float32,
) -> tuple[Vectors, list[Tensor | None], Tensor]:
    """Vectors as projections leave them, tables as layers do, rising indices, padding."""
    heads = 2 if seq_len < 40 else 1  # the interpreter is slow
    projected = torch.randn(2, seq_len, 3, heads, head_size, device=DEVICE).to(dtype)
    projected = projected.transpose(1, 3)
    tables = torch.randn(2, span, heads, head_size, device=DEVICE).to(dtype).transpose(1, 2)
    vectors: Vectors = [projected[:, :, i] for i in range(3)]
    vectors += [tables[0] if "c2p" in terms else None, tables[1] if "p2c" in terms else None]
    steps = torch.randint(0, 3, (2, 2 * seq_len - 1), device=DEVICE).cumsum(1)
    rows = (steps - steps[:, seq_len - 1 : seq_len] + span // 2).clamp(0, span - 1).int()
    indices = [rows[i] if vectors[3 + i] is not None else None for i in range(2)]
    mask = torch.rand(2, seq_len, device=DEVICE) > 0.2
    mask[1, seq_len // 2 :] = False
    mask[:, 0] = True
    return vectors, indices, mask


def differentiated(attention: Any, vectors: Vectors, dtype: torch.dtype) -> list[Tensor]:
    """The output, and all gradients for a made-up one of the output."""
    leaves = [None if v is None else v.detach().to(dtype).requires_grad_() for v in vectors]
    output = attention(leaves)
    torch.manual_seed(1)
    to_output = torch.randn(output.shape, device=DEVICE).to(vectors[0].dtype)
    wanted = [leaf for leaf in leaves if leaf is not None]
    return [output.detach(), *torch.autograd.grad(output, wanted, to_output.to(dtype))]


def triton_attention(indices: list[Tensor | None], mask: Tensor | None) -> Any:
    def attention(vectors: Vectors) -> Tensor:
        scale = 1 / math.sqrt(3 * vectors[0].shape[-1])
        return disentangled_attention(*vectors, *indices, mask, scale=scale)

    return attention


def errors(found: list[Tensor], wanted: list[Tensor]) -> list[float]:
    """Relative in the norm; of what is 0 or tiny, absolute."""
    pairs = zip(found, wanted, strict=True)
    return [((a.double() - b).norm() / b.norm().clamp(min=1)).item() for a, b in pairs]


def compared(
    vectors: Vectors, indices: list[Tensor | None], mask: Tensor | None
) -> tuple[list[float], list[float]]:
    """Errors against float64: of the kernels, and of the formula in the vectors' own type."""

    def plain(some: Vectors) -> Tensor:
        return formula(some, indices, mask)

    dtype = vectors[0].dtype
    exact = differentiated(plain, vectors, torch.float64)
    found = differentiated(triton_attention(indices, mask), vectors, dtype)
    return errors(found, exact), errors(differentiated(plain, vectors, dtype), exact)


@runs_kernels
@pytest.mark.parametrize("seq_len", [1, 7, 16, 33, 130])
def test_output_and_gradients_are_those_of_the_formula(seq_len: int) -> None:
    found, _ = compared(*made_up(seq_len))
    assert all(error < 1e-5 for error in found), found


@runs_kernels
@pytest.mark.parametrize("terms", ["c2p", "p2c", ""])
def test_a_term_may_be_absent(terms: str) -> None:
    found, _ = compared(*made_up(20, terms=terms))
    assert all(error < 1e-5 for error in found), found


@runs_kernels
@pytest.mark.parametrize("span", [1, 2, 120])
def test_tables_may_be_shorter_or_longer_than_the_text(span: int) -> None:
    vectors, indices, _ = made_up(20, span=span)
    found, _ = compared(vectors, indices, None)
    assert all(error < 1e-5 for error in found), found


@runs_kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_as_good_as_plain_torch(dtype: torch.dtype) -> None:
    found, plain = compared(*made_up(150, dtype=dtype, head_size=64))
    assert all(ours <= theirs for ours, theirs in zip(found, plain, strict=True)), (found, plain)


@runs_kernels
def test_the_tiles_of_half_precision_compute_the_same_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kernel_lib.model.triton_kernels import launch
    from kernel_lib.model.triton_kernels.sizes import kernel_sizes

    if not INTERPRETED:
        pytest.skip("in float32 these tiles do not fit into a GPU's shared memory")
    large = kernel_sizes(64, torch.bfloat16)
    monkeypatch.setattr(launch, "kernel_sizes", lambda head_size, dtype: large)
    found, _ = compared(*made_up(150, head_size=16))
    assert all(error < 1e-5 for error in found), found


@pytest.fixture
def unwritten_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@runs_kernels
@pytest.mark.filterwarnings("ignore:.*deterministic:UserWarning")  # cuBLAS has its say on GPUs
@pytest.mark.usefixtures("unwritten_memory_is_nan")
def test_memory_that_nobody_wrote_goes_into_nothing() -> None:
    assert torch.empty(1).isnan().all()
    found, _ = compared(*made_up(40))
    assert all(error < 1e-5 for error in found), found


@runs_kernels
def test_hidden_keys_count_for_nothing_and_a_text_without_tokens_is_averaged() -> None:
    vectors, indices, mask = made_up(20)
    mask[0] = False
    found, _ = compared(vectors, indices, mask)
    assert all(error < 1e-5 for error in found), found
    attention = triton_attention(indices, mask)
    output, _, to_key, to_value, *_ = differentiated(attention, vectors, torch.float32)
    average = vectors[2][0].mean(1, keepdim=True).expand_as(output[0])
    assert torch.allclose(output[0], average, atol=1e-6)
    assert not to_key[0].any() and not to_key[1][:, ~mask[1]].any()
    assert not to_value[1][:, ~mask[1]].any()
    changed = [None if v is None else v.clone() for v in vectors]
    for tensor in changed[1:3]:
        tensor.transpose(1, 2)[1, ~mask[1]] = 1e4
    assert torch.equal(attention(changed)[1], output[1])


@runs_kernels
def test_any_strides_will_do_and_the_output_lies_token_by_token() -> None:
    vectors, indices, mask = made_up(20)
    attention = triton_attention(indices, mask)
    wanted = attention(vectors)
    turned = [None if v is None else v.mT.contiguous().mT for v in vectors]
    assert turned[0].stride(-1) != 1
    assert torch.equal(attention(turned), wanted)
    assert wanted.transpose(1, 2).is_contiguous()
    leaf = vectors[0].detach().requires_grad_()
    output, to_output = attention([leaf, *vectors[1:]]), torch.randn(wanted.shape, device=DEVICE)
    gradients = [
        torch.autograd.grad(output, leaf, gradient, retain_graph=True)[0]
        for gradient in (to_output, to_output.mT.contiguous().mT)
    ]
    assert torch.equal(*gradients)


@runs_kernels
def test_autocast_changes_nothing() -> None:
    vectors, indices, mask = made_up(20)
    attention = triton_attention(indices, mask)
    wanted = differentiated(attention, vectors, torch.float32)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        found = differentiated(attention, vectors, torch.float32)
    assert all(map(torch.equal, found, wanted))


STOCK = {
    "log_buckets": {"position_buckets": 16},
    "plain": {"position_buckets": -1, "max_relative_positions": 24},
    "shared": {"position_buckets": 16, "share_att_key": True},
    "c2p": {"position_buckets": 16, "pos_att_type": ["c2p"]},
    "p2c": {"position_buckets": 16, "pos_att_type": ["p2c"]},
}


def stock_module(**changes: Any) -> Any:
    """The attention of transformers, with its table of positions as a parameter beside it."""
    from transformers import DebertaV2Config
    from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

    config = DebertaV2Config(
        hidden_size=16,
        num_attention_heads=2,
        max_position_embeddings=64,
        relative_attention=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **{"pos_att_type": ["c2p", "p2c"], **changes},
    )
    module = DisentangledSelfAttention(config)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    module.positions = torch.nn.Parameter(torch.randn(2 * module.pos_ebd_size, 16))
    return module.to(DEVICE)


def by_triton(module: Any, hidden_states: Tensor, mask: Tensor) -> Tensor:
    """What the module computes, its attention by Triton."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    seq_len, span = hidden_states.shape[1], module.pos_ebd_size
    distances = torch.arange(1 - seq_len, seq_len, device=DEVICE)
    if module.position_buckets > 0:
        distances = make_log_bucket_position(
            distances, module.position_buckets, module.max_relative_positions
        )
    index = (distances + span).clamp(0, 2 * span - 1).int()

    def heads(tensor: Tensor) -> Tensor:
        return tensor.unflatten(-1, (2, -1)).transpose(-3, -2)

    tables: Vectors = [None, None]
    if "c2p" in module.pos_att_type:
        project = module.key_proj if module.share_att_key else module.pos_key_proj
        tables[0] = heads(project(module.positions))
    if "p2c" in module.pos_att_type:
        project = module.query_proj if module.share_att_key else module.pos_query_proj
        tables[1] = heads(project(module.positions))
    contents = (module.query_proj, module.key_proj, module.value_proj)
    vectors = [heads(project(hidden_states)) for project in contents]
    scale = 1 / math.sqrt(8 * (1 + len(module.pos_att_type)))
    output = disentangled_attention(*vectors, *tables, index, index, mask, scale=scale)
    return output.transpose(1, 2).flatten(2)


@runs_kernels
@pytest.mark.parametrize(
    ("kind", "seq_len"),
    [
        *((kind, 33) for kind in ("log_buckets", "plain")),
        *((kind, 20) for kind in ("shared", "c2p", "p2c")),
        *(("log_buckets", seq_len) for seq_len in (1, 7, 16, 130)),
    ],
)
def test_output_and_gradients_are_those_of_transformers(kind: str, seq_len: int) -> None:
    module = stock_module(**STOCK[kind])
    hidden_states = torch.randn(2, seq_len, 16, device=DEVICE)
    mask = torch.arange(seq_len, device=DEVICE) < torch.tensor([[seq_len], [(seq_len + 1) // 2]])
    mask = mask.to(DEVICE)
    to_output = torch.randn(2, seq_len, 16, device=DEVICE)

    def results(attention: Any, dtype: torch.dtype) -> dict[str, Tensor]:
        module.to(dtype).zero_grad()
        states = hidden_states.to(dtype, copy=True).requires_grad_()
        output = attention(states)
        output.backward(to_output.to(dtype))
        gradients: dict[str, Tensor] = {}
        for name, parameter in module.named_parameters():
            # By its nature a bias of keys has next to no gradient: it counts with its weight.
            layer = name.partition(".")[0]
            found = gradients.get(layer, parameter.new_empty(0))
            gradients[layer] = torch.cat([found, parameter.grad.flatten()])
        return {"output": output.detach(), "hidden_states": states.grad, **gradients}

    found = results(lambda states: by_triton(module, states, mask), torch.float32)
    wanted = results(
        lambda states: module(states, mask[:, None, None], rel_embeddings=module.positions)[0],
        torch.float64,
    )
    differences = errors(list(found.values()), list(wanted.values()))
    assert all(error < 1e-5 for error in differences), dict(zip(found, differences, strict=True))


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_all_of_this_holds_in_tritons_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-2000:]


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_for_gpus_that_are_not_there(
    capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from kernel_lib.model.triton_kernels.backward import output_products, score_gradients
    from kernel_lib.model.triton_kernels.forward import attend
    from kernel_lib.model.triton_kernels.rows import row_gradients
    from kernel_lib.model.triton_kernels.sizes import Sizes, kernel_sizes

    sizes = (*kernel_sizes(64, torch.bfloat16), Sizes(64, 0, 0, 4, 2))
    kernels = (attend, score_gradients, row_gradients, output_products)
    for kernel, size in zip(kernels, sizes, strict=True):
        options = size.options()
        constants = {"SIZE": 64, "BLOCK_D": 64, "MARGIN": 128, "BLOCK_C": size.columns, **options}
        assert compiled(kernel, constants, capability, size).metadata.shared <= 99 * 1024


def compiled(kernel: Any, constants: dict[str, int], capability: int, size: Any) -> Any:
    """The kernel as Triton makes it, from the arguments' names alone; both terms, a mask."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    vectors = "query key value output to_output to_value by_query by_key c2p p2c to_scores"
    vectors += " others_vectors position to_rows to_products"
    integers = "c2p_index p2c_index extents begins ends row_extents"
    kinds = dict.fromkeys(vectors.split(), "*bf16")
    kinds |= dict.fromkeys(integers.split(), "*i32")
    kinds |= {"log_sums": "*fp32", "products": "*fp32", "key_mask": "*i8", "scale": "fp32"}
    names = kernel.arg_names
    constants = {name: value for name, value in constants.items() if name in names}
    if "other_extents" in names:
        constants["other_extents"] = None
    kinds = {n: "constexpr" if n in constants else kinds.get(n, "i32") for n in names}
    if "constexprs" in ASTSource.__init__.__code__.co_varnames:
        source = ASTSource(kernel, kinds, constexprs=constants)
    else:  # Triton 3.2
        kinds = {name: kind for name, kind in kinds.items() if kind != "constexpr"}
        source = ASTSource(kernel, kinds, constants=constants)
    options = {"num_warps": size.warps, "num_stages": size.stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def test_without_triton_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_triton.importlib.util, "find_spec", lambda name: None)
    assert not is_available(torch.device("cpu")) and not is_available(torch.device("cuda"))
    vectors, indices, mask = made_up(3)
    with pytest.raises(SettingsError, match="needs the package triton"):
        disentangled_attention(*vectors, *indices, mask, scale=1.0)


def test_a_cpu_is_no_place_for_it_and_importing_it_does_not_import_triton() -> None:
    assert not is_available(torch.device("cpu"))
    code = "import kernel_lib.model.attention_triton, sys; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@needs_triton
@pytest.mark.parametrize(
    ("at", "change", "message"),
    [
        (1, lambda tensor: tensor[:, :, 1:], "of shapes"),
        (3, lambda tensor: tensor[:1], "of shapes"),
        (2, lambda tensor: tensor.half(), "not of one type"),
        (5, lambda tensor: tensor.long(), r"c2p_index is torch.int64 \(9,\), not int32 \(9,\)"),
        (6, lambda tensor: None, "p2c_index is None"),
    ],
)
def test_what_does_not_fit_is_refused(at: int, change: Any, message: str) -> None:
    vectors, indices, mask = made_up(5)
    arguments = [*vectors, *indices, mask]
    arguments[at] = change(arguments[at])
    with pytest.raises(ValueError, match=message):
        disentangled_attention(*arguments, scale=1.0)
