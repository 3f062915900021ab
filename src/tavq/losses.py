"""Pixel losses, and the weight that balances the adversarial loss against them."""

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.interfaces import Loss, Losses


def reconstruction_losses(
    images: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"], l1: float, l2: float
) -> Losses:
    """Mean absolute and mean squared error; a weight of 0 turns a term off.

    Source: VQ-GAN's public code uses l1, VQ-VAE (eq. 3) and the modern recipes l2.

    Args:
        images: the reconstructions.
        reference: the originals.
        l1: weight of the mean absolute error.
        l2: weight of the mean squared error.
    """
    difference = images - reference
    terms: Losses = {}
    if l1:
        terms["reconstruction/l1"] = Loss(difference.abs().mean(), l1)
    if l2:
        terms["reconstruction/l2"] = Loss(difference.square().mean(), l2)
    return terms


def adaptive_weight(reconstruction_gradient: Tensor, adversarial_gradient: Tensor) -> Float[Tensor, ""]:
    """‖∇ L_rec‖ / (‖∇ L_G‖ + 1e-4) at the decoder's last layer, clamped to [0, 1e4].

    Source: VQ-GAN (Esser et al., 2021), eq. 7; the constants are the public code's.
    """
    ratio = reconstruction_gradient.norm() / (adversarial_gradient.norm() + 1e-4)
    return ratio.clamp(0, 1e4).detach()


def last_layer_gradient(
    images: Float[Tensor, "b c y x"], last_weight: Tensor, gradient: Float[Tensor, "b c y x"]
) -> Tensor:
    """Backpropagate a gradient at the images to the weight of the last layer; keeps the graph."""
    return torch.autograd.grad(images, last_weight, gradient, retain_graph=True)[0]
