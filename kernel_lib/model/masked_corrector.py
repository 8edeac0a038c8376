"""Spelling correction by a masked language model, with a second head that looks for errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kernel_lib.errors import BackboneError
from kernel_lib.model.corrector import CorrectorOutput
from kernel_lib.model.vocabulary_head import VocabularyHead, initialise, word_table

ERROR_RATE = 0.02  # of the characters in SIGHAN15's test, 2.1 %; 1.4 to 2.6 % in ECSpell's


class ScalarMix(nn.Module):
    """``gamma * sum_k softmax(w)_k h_k`` over all layers' states (Peters et al. 2018,
    arXiv 1802.05365), the embeddings' among them; at the start their plain mean.

    Args:
        count: how many states there are.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(count))
        self.gamma = nn.Parameter(torch.ones(()))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """The mixture, float32.

        Args:
            states: ``count`` of ``(batch, seq_len, hidden)``.
        """
        shares = torch.softmax(self.weights, 0)
        parts = (share * state.float() for share, state in zip(shares, states, strict=True))
        mixed: Tensor = self.gamma * sum(parts)
        return mixed


class MaskedCorrector(nn.Module):
    """Encoder, a head over the vocabulary, and one that says which characters are wrong.

    The vocabulary head says of each character what it should be; one that stays is predicted as
    itself. MacBERT4CSC has these two heads on the last state (:class:`ScalarMix`: on all of them).

    Weight files and layer-wise rates go by the name ``backbone``; all else is the head's.

    Args:
        backbone: the encoder.
        scalar_mix: whether both heads see a mixture of all layers' states; else the last ones.
        dropout: on what the heads see.
        tied: whether the vocabulary head's decoder is the encoder's word embeddings.
    """

    def __init__(
        self, backbone: PreTrainedModel, *, scalar_mix: bool, dropout: float, tied: bool = True
    ) -> None:
        super().__init__()
        config: Any = backbone.config
        self.backbone = backbone
        self.mix = ScalarMix(1 + config.num_hidden_layers) if scalar_mix else None
        self.dropout = nn.Dropout(dropout)
        self.head = VocabularyHead(backbone, tied=tied)
        self.detection = nn.Linear(config.hidden_size, 1)
        deviation = getattr(config, "initializer_range", 0.02)
        initialise(self.detection, orthogonal=False, deviation=deviation)
        # Errors are rare. A head that began at one in two would spend its first updates, and the
        # encoder's, on unlearning that, with a gradient that the right characters make (Lin et al.
        # 2017, section 4.1). The vocabulary's biases begin at 0, or as pretraining left them.
        nn.init.constant_(self.detection.bias, math.log(ERROR_RATE / (1 - ERROR_RATE)))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> CorrectorOutput:
        """The logits of each token's character, and of its being wrong.

        The detection layer is computed in float32 also under autocast; it costs nothing.

        Args:
            input_ids: ``(batch, seq_len)``.
            attention_mask: ``(batch, seq_len)``, 1 on tokens and 0 on padding.

        Raises:
            BackboneError: the layers' states cannot be mixed.
        """
        states = self.dropout(self._states(input_ids, attention_mask))
        with torch.autocast(states.device.type, enabled=False):
            detection = self.detection(states.float()).squeeze(-1)
        return CorrectorOutput(self.head(states, word_table(self.backbone)), detection)

    def _states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What the heads see, ``(batch, seq_len, hidden)``."""
        encoded = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=self.mix is not None,
        )
        if self.mix is None:
            last: Tensor = encoded.last_hidden_state
            return last
        states = encoded.hidden_states
        if len(states) != len(self.mix.weights):  # Funnel, whose layers shorten the text
            raise BackboneError(
                f"the encoder ({self.backbone.config.model_type}) gives {len(states)} states where "
                f"{len(self.mix.weights)} are to be mixed. Set scalar_mix=False."
            )
        mixed: Tensor = self.mix(states)
        return mixed
