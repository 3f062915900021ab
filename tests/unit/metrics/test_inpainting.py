"""Metrics of the hidden part by hand, against those of full images and against scikit-image's map."""

import pytest
import torch
from skimage.metrics import structural_similarity
from torch.nn.functional import avg_pool2d

from tavq.core.errors import UsageError
from tavq.metrics.images import psnr, ssim
from tavq.metrics.inpainting import hidden_distance, hidden_psnr, hidden_ssim
from tavq.nets.features.extractors import FeatureNetwork, ScenesNetwork, perceptual_distances, unit_stages


def images(seed: int) -> torch.Tensor:
    return torch.rand(3, 3, 24, 20, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_psnr_by_hand() -> None:
    reference = torch.zeros(2, 3, 4, 4)
    completed = reference.clone()
    completed[0, :, 0, 0] = 0.2  # an error of 0.1 at one of two hidden pixels: 0.01 / 2 in the mean square
    completed[1, :, 3, 3] = 1.0  # where nothing is hidden
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[:, 0, :2] = True
    expected = torch.tensor([-10 * torch.tensor(0.005).log10(), 100.0], dtype=torch.float64)
    torch.testing.assert_close(hidden_psnr(completed, reference, masks), expected, atol=1e-5, rtol=0)


def test_scores_of_a_fully_hidden_image_are_those_of_the_image() -> None:
    a, b = images(0), images(1)
    everything = torch.ones(3, 24, 20, dtype=torch.bool)
    torch.testing.assert_close(hidden_psnr(a, b, everything), psnr(a, b))
    torch.testing.assert_close(hidden_ssim(a, b, everything), ssim(a, b))


def test_ssim_is_the_mean_of_the_map_over_hidden_centres() -> None:
    a, b = images(0), images(1)
    masks = torch.rand(3, 24, 20, generator=torch.Generator().manual_seed(2)) < 0.3
    found = hidden_ssim(a, b, masks)
    for one, other, mask, value in zip(a, b, masks, found, strict=True):
        pair = ((image.double() + 1).div(2).numpy() for image in (one, other))
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
        _, full = structural_similarity(*pair, channel_axis=0, full=True, **settings)
        inner = torch.from_numpy(full).mean(0)[5:-5, 5:-5][mask[5:-5, 5:-5]]
        torch.testing.assert_close(value, inner.mean())


def test_known_pixels_do_not_count() -> None:
    a, b = images(0), images(1)
    masks = torch.zeros(3, 24, 20, dtype=torch.bool)
    masks[:, 6:18, 6:14] = True
    changed = torch.where(masks[:, None], a, b)
    assert torch.equal(hidden_psnr(changed, b, masks), hidden_psnr(a, b, masks))


def test_an_image_without_hidden_pixels_cannot_be_measured() -> None:
    a, masks = images(0), torch.ones(3, 24, 20, dtype=torch.bool)
    masks[1] = False
    with pytest.raises(UsageError, match="An image has no hidden pixel"):
        hidden_psnr(a, a, masks)
    masks[1, 0, 0] = True  # the middle of no window
    with pytest.raises(UsageError, match="An image has no hidden pixel"):
        hidden_ssim(a, a, masks)
    with pytest.raises(UsageError, match="at least 11 x 11"):
        hidden_ssim(a[:, :, :10], a[:, :, :10], masks[:, :10])


# --- the distance in features ---------------------------------------------------------------------------------------


class Pooled(FeatureNetwork):
    """Two simple stages: the pixels, and their means over 2 x 2 squares."""

    name = "pooled"

    def __init__(self, heads: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.weights = [torch.tensor([weight, 2 * weight, 0.0]) for weight in heads]

    @property
    def heads(self) -> list[torch.Tensor]:
        return self.weights

    def stages(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [images, avg_pool2d(images, 2)]


def colours(red: float, green: float, blue: float) -> torch.Tensor:
    return torch.tensor([red, green, blue]).view(1, 3, 1, 1).expand(1, 3, 4, 4).clone()


def test_the_distance_by_hand() -> None:
    """Of red and green the squared distance of unit vectors is 2; the left half is known and equal."""
    reference, completed = colours(0.7, 0, 0), colours(0.7, 0, 0)
    completed[:, :, :, 2:] = colours(0, 0.2, 0)[:, :, :, 2:]
    right = torch.zeros(1, 4, 4, dtype=torch.bool)
    right[:, :, 2:] = True
    # of the squares' maps, 0 and 2, the linear map to four columns is 0, 0.5, 1.5, 2
    assert hidden_distance(Pooled(), completed, reference, right).tolist() == pytest.approx([(2 + 1.75) / 2])
    assert hidden_distance(Pooled(), completed, reference, ~right).tolist() == pytest.approx([(0 + 0.25) / 2])
    # heads: red weighs w and green 2 w, so 3 w, and stages are added
    assert hidden_distance(Pooled((0.5, 1.0)), completed, reference, right).tolist() == pytest.approx(
        [0.5 * 3 + 1.75 / 2 * 3]
    )


def test_the_distance_of_a_fully_hidden_image_is_that_of_the_image() -> None:
    """With integer factors of resizing and constant differences, away from edges."""
    a, b = (colours(*values).expand(2, -1, -1, -1) for values in ((0.3, 0.1, 0.9), (0.2, 0.8, 0.4)))
    everything = torch.ones(2, 4, 4, dtype=torch.bool)
    for network in (Pooled(), Pooled((0.4, 0.3))):
        torch.testing.assert_close(
            hidden_distance(network, a, b, everything), perceptual_distances(network, a, b).double()
        )


def test_stages_of_the_originals_may_be_passed_in() -> None:
    network = ScenesNetwork()
    a, b = (torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1 for seed in (0, 1))
    masks = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(2)) < 0.3
    found = hidden_distance(network, a, b, masks)
    assert torch.equal(found, hidden_distance(network, a, unit_stages(network, b), masks))
    assert (found > 0.1).all()
    assert hidden_distance(network, b, b, masks).tolist() == [0, 0]


def test_each_image_has_its_own_mask_in_the_distance() -> None:
    network = ScenesNetwork()
    a, b = (torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1 for seed in (0, 1))
    masks = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(2)) < 0.3
    alone = torch.cat([hidden_distance(network, a[i : i + 1], b[i : i + 1], masks[i : i + 1]) for i in (0, 1)])
    torch.testing.assert_close(hidden_distance(network, a, b, masks), alone)
