"""What holds of the metrics whatever they are given."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from tavq.metrics.alignment import code_text_cosine, probe, ranks
from tavq.metrics.codes import CodeUsage
from tavq.metrics.distances import Gaussian, frechet_distance
from tavq.metrics.images import ImageScores, l1, l2, psnr, ssim
from tavq.metrics.record import by_key

SEEDS = st.integers(0, 2**31)


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 5), cut=st.integers(0, 5))
def test_any_split_of_the_images_adds_up(seed: int, count: int, cut: int) -> None:
    a, b = noise(count, 3, 12, 14, seed=seed).clamp(-1, 1), noise(count, 3, 12, 14, seed=seed + 1).clamp(-1, 1)
    keys = [str(i) for i in range(count)]
    whole, left, right = (ImageScores() for _ in range(3))
    whole.update(keys, a, b)
    left.update(keys[:cut], a[:cut], b[:cut])
    right.update(keys[cut:], a[cut:], b[cut:])
    left.merge(right)
    halves = by_key(left.compute())
    for found in whole.compute():
        if found.key == "ms_ssim":  # of images this small there is none
            continue
        assert halves[found.key].value == pytest.approx(found.value, rel=1e-12)
    for measure in (psnr, ssim, l1, l2):
        assert measure(a, b).tolist() == pytest.approx(measure(b, a).tolist())


@settings(max_examples=50, deadline=None)
@given(indices=st.lists(st.integers(0, 15), min_size=1, max_size=60))
def test_usage_stays_in_its_bounds(indices: list[int]) -> None:
    usage = CodeUsage((16,))
    usage.update(torch.tensor(indices).view(1, 1, -1))
    used = len(set(indices))
    assert usage.dead == 16 - used
    assert 1 - 1e-9 <= usage.perplexity <= used + 1e-9
    assert sum(share for _, share in usage.top_entries(16)) == pytest.approx(1)
    assert [entry for entry, _ in usage.top_entries(16)] == sorted(
        set(indices), key=lambda entry: (-indices.count(entry), entry)
    )


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 20))
def test_retrieval_does_not_know_the_order(seed: int, count: int) -> None:
    images, texts = (normalize(noise(count, 4, seed=seed + i), dim=1) for i in range(2))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    found = ranks(images, texts, chunk=3)
    assert ranks(images[order], texts[order]).tolist() == found[order].tolist()
    assert 1 <= found.min() <= found.max() <= count
    assert ranks(images, images).max() == 1
    assert by_key(code_text_cosine(images, images))["code_text_cosine"].value == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, width=st.integers(1, 8), rows=st.integers(1, 12))
def test_frechet_distance_is_symmetric_and_never_negative(seed: int, width: int, rows: int) -> None:
    moments = []
    for i in range(2):
        sample = noise(rows, width, seed=seed + i).double()
        moments.append(Gaussian(rows, sample.mean(dim=0), sample.mT @ sample / rows))  # singular where rows < width
    distance = frechet_distance(*moments)
    assert distance >= (moments[0].mean - moments[1].mean).square().sum() - 1e-9
    assert frechet_distance(*moments[::-1]) == pytest.approx(distance, abs=1e-6)
    assert frechet_distance(moments[0], moments[0]) == pytest.approx(0, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, count=st.integers(8, 40), width=st.integers(1, 60), scale=st.floats(1e-3, 1e3))
def test_probe_does_not_know_scale_or_offset_of_codes(seed: int, count: int, width: int, scale: float) -> None:
    codes, sentences = noise(count, width, seed=seed).double(), noise(count, 3, seed=seed + 1).double()
    pairs = ((codes, sentences), (codes * scale + scale, sentences))
    plain, moved = (by_key(probe(*pair))["probe_code_text_cosine"].value for pair in pairs)
    assert -1 <= plain <= 1
    assert moved == pytest.approx(plain, abs=1e-6)
