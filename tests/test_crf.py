"""The chain equals a sum over all paths, written out; illegal steps; rows that lack something."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from kernel_lib.errors import SettingsError
from kernel_lib.model.crf import ILLEGAL, LinearChainCRF, gather_words, scatter_words
from kernel_lib.runtime.device import Precision

NO, B, IN, B2, IN2 = range(5)  # of two types
LENGTHS = (4, 1, 0, 3)
MASK = torch.arange(4) < torch.tensor(LENGTHS)[:, None]


def bio(labels: int = 5) -> torch.Tensor:
    """Which steps IOB2 forbids: to I-X from all but B-X and I-X."""
    illegal = torch.zeros(labels + 1, labels + 1, dtype=torch.bool)
    for inside in range(2, labels, 2):
        illegal[:, inside] = True
        illegal[[inside - 1, inside], inside] = False
    return illegal


def make(labels: int = 5, illegal: torch.Tensor | None = None) -> LinearChainCRF:
    """A chain of random scores, which nothing trains."""
    crf = LinearChainCRF(labels, illegal=illegal).double().requires_grad_(False)
    for parameter in crf.parameters():
        parameter.normal_()
    return crf


def paths(crf, emissions: torch.Tensor, continues: bool = False) -> dict[tuple[int, ...], float]:
    """The score of every path of one row, each added up alone."""
    n, labels = emissions.shape
    illegal = crf._illegal.tolist()
    start, end, step = crf.start.tolist(), crf.end.tolist(), crf.transitions.tolist()
    found = {}
    for path in itertools.product(range(labels), repeat=n):
        score = sum(float(emissions[i, tag]) for i, tag in enumerate(path))
        if not continues:
            score += ILLEGAL if illegal[labels][path[0]] else start[path[0]]
        for a, b in itertools.pairwise(path):
            score += ILLEGAL if illegal[a][b] else step[a][b]
        found[path] = score + (ILLEGAL if illegal[path[-1]][labels] else end[path[-1]])
    return found


def log_sum(scores) -> float:
    scores = list(scores)
    return max(scores) + math.log(sum(math.exp(score - max(scores)) for score in scores))


def bioes_end() -> torch.Tensor:
    """IOB2, and B may not end a text."""
    illegal = bio()
    illegal[B, 5] = True
    return illegal


SCHEMES = {"free": None, "bio": bio(), "end": bioes_end()}
CONTINUES = {"none": None, "some": torch.tensor([True, True, False, False])}


@pytest.mark.parametrize("continues", CONTINUES.values(), ids=CONTINUES)
@pytest.mark.parametrize("illegal", SCHEMES.values(), ids=SCHEMES)
def test_likelihood_marginals_and_viterbi_equal_a_sum_over_all_paths(illegal, continues) -> None:
    crf = make(illegal=illegal)
    emissions = torch.randn(4, 4, 5, dtype=torch.float64) * 2
    tags = torch.tensor([[NO, B, IN, NO], [NO, 9, 9, 9], [9] * 4, [B2, IN2, NO, 9]])
    losses = crf.negative_log_likelihood(emissions, tags, MASK, continues)
    marginals = crf.marginals(emissions, MASK, continues)
    best = crf.viterbi(emissions, MASK, continues)
    assert losses.shape == (4,) and marginals.shape == emissions.shape
    for row, length in enumerate(LENGTHS):
        if length == 0:
            assert losses[row] == 0 and best[row] == [] and not marginals[row].any()
            continue
        within = continues is not None and bool(continues[row])
        scores = paths(crf, emissions[row, :length], within)
        total = log_sum(scores.values())
        own = scores[tuple(tags[row, :length].tolist())]
        assert float(losses[row]) == pytest.approx(total - own, abs=1e-9)
        assert tuple(best[row]) == max(scores, key=scores.__getitem__)
        for word, tag in itertools.product(range(length), range(5)):
            some = [score for path, score in scores.items() if path[word] == tag]
            wanted = log_sum(some) - total
            assert float(marginals[row, word, tag]) == pytest.approx(wanted, abs=1e-7, rel=1e-9)
        assert not marginals[row, length:].any()


def test_the_example_of_the_docstring() -> None:
    crf = LinearChainCRF(2, illegal=None).requires_grad_(False)
    emissions = torch.tensor([[[math.log(3.0), 0.0]]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss = crf.negative_log_likelihood(emissions, torch.tensor([[0]]), mask)
    assert float(loss) == pytest.approx(math.log(4 / 3), abs=1e-6)
    assert crf.marginals(emissions, mask).exp().flatten().tolist() == pytest.approx([0.75, 0.25])


def test_gradients_are_those_of_the_function() -> None:
    crf = make(3, bio(3)).requires_grad_()
    emissions = torch.randn(3, 4, 3, dtype=torch.float64, requires_grad=True)
    tags, mask = torch.tensor([[NO, B, IN, -100], [B, NO, NO, NO], [NO] * 4]), MASK[:3]
    continues = torch.tensor([False, True, False])

    def loss(emissions, start, end, transitions):
        values = {"start": start, "end": end, "transitions": transitions}
        given = (emissions, tags, mask, continues)

        class Calls(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.crf = crf

            def forward(self, *given):
                return self.crf.negative_log_likelihood(*given)

        named = {f"crf.{name}": value for name, value in values.items()}
        return torch.func.functional_call(Calls(), named, given)

    assert torch.autograd.gradcheck(loss, (emissions, crf.start, crf.end, crf.transitions))


def test_a_word_without_a_tag_may_have_any() -> None:
    crf, emissions = make(illegal=bio()), torch.randn(1, 4, 5, dtype=torch.float64)
    mask = torch.ones(1, 4, dtype=torch.bool)
    tags = torch.tensor([[B, -100, NO, -100]])
    scores = paths(crf, emissions[0])
    fitting = [score for path, score in scores.items() if path[0] == B and path[2] == NO]
    wanted = log_sum(scores.values()) - log_sum(fitting)
    assert float(crf.negative_log_likelihood(emissions, tags, mask)) == pytest.approx(wanted)
    none = crf.negative_log_likelihood(emissions, torch.full_like(tags, -100), mask)
    assert float(none) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("tags", "taken"),
    [
        ([IN, IN, NO, NO], [-1, IN, NO, NO]),  # a text cannot begin so
        ([NO, IN2, IN2, NO], [NO, -1, IN2, NO]),
        ([B, IN2, NO, IN], [B, -1, NO, -1]),
        ([NO, NO, NO, B], [NO, NO, NO, -1]),  # nor end so
        ([B, -1, IN2, NO], [B, -1, IN2, NO]),  # whether this can be is for the paths to say
        ([NO, B, NO, NO], [NO, B, NO, NO]),  # B ends here a tag, not the text
    ],
)
def test_an_impossible_tag_counts_as_not_given(tags: list[int], taken: list[int]) -> None:
    crf, emissions = make(illegal=bioes_end()), torch.randn(1, 4, 5, dtype=torch.float64)
    mask = torch.ones(1, 4, dtype=torch.bool)
    found = crf.negative_log_likelihood(emissions, torch.tensor([tags]), mask)
    wanted = crf.negative_log_likelihood(emissions, torch.tensor([taken]), mask)
    assert torch.equal(found, wanted) and 0 < float(found) < 100


def test_a_row_that_continues_a_text_may_begin_with_any_tag() -> None:
    crf, emissions = LinearChainCRF(5, illegal=bio()), torch.zeros(1, 2, 5)
    emissions[0, 0, IN] = 9
    mask = torch.ones(1, 2, dtype=torch.bool)
    tags, within = torch.tensor([[IN, IN]]), torch.tensor([True])
    assert crf.viterbi(emissions, mask, within)[0][0] == IN
    assert crf.viterbi(emissions, mask)[0][0] != IN
    assert crf.marginals(emissions, mask, within)[0, 0].exp()[IN] > 0.9
    assert crf.marginals(emissions, mask)[0, 0].exp()[IN] == 0
    loss = crf.negative_log_likelihood(emissions, tags, mask, within)
    scores = paths(crf, emissions[0], continues=True)
    assert loss.item() == pytest.approx(log_sum(scores.values()) - scores[IN, IN], abs=1e-5)
    loss.backward()
    assert not crf.start.grad.any(), "the text's beginning is learnt from where it is not"


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0, 3e4])
def test_no_illegal_step_whatever_is_predicted_and_nothing_that_is_not_finite(scale) -> None:
    crf, illegal = LinearChainCRF(5, illegal=bio()), bio()
    mask = torch.arange(40) < torch.tensor([[40], [17], [0]])
    emissions = (torch.randn(3, 40, 5) * scale).requires_grad_()
    for row in crf.viterbi(emissions, mask):
        steps = list(itertools.pairwise([5, *row]))
        assert not any(illegal[a, b] for a, b in steps)
    marginals = crf.marginals(emissions, mask)
    assert torch.isfinite(marginals).all() and (marginals <= 1e-6).all()
    if scale <= 100:  # beyond, a tag can be worth more than a forbidden step costs
        assert not marginals.exp()[0, 0, [IN, IN2]].any()
    tags = torch.randint(0, 5, (3, 40))
    losses = crf.negative_log_likelihood(emissions, tags, mask)
    losses.sum().backward()
    for tensor in (losses, emissions.grad, *(p.grad for p in crf.parameters())):
        assert torch.isfinite(tensor).all()
    assert not crf.transitions.grad[illegal[:5, :5]].any()
    assert not crf.start.grad[[IN, IN2]].any()


def test_a_row_without_words_gives_nothing_and_neither_does_padding() -> None:
    crf = LinearChainCRF(5, illegal=bio())
    emissions = torch.randn(4, 4, 5).masked_fill(~MASK[..., None], torch.nan).requires_grad_()
    tags = torch.zeros(4, 4, dtype=torch.int64)
    losses = crf.negative_log_likelihood(emissions, tags, MASK)
    assert losses[2] == 0
    losses.sum().backward()
    assert torch.equal(emissions.grad.abs().sum(-1) > 0, MASK)
    assert torch.isfinite(crf.marginals(emissions, MASK)).all()
    for parameter in crf.parameters():
        parameter.grad = None
    crf.negative_log_likelihood(emissions[2:3], tags[2:3], MASK[2:3]).sum().backward()
    assert not any(parameter.grad.any() for parameter in crf.parameters())


def test_a_row_counts_the_same_alone_and_beside_longer_ones() -> None:
    crf, emissions = make(illegal=bio()), torch.randn(4, 4, 5, dtype=torch.float64)
    tags = torch.zeros(4, 4, dtype=torch.int64)
    together = crf.negative_log_likelihood(emissions, tags, MASK)
    marginals, best = crf.marginals(emissions, MASK), crf.viterbi(emissions, MASK)
    for row, length in enumerate(LENGTHS):
        here = slice(row, row + 1), slice(0, max(1, length))
        alone = emissions[here], MASK[here]
        loss = crf.negative_log_likelihood(alone[0], tags[here], alone[1])
        assert float(loss) == pytest.approx(float(together[row]), abs=1e-12)
        assert torch.allclose(crf.marginals(*alone)[0, :length], marginals[row, :length])
        assert crf.viterbi(*alone)[0] == best[row]


def test_a_long_row_is_as_exact_as_a_short_one() -> None:
    crf = make(illegal=bio())
    emissions = torch.randn(1, 600, 5, dtype=torch.float64) * 20
    tags, mask = torch.zeros(1, 600, dtype=torch.int64), torch.ones(1, 600, dtype=torch.bool)
    emissions[..., NO] += 60
    exact = [
        crf.negative_log_likelihood(emissions, tags, mask),
        crf.marginals(emissions, mask).exp(),
    ]
    crf.float()
    found = [
        crf.negative_log_likelihood(emissions.float(), tags, mask),
        crf.marginals(emissions.float(), mask).exp(),
    ]
    assert found[0].dtype == found[1].dtype == torch.float32
    assert torch.allclose(found[0].double(), exact[0], rtol=1e-4)
    assert torch.allclose(found[1].double(), exact[1], atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_autocast_changes_nothing(precision: str) -> None:
    crf, emissions = LinearChainCRF(5, illegal=bio()), torch.randn(4, 4, 5)
    tags = torch.zeros(4, 4, dtype=torch.int64)
    loss = crf.negative_log_likelihood(emissions, tags, MASK)
    marginals, best = crf.marginals(emissions, MASK), crf.viterbi(emissions, MASK)
    with Precision(precision, "cpu").autocast():
        assert torch.equal(crf.negative_log_likelihood(emissions, tags, MASK), loss)
        assert torch.equal(crf.marginals(emissions, MASK), marginals)
        assert crf.viterbi(emissions, MASK) == best
        for half in (emissions.bfloat16(), emissions.half()):
            found = crf.negative_log_likelihood(half, tags, MASK)
            assert torch.equal(found, crf.negative_log_likelihood(half.float(), tags, MASK))


def test_an_untrained_chain_is_a_softmax_of_each_word() -> None:
    emissions = torch.randn(4, 4, 5)
    found = LinearChainCRF(5, illegal=None).marginals(emissions, MASK)
    assert torch.allclose(found[MASK], torch.log_softmax(emissions, -1)[MASK], atol=1e-6)


def test_it_learns_what_follows_what() -> None:
    crf = LinearChainCRF(3, illegal=None)
    tags, mask = torch.tensor([[0, 1, 2, 0, 1, 2]]), torch.ones(1, 6, dtype=torch.bool)
    for _ in range(10):
        crf.zero_grad()
        crf.negative_log_likelihood(torch.zeros(1, 6, 3), tags, mask).sum().backward()
        for parameter in crf.parameters():
            parameter.data -= 0.3 * parameter.grad
    assert crf.viterbi(torch.zeros(1, 6, 3), mask) == tags.tolist()


def test_what_is_forbidden_is_no_weight() -> None:
    assert sorted(LinearChainCRF(5, illegal=bio()).state_dict()) == ["end", "start", "transitions"]


def test_tables_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"shape \(5, 5\); with 5 labels.* \(6, 6\)"):
        LinearChainCRF(5, illegal=bio()[:5, :5])
    with pytest.raises(SettingsError, match="O may"):
        LinearChainCRF(5, illegal=torch.ones(6, 6, dtype=torch.bool))


def test_words_are_gathered_and_put_back() -> None:
    first = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]], dtype=torch.bool)
    values = torch.arange(30.0).view(3, 5, 2)
    words, mask = gather_words(values, first)
    assert mask.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert words[..., 0].tolist() == [[2, 6, 0], [0, 0, 0], [20, 22, 24]]
    assert torch.equal(scatter_words(words, first), values.masked_fill(~first[..., None], 0))
    nothing, mask = gather_words(values[1:2], first[1:2])
    assert nothing.shape == (1, 1, 2) and not mask.any() and not nothing.any()
    assert torch.equal(scatter_words(nothing, first[1:2]), torch.zeros(1, 5, 2))
    numbers, _ = gather_words(torch.arange(15).view(3, 5, 1), first)
    assert numbers.dtype == torch.int64 and numbers[0].flatten().tolist() == [1, 3, 0]
