"""A label for each word: its pieces' vectors as one, a linear layer, and a CRF where wanted."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kernel_lib.config import nearest
from kernel_lib.errors import SettingsError
from kernel_lib.model.candidates import Candidates
from kernel_lib.model.crf import LinearChainCRF, gather_words, scatter_words

Subtoken = Literal["first", "last", "mean"]
SUBTOKENS: list[str] = list(get_args(Subtoken))


class TokenOutput(NamedTuple):
    """What a model says about each word of a row.

    Attributes:
        logits: ``(batch, seq_len, labels)`` float32; a word's stand at its first token in the row,
            all else is 0.
        first: ``(batch, seq_len)`` bool, those places.
        continues: ``(batch,)`` bool, rows whose first word is not the text's first.
        crf: the model's own, which the loss needs; None: a softmax for each word.
    """

    logits: Tensor
    first: Tensor
    continues: Tensor
    crf: LinearChainCRF | None


class TokenModel(nn.Module):
    """Encoder, one vector a word, dropout, a linear layer; perhaps a CRF over a row's words.

    Weight files and layer-wise rates go by the names ``backbone``, ``head`` and ``crf``.

    Args:
        backbone: the encoder.
        num_labels: tags.
        dropout: before the linear layer.
        subtoken: the piece that stands for its word, or the mean of all. Of a word that is cut by
            the row's end, of those in the row.
        crf: whether there is one.
        illegal: the steps that it forbids, as for :class:`LinearChainCRF`.

    Raises:
        SettingsError: no such ``subtoken``; ``illegal`` is not of the labels.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        *,
        num_labels: int,
        dropout: float,
        subtoken: Subtoken,
        crf: bool,
        illegal: Tensor | None = None,
    ) -> None:
        super().__init__()
        if subtoken not in SUBTOKENS:
            raise SettingsError(f"subtoken={subtoken!r}: {nearest(subtoken, SUBTOKENS)}")
        self.backbone = backbone
        self.subtoken: Subtoken = subtoken
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.config.hidden_size, num_labels)
        nn.init.normal_(self.head.weight, std=getattr(backbone.config, "initializer_range", 0.02))
        nn.init.zeros_(self.head.bias)
        self.crf = LinearChainCRF(num_labels, illegal=illegal) if crf else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, words: Tensor) -> TokenOutput:
        """The words' logits, float32 whatever the autocast says.

        Args:
            input_ids: ``(batch, seq_len)``.
            attention_mask: ``(batch, seq_len)``, 1 on tokens and 0 on padding.
            words: ``(batch, seq_len)`` int64: the number of the token's word in its text, -1 for
                special tokens and padding. A word's tokens stand side by side; a row may begin with
                any word, and numbers may be missing.
        """
        encoded = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=False
        )
        states: Tensor = encoded.last_hidden_state
        with torch.autocast(states.device.type, enabled=False):
            pooled = pool_words(states.float(), words, self.subtoken)
            logits = self.head(self.dropout(pooled))
        first = first_tokens(words)
        # Rows without any word continue nothing and begin nothing: either will do.
        continues = (words == 0).any(1).logical_not()
        return TokenOutput(logits.masked_fill(~first[..., None], 0.0), first, continues, self.crf)


class WordProbabilities(nn.Module):
    """The words' log-probabilities, which windows and models can be averaged by.

    It shares the model it is given, and is in training or evaluation mode as that is.

    Args:
        model: whose probabilities: a softmax for each word, or a CRF's marginals.
    """

    training = Candidates.training  # the model's own mode, also after somebody else changed it

    def __init__(self, model: TokenModel) -> None:
        super().__init__()
        self.model = model

    @torch.no_grad()
    def forward(self, input_ids: Tensor, attention_mask: Tensor, words: Tensor) -> Tensor:
        """As :meth:`TokenModel.forward`.

        Returns:
            ``(batch, seq_len, labels)`` float32, finite: natural logarithms at the words' first
            tokens, 0 elsewhere.
        """
        output: TokenOutput = self.model(input_ids, attention_mask, words)
        if output.crf is None:
            found = torch.log_softmax(output.logits, -1)
            return found.masked_fill(~output.first[..., None], 0.0)
        emissions, mask = gather_words(output.logits, output.first)
        marginals = output.crf.marginals(emissions, mask, output.continues)
        return scatter_words(marginals, output.first)


def crf_loss(output: TokenOutput, labels: Tensor) -> Tensor:
    """The CRF's loss: the mean over rows of ``-log p(tags)`` for each labelled word.

    So it is a mean over rows as the losses of ``training/token_losses.py`` are, of a like size, and
    a batch gives the same gradient when it is cut in parts.

    Args:
        output: of a model with a CRF.
        labels: ``(batch, seq_len)`` int64: a word's tag at its first token; below 0 where there is
            none. What stands at other tokens is not looked at.

    Returns:
        A scalar, float32. Rows without any label count as rows, with a loss of 0.
    """
    assert output.crf is not None, "a model with a CRF"
    emissions, mask = gather_words(output.logits, output.first)
    tags = gather_words(labels[..., None], output.first)[0].squeeze(-1).masked_fill(~mask, -1)
    losses = output.crf.negative_log_likelihood(emissions, tags, mask, output.continues)
    return (losses / (tags >= 0).sum(1).clamp(min=1)).mean()


def first_tokens(words: Tensor) -> Tensor:
    """Where a word's first token in its row stands: bool, of the shape of ``words``."""
    first = words >= 0
    first[:, 1:] &= words[:, 1:] != words[:, :-1]
    return first


def pool_words(states: Tensor, words: Tensor, subtoken: Subtoken) -> Tensor:
    """One vector a word, at the place of its first token; 0 elsewhere.

    Args:
        states: ``(batch, seq_len, hidden)``.
        words: as for :meth:`TokenModel.forward`.
        subtoken: see :class:`TokenModel`.

    Example: words -1 4 4 6 and states 9 1 2 5 give, by their mean, 0 1.5 0 5.
    """
    first = first_tokens(words)
    if subtoken != "first":
        places = torch.arange(words.shape[1], device=words.device).expand_as(words)
        start = places.masked_fill(~first, 0).cummax(1).values  # of the word that a token is of
        count = torch.zeros_like(words).scatter_add_(1, start, (words >= 0).to(words.dtype))
        if subtoken == "last":
            end = (places + count - 1).clamp(min=0)
            states = states.gather(1, end[..., None].expand_as(states))
        else:
            rows = torch.arange(len(words), device=words.device)[:, None] * words.shape[1]
            pieces = states.masked_fill((words < 0)[..., None], 0.0).flatten(0, 1)
            sums = torch.zeros_like(pieces).index_add(0, (rows + start).flatten(), pieces)
            states = sums.view_as(states) / count.clamp(min=1)[..., None]
    return states.masked_fill(~first[..., None], 0.0)
