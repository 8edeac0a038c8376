"""The systems' losses by their formulas, and what each proposes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from kernel_lib.model.corrector import COPY_ID, CorrectorOutput
from kernel_lib.tasks.spelling_model import corrector_loss, make_predictor
from kernel_lib.tasks.spelling_settings import SpellingSettings
from kernel_lib.text.batches import IGNORE, Batch

IDS = torch.tensor([[5, 10, 11, 12, 6, 0], [5, 3, 13, 6, 0, 0]])  # 3 is the mask
RIGHT = torch.tensor(
    [[IGNORE, 10, 14, 12, IGNORE, IGNORE], [IGNORE, 12, IGNORE, IGNORE, IGNORE, IGNORE]]
)
BATCH = Batch(IDS, (IDS != 0).long(), RIGHT)


def outputs() -> CorrectorOutput:
    torch.manual_seed(0)
    return CorrectorOutput(torch.randn(2, 6, 20), torch.randn(2, 6))


def focal(log_p: torch.Tensor, gamma: float) -> torch.Tensor:
    return -((1 - log_p.exp()) ** gamma) * log_p


def mean_by_row(losses: dict[tuple[int, int], torch.Tensor]) -> torch.Tensor:
    """The mean over two rows of the mean over a row's tokens."""
    rows = [[loss for (row, _), loss in losses.items() if row == number] for number in (0, 1)]
    return torch.stack([torch.stack(row).mean() for row in rows]).mean()


@pytest.mark.parametrize("copy_label", [True, False])
def test_the_copy_system_names_errors_and_what_noise_has_hidden(copy_label: bool) -> None:
    found = outputs()
    settings = SpellingSettings(copy_label=copy_label, focal_gamma=2.0)
    log_p = functional.log_softmax(found.logits, -1)
    kept = {(0, 1): 10, (0, 3): 12}
    labels = {(0, 2): 14, (1, 1): 12, **(dict.fromkeys(kept, COPY_ID) if copy_label else kept)}
    expected = mean_by_row({at: focal(log_p[*at, label], 2.0) for at, label in labels.items()})
    assert corrector_loss(found, BATCH, settings).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_detecting_system_weighs_both_losses() -> None:
    found = outputs()
    settings = SpellingSettings(
        system="detect", correction_weight=0.3, detection_weight=0.7, focal_gamma=2.0
    )
    log_p = functional.log_softmax(found.logits, -1)
    labels = {(0, 1): 10, (0, 2): 14, (0, 3): 12, (1, 1): 12}
    correction = mean_by_row({at: -log_p[*at, label] for at, label in labels.items()})
    wrong = {(0, 1): 0, (0, 2): 1, (0, 3): 0, (1, 1): 1}
    signed = {at: found.detection[at] * (1 if is_wrong else -1) for at, is_wrong in wrong.items()}
    detection = mean_by_row(
        {at: focal(functional.logsigmoid(logit), 2.0) for at, logit in signed.items()}
    )
    expected = 0.3 * correction + 0.7 * detection
    assert corrector_loss(found, BATCH, settings).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "keep_ids"),
    [
        ({"system": "copy"}, (0, COPY_ID)),
        ({"system": "copy", "copy_label": False}, ()),
        ({"system": "detect"}, ()),
    ],
)
def test_what_means_to_keep_a_character(make_spelling_case, changes: dict, keep_ids) -> None:
    """By the softmax of the model's own logits, of Chinese characters only."""
    case = make_spelling_case(**changes)
    model = case.task.build_model(
        Path(case.task.settings.backbone), case.tokenizer, case.examples
    ).eval()
    characters = case.task.characters
    predictor = make_predictor(model, characters, case.task.settings)
    ids = torch.from_numpy(case.examples[0].input_ids).long()[None]
    with torch.no_grad():
        p = torch.softmax(model(ids, torch.ones_like(ids)).logits[0], -1)
        found = predictor(ids, torch.ones_like(ids))[0]
    for at, own in enumerate(ids[0].tolist()):
        keep = sum(float(p[at, i]) for i in {own, *keep_ids})
        assert float(found[at, 0]) == pytest.approx(keep, rel=1e-4)
        allowed = [i for i in range(characters.size) if characters.writable[i] and i != own]
        best = sorted(allowed, key=lambda i: -float(p[at, i]))[:5]
        assert found[at, 1::2].long().tolist() == best
