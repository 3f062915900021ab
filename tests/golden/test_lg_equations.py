"""LG-VQ's losses against its public code and by hand.

The numbers of the public code were computed once with the functions `global_infor_sup`, `wrsrelation_sup` and
`crossEntropy` (with `wrsLayer`, `MlmLayer`, `LabelSmoothingCrossEntropy`) of `taming/models/LG_vqgan.py` in the
repository LG-VQ-language-guided-codebook-learning at commit 42c3ff16, torch 2.13, on the values of `wave` below.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tavq.align.lg import LGAligner, TextProjection, masked_loss, match_words, relation_loss, semantic_loss
from tavq.interfaces import Quantized, TextFeatures, TextUnits, sum_losses

IMAGES, WORDS, TEXT_WIDTH, WIDTH, VOCABULARY = 2, 4, 6, 3, 5


def wave(shift: float, *shape: int) -> Tensor:
    """sin(1.7 i + shift) for i = 0, 1, ... in row-major order, computed in float64."""
    count = math.prod(shape)
    return torch.sin(1.7 * torch.arange(count, dtype=torch.float64) + shift).reshape(shape).float()


def to_text(width: int, shift: float) -> TextProjection:
    made = TextProjection(width, TEXT_WIDTH)
    with torch.no_grad():
        made[0].weight.copy_(wave(shift, TEXT_WIDTH, width))
        made[0].bias.copy_(wave(shift + 1, TEXT_WIDTH))
        made[2].weight.copy_(1 + 0.1 * wave(shift + 2, TEXT_WIDTH))
        made[2].bias.copy_(0.1 * wave(shift + 3, TEXT_WIDTH))
    return made


# --- the public code --------------------------------------------------------------------------------------------


def test_the_global_semantic_alignment_equals_the_public_code() -> None:
    found = semantic_loss(wave(0.5, 3, TEXT_WIDTH), wave(0.6, 3, TEXT_WIDTH), torch.ones(3, dtype=torch.bool))
    # the code adds 1e-6 to the sum of exponentials, which is 1.1 or more here
    assert found.tolist() == pytest.approx([0.43893423676490784, 0.30642902851104736, 0.4623062014579773], abs=1e-6)
    assert found.mean().item() == pytest.approx(0.40255648891131085, abs=1e-6)


def test_the_relationship_alignment_equals_the_public_code() -> None:
    words, visual = wave(0.9, IMAGES, WORDS, TEXT_WIDTH), wave(0.7, IMAGES, 6, TEXT_WIDTH)
    rows = wave(0.8, IMAGES, WIDTH, 2, 3).flatten(2).transpose(1, 2)
    places = match_words(words, visual)
    codes = to_text(WIDTH, 0.1)(rows.gather(1, places[:, :, None].expand(-1, -1, WIDTH)))
    found = relation_loss(words, codes, torch.ones(IMAGES, WORDS, dtype=torch.bool))
    assert found.mean().item() == pytest.approx(0.5353855490684509, abs=1e-6)


def test_the_masked_word_prediction_equals_the_public_code() -> None:
    """Two words are masked in each text: the code's mean over all masked words is the mean of the texts' means."""
    masked = torch.tensor([[True, False, True, False], [False, True, False, True]])
    hidden = wave(1.0, IMAGES, WORDS, TEXT_WIDTH)[masked]
    logits = to_text(TEXT_WIDTH, 0.2)(hidden) @ wave(0.4, VOCABULARY, TEXT_WIDTH).T + wave(0.3, VOCABULARY)
    found = masked_loss(logits, torch.tensor([[0, 3, 1, 4], [2, 2, 4, 1]]), masked)
    assert found.mean().item() == pytest.approx(3.323030471801758, abs=1e-5)


# --- by hand ----------------------------------------------------------------------------------------------------


def test_infonce_of_orthogonal_texts() -> None:
    """An image on its own text among three orthogonal ones: -log(e / (e + 2)); a fourth has no text."""
    images = torch.tensor([[2.0, 0, 0], [0, 3, 0], [0, 0, 4], [1, 1, 1]])
    texts = torch.tensor([[1.0, 0, 0], [0, 5, 0], [0, 0, 1], [9, 9, 9]])
    found = semantic_loss(images, texts, torch.tensor([True, True, True, False]))
    assert found[:3].tolist() == pytest.approx([-math.log(math.e / (math.e + 2))] * 3)


def test_label_smoothing_by_hand() -> None:
    """0.9 of the cross-entropy of the right token and 0.1 of the mean over all; masked words only."""
    logits = torch.tensor([[2.0, 0, 0], [0, 0, 0], [1, 2, 3]])
    masked = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])
    ids = torch.tensor([[0, 1, 2], [2, 0, 1], [1, 1, 1]])
    losses = []
    for row, truth in zip(logits.tolist(), (0, 1, 0), strict=True):
        log = [value - math.log(sum(map(math.exp, row))) for value in row]
        losses.append(-0.9 * log[truth] - 0.1 * sum(log) / 3)
    found = masked_loss(logits, ids, masked).tolist()
    assert found == pytest.approx([(losses[0] + losses[1]) / 2, losses[2], 0])


def test_relations_by_hand_leave_padding_out() -> None:
    """Words at 90 degrees, codes at 60: the two pairs that differ by cos 60 among four."""
    words = torch.tensor([[[1.0, 0], [0, 2], [5, 5]]])
    codes = torch.tensor([[[2.0, 0], [0.5, math.sqrt(3) / 2], [1, 0]]])
    found = relation_loss(words, codes, torch.tensor([[True, True, False]]))
    assert found.item() == pytest.approx(2 * 0.5**2 / 4)


def test_a_word_matches_the_visual_token_of_the_least_angle() -> None:
    words = torch.tensor([[[1.0, 0], [-1, 1]]])
    visual = torch.tensor([[[0, 9.0], [0.1, 0.01], [-1, 0.9]]])
    assert match_words(words, visual).tolist() == [[1, 2]]


def softmax(rows: np.ndarray) -> np.ndarray:
    shares = np.exp(rows - rows.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def test_the_objective_weights_the_three_losses_and_skips_images_without_text() -> None:
    """Eq. 9 from the aligner's own parts, in float64 where it is not a network's."""
    torch.manual_seed(0)
    settings = {"semantic": 0.5, "masked": 2, "relation": 7, "tokens": 4, "width": 8, "vocabulary": VOCABULARY}
    aligner = LGAligner(LGAligner.Config.model_validate(settings), WIDTH, TEXT_WIDTH)
    assert aligner.filler is not None
    assert aligner.to_words is not None
    aligner.filler.table.copy_(wave(0.4, VOCABULARY, TEXT_WIDTH))
    mask = torch.tensor([[True, True, True, False], [False] * 4, [True] * 4])
    whole = TextUnits(wave(0.9, 3, 4, TEXT_WIDTH), mask, torch.tensor([[0, 3, 1, 0], [0] * 4, [2, 2, 4, 1]]))
    text = TextFeatures(whole, whole, whole, whole, wave(0.6, 3, TEXT_WIDTH))
    codes = wave(0.8, 3, WIDTH, 2, 2)
    levels = {2: Quantized(codes, codes, torch.zeros(3, 2, 2, dtype=torch.long), {})}
    losses = aligner(levels, text)
    assert {key: loss.weight for key, loss in losses.items()} == {
        "align/semantic": 0.5,
        "align/masked": 2,
        "align/relation": 7,
    }
    visual = aligner.tower(codes).detach().double().numpy()
    pooled = wave(0.6, 3, TEXT_WIDTH).double().numpy()
    unit = lambda rows: rows / np.linalg.norm(rows, axis=-1, keepdims=True)  # noqa: E731
    cosine = unit(visual[:, 0]) @ unit(pooled).T
    semantic = sum(-math.log(softmax(cosine[[i]][:, [0, 2]])[0, j]) for j, i in enumerate((0, 2))) / 3
    assert losses["align/semantic"].value.item() == pytest.approx(semantic, rel=1e-5)
    relation = 0.0
    for image, count in ((0, 3), (2, 4)):
        words = unit(whole.vectors[image, :count].double().numpy())
        places = (words @ unit(visual[image, 1:]).T).argmax(1)
        rows = codes[image].flatten(1).T[places]
        entries = unit(aligner.to_words(rows).detach().double().numpy())
        relation += float(((words @ words.T - entries @ entries.T) ** 2).mean()) / 3
    assert losses["align/relation"].value.item() == pytest.approx(relation, rel=1e-4)
    assert sum_losses(losses).item() == pytest.approx(sum(loss.weight * loss.value.item() for loss in losses.values()))
