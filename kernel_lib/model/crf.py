"""A linear-chain CRF over words: what a tag is worth depends on the tag before it.

The score of a row's tags is the sum of their emissions, of a score for each step from one tag to
the next, and of one for the first and the last tag (Lafferty, McCallum, Pereira 2001). Steps that
the tagging scheme forbids have the score ``ILLEGAL``, whatever is learnt.

Rows are left-aligned words, as :func:`gather_words` makes them from tokens: special tokens, later
pieces of a word and padding are no steps of the chain. All is computed in float32, under autocast
too: no matrices are multiplied, and it lowers nothing else. Each step is normalised, so that a long
row is as exact as a short one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kernel_lib.errors import SettingsError

ILLEGAL = -1e4
"""The score of a forbidden step: a probability of 0 in float32, and finite in float16."""
_BARRED = -1e6  # the emission of a tag that a label excludes: far below any path's score


class LinearChainCRF(nn.Module):
    """The chain's scores, likelihood, marginals and best path.

    Weight files and rates: ``start``, ``end`` and ``transitions``, which are zero at first.

    A row may *continue* a text, as a later window of a long one does. Its first word is not the
    text's: ``start`` does not count there, and any tag may stand there.

    Args:
        num_labels: tags.
        illegal: ``(num_labels + 1, num_labels + 1)`` bool, True where the tag of the row may not be
            followed by that of the column; the last row is the text's beginning, the last column
            its end. Where texts are cut into windows no tag may be forbidden at the end: a window
            may end within an entity. None: all is allowed.

    Raises:
        SettingsError: ``illegal`` is of another shape, or no tag may stand everywhere, as O may.
    """

    _illegal: Tensor

    def __init__(self, num_labels: int, *, illegal: Tensor | None) -> None:
        super().__init__()
        size = num_labels + 1
        forbidden = torch.zeros(size, size, dtype=torch.bool) if illegal is None else illegal.bool()
        if tuple(forbidden.shape) != (size, size):
            raise SettingsError(
                f"illegal is of shape {tuple(forbidden.shape)}; with {num_labels} labels, the "
                f"beginning and the end it is ({size}, {size})."
            )
        everywhere = ~(forbidden[-1] | forbidden[:, -1] | forbidden.diagonal())[:-1]
        if not everywhere.any():
            raise SettingsError(
                "no label may begin, go on and end: some texts could not be tagged at all. O may."
            )
        self.start = nn.Parameter(torch.zeros(num_labels))
        self.end = nn.Parameter(torch.zeros(num_labels))
        self.transitions = nn.Parameter(torch.zeros(num_labels, num_labels))
        self.register_buffer("_illegal", forbidden.clone(), persistent=False)

    def negative_log_likelihood(
        self, emissions: Tensor, tags: Tensor, mask: Tensor, continues: Tensor | None = None
    ) -> Tensor:
        """``-log p(tags)`` of each row, of all its words together.

        A word without a tag may have any: the sum over all of them counts. So it is where a tag is
        illegal after the one before it, as I-X after O is in a text that lost a word: that one
        counts as not given.

        Args:
            emissions: ``(batch, words, labels)``.
            tags: ``(batch, words)`` int64; below 0: not given.
            mask: ``(batch, words)`` bool, True on the words, which come first.
            continues: ``(batch,)`` bool, see the class; None: no row does.

        Returns:
            ``(batch,)`` float32; 0 for a row without words.

        Example: two labels, one word, emissions (log 3, 0), all scores 0, tag 0: -log(3/4) = .288.
        """
        emissions = _clean(emissions, mask)
        start, transitions, end = self._scores(emissions, continues, ILLEGAL)
        tags = self._possible(tags, mask, continues)
        labels = torch.arange(emissions.shape[-1], device=emissions.device)
        excluded = (tags[..., None] >= 0) & (tags[..., None] != labels)
        # All paths, and those that the tags allow: the loss is the difference of their sums,
        # taken at each step, where both are small.
        paths = torch.stack([emissions, emissions.masked_fill(excluded, _BARRED)])
        alpha, total = _normalised(start + paths[:, :, 0])
        loss = total[0] - total[1]
        for word in range(1, emissions.shape[1]):
            there = mask[:, word]
            step = _forward_step(alpha, transitions) + paths[:, :, word]
            following, total = _normalised(step)
            loss = loss + (total[0] - total[1]).masked_fill(~there, 0.0)
            alpha = torch.where(there[:, None], following, alpha)
        total = torch.logsumexp(alpha + end, -1)
        return loss + total[0] - total[1]

    def marginals(self, emissions: Tensor, mask: Tensor, continues: Tensor | None = None) -> Tensor:
        """The log of each tag's probability at each word, by forward and backward sums.

        Args:
            emissions: ``(batch, words, labels)``.
            mask: ``(batch, words)`` bool, True on the words, which come first.
            continues: as for :meth:`negative_log_likelihood`.

        Returns:
            ``(batch, words, labels)`` float32, finite; 0 where no word is.
        """
        emissions = _clean(emissions, mask)
        start, transitions, end = self._scores(emissions, continues, ILLEGAL)
        forward = [_normalised(start + emissions[:, 0])[0]]
        for word in range(1, emissions.shape[1]):
            step = _forward_step(forward[-1], transitions) + emissions[:, word]
            forward.append(_normalised(step)[0])
        at_end = end.expand_as(forward[0])
        backward = [at_end]
        for word in range(emissions.shape[1] - 1, 0, -1):
            ahead = (emissions[:, word] + backward[-1])[:, None]
            step = _normalised(torch.logsumexp(transitions + ahead, -1))[0]
            backward.append(torch.where(mask[:, word, None], step, at_end))
        both = torch.stack(forward, 1) + torch.stack(backward[::-1], 1)
        return torch.log_softmax(both, -1).masked_fill(~mask[..., None], 0.0)

    @torch.no_grad()
    def viterbi(
        self, emissions: Tensor, mask: Tensor, continues: Tensor | None = None
    ) -> list[list[int]]:
        """The likeliest tags of each row; never an illegal step, however likely.

        Args:
            emissions: ``(batch, words, labels)``, finite.
            mask: ``(batch, words)`` bool, True on the words, which come first.
            continues: as for :meth:`negative_log_likelihood`.

        Returns:
            A list of tags for each row, as long as the row has words. Of equal ones the lower tag.
        """
        emissions = _clean(emissions, mask)
        start, transitions, end = self._scores(emissions, continues, -torch.inf)
        stay = torch.arange(emissions.shape[-1], device=emissions.device)
        best, before = start + emissions[:, 0], []
        for word in range(1, emissions.shape[1]):
            there = mask[:, word, None]
            reached, origin = (best[:, :, None] + transitions).max(1)
            reached = reached - reached.amax(-1, keepdim=True)
            best = torch.where(there, reached + emissions[:, word], best)
            before.append(torch.where(there, origin, stay))
        path = [(best + end).argmax(-1)]
        for origin in reversed(before):
            path.append(origin.gather(1, path[-1][:, None]).squeeze(1))
        tags, lengths = torch.stack(path[::-1], 1).tolist(), mask.sum(1).tolist()
        return [row[:length] for row, length in zip(tags, lengths, strict=True)]

    def _scores(
        self, emissions: Tensor, continues: Tensor | None, illegal: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Start ``(batch, labels)``, transitions, end; forbidden ones as ``illegal`` says."""
        start = self.start.masked_fill(self._illegal[-1, :-1], illegal)
        start = start.expand(len(emissions), -1)
        if continues is not None:
            start = start.masked_fill(continues[:, None], 0.0)
        transitions = self.transitions.masked_fill(self._illegal[:-1, :-1], illegal)
        return start, transitions, self.end.masked_fill(self._illegal[:-1, -1], illegal)

    def _possible(self, tags: Tensor, mask: Tensor, continues: Tensor | None) -> Tensor:
        """The tags; -1 for one that may not follow the tag before it, or begin or end the row."""
        given = mask & (tags >= 0)
        known = tags.masked_fill(~given, 0)
        wrong = torch.zeros_like(given)
        wrong[:, 1:] = self._illegal[known[:, :-1], known[:, 1:]] & given[:, :-1]
        wrong[:, 0] = self._illegal[-1, known[:, 0]]
        if continues is not None:
            wrong[:, 0] &= ~continues
        last = mask.clone()
        last[:, :-1] &= ~mask[:, 1:]
        wrong |= self._illegal[known, -1] & last
        return known.masked_fill(wrong | ~given, -1)


def gather_words(values: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """What stands at the words' first tokens, left-aligned.

    Args:
        values: ``(batch, seq_len, size)``.
        first: ``(batch, seq_len)`` bool.

    Returns:
        ``(batch, words, size)``, 0 where a row has no more words, and the mask ``(batch, words)``;
        ``words`` is that of the longest row, and at least 1; on a GPU, which is not waited for,
        ``seq_len``.
    """
    counts = first.sum(1)
    width = max(1, int(counts.max())) if first.device.type == "cpu" else first.shape[1]
    places = first.logical_not().byte().sort(dim=1, stable=True).indices[:, :width]
    mask = torch.arange(width, device=first.device) < counts[:, None]
    gathered = values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))
    return gathered.masked_fill(~mask[..., None], 0), mask


def scatter_words(values: Tensor, first: Tensor) -> Tensor:
    """The opposite of :func:`gather_words`: ``(batch, seq_len, size)``, 0 but at first tokens."""
    number = (first.cumsum(1) - 1).clamp(min=0)
    spread = values.gather(1, number[..., None].expand(-1, -1, values.shape[-1]))
    return spread.masked_fill(~first[..., None], 0)


def _clean(emissions: Tensor, mask: Tensor) -> Tensor:
    """In float32 or wider, 0 where no word is."""
    wide = emissions.to(torch.promote_types(emissions.dtype, torch.float32))
    return wide.masked_fill(~mask[..., None], 0.0)


def _forward_step(alpha: Tensor, transitions: Tensor) -> Tensor:
    """The sums over all tags of the word before: ``(..., labels)``."""
    return torch.logsumexp(alpha[..., :, None] + transitions, -2)


def _normalised(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores that sum up to probability 1 over the tags, and what they summed up to."""
    total = torch.logsumexp(scores, -1)
    return scores - total[..., None], total
