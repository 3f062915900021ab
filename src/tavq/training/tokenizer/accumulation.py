"""The gradients of one step in parts of the batch, so that only one part's activations are in memory at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tavq.interfaces import DEEP, Batch, Loss, Losses, sum_losses
from tavq.losses import adaptive_weight, last_layer_gradient
from tavq.ops.collective import all_reduce_mean
from tavq.tokenizer import TokenizerOutput
from tavq.training.batches import split_evenly
from tavq.training.tokenizer.step import GeneratorStep


@dataclass(frozen=True)
class _Roots:
    """Where the last backward pass of a step starts: it runs through every trained part of the tokenizer."""

    images: Tensor
    """Decoded from the last part of the batch."""
    grid: Tensor
    """What the decoder read of the other parts."""
    losses: Tensor


class AccumulatedStep(GeneratorStep):
    """Computes the losses and gradients of `GeneratorStep`, up to rounding, in `train.accumulate` parts of the batch.

    What couples the images of a batch sees all of them: quantizer, codebook and its statistics, aligner, LeCam and a
    discriminator with batch norm. Encoder, decoder, perceptual network and any other discriminator act on each image
    alone and run part by part. The encoder's activations are computed again in the backward pass. The decoder runs a
    second time while the discriminator judges the images, as its gradient needs all of them, and a third time for the
    adaptive weight.

    Source: the gradients at the decoder's input are kept as in GradCache (Gao et al., 2021).
    """

    def backward(self, batch: Batch, step: int) -> tuple[TokenizerOutput, Losses]:
        """Compute the gradients of the tokenizer and, if it is used, of the discriminator; return every term."""
        parts = split_evenly(len(batch.images), self.config.accumulate)
        with self.autocast():
            levels = self.tokenizer.quantize_features(self._encode(batch.images, parts))
            losses = self.tokenizer.compute_losses(levels, batch.text)
        deep = levels[DEEP].quantized
        judgement, terms = None, dict(losses)
        if self.generator_is_judged(step):
            judgement, judged = self._judge(batch.images, deep.detach(), parts)
            terms |= judged
        made, pixel = self._decode_backward(batch.images, deep, losses, parts, judgement)
        terms = {**pixel, **terms}
        if self.adversarial_on(step):
            terms |= self._discriminator_backward(batch.images, made)
        return TokenizerOutput(made, levels, losses), terms

    def _encode(self, images: Tensor, parts: Sequence[slice]) -> dict[int, Tensor]:
        """The features of the whole batch at each level; activations are not kept."""
        made = [checkpoint(self.tokenizer.features, images[part], use_reentrant=False) for part in parts]
        return {level: torch.cat([features[level] for features in made]) for level in made[0]}

    def _decode(self, grid: Tensor) -> Tensor:
        with self.autocast():
            images: Tensor = self.tokenizer.decoder(grid)
        return images

    def _decode_backward(
        self, reference: Tensor, deep: Tensor, losses: Losses, parts: Sequence[slice], judgement: Tensor | None
    ) -> tuple[Tensor, Losses]:
        """Run the backward passes of the tokenizer; return the reconstructions and the pixel losses.

        The last part's pass goes on through quantizer and encoder, with the gradients that the others have left at
        the decoder's input.
        """
        made, pixel, slopes = [], [], []

        def slope(images: Tensor, part: slice) -> Tensor:
            """The gradient at a part's images."""
            made.append(images.detach().float())
            gradient, terms = self._pixel_gradient(images, reference[part], _fraction(part, reference))
            pixel.append(terms)
            found = gradient if judgement is None else judgement[part]
            return self._weigh(found.to(images.dtype))

        for part in parts[:-1]:
            grid = deep[part].detach().requires_grad_()
            images = self._decode(grid)
            torch.autograd.backward([images], [slope(images, part)])
            assert grid.grad is not None
            slopes.append(grid.grad)
        last = parts[-1]
        roots = self.replica(lambda: _Roots(self._decode(deep[last]), deep[: last.start], sum_losses(losses)))
        pairs: list[tuple[Tensor, Tensor | None]] = [(roots.images, slope(roots.images, last))]
        if slopes:
            pairs.append((roots.grid, torch.cat(slopes)))
        self._run_backward([*pairs, (roots.losses, None)])
        return torch.cat(made), _weighted_sum(pixel)

    def _pixel_gradient(self, images: Tensor, reference: Tensor, fraction: float) -> tuple[Tensor, Losses]:
        """The gradient of a part's pixel losses at its images, and the losses, as parts of the whole batch's."""
        leaf = images.float().detach().requires_grad_()
        losses = {
            key: Loss(loss.value * fraction, loss.weight) for key, loss in self._pixel_losses(leaf, reference).items()
        }
        gradient = torch.autograd.grad(sum_losses(losses), leaf)[0]
        return gradient, {key: Loss(loss.value.detach(), loss.weight) for key, loss in losses.items()}

    def _judge(self, reference: Tensor, deep: Tensor, parts: Sequence[slice]) -> tuple[Tensor, Losses]:
        """The gradient of pixel and adversarial losses at all reconstructions, and the adversarial terms."""
        assert self.config.adversarial is not None
        with torch.no_grad():
            images = torch.cat([self._decode(deep[part]).float() for part in parts])
        pixel = torch.cat(
            [self._pixel_gradient(images[part], reference[part], _fraction(part, reference))[0] for part in parts]
        )
        loss, adversarial = self._judge_images(images)
        weight = torch.full((), self.config.adversarial.weight, device=images.device)
        if self.config.adversarial.adaptive:
            norms = [torch.zeros_like(self.tokenizer.decoder.last_weight) for _ in range(2)]
            for part in parts:
                again = self._decode(deep[part])
                for norm, gradient in zip(norms, (pixel, adversarial), strict=True):
                    norm += last_layer_gradient(
                        again, self.tokenizer.decoder.last_weight, gradient[part].to(again.dtype)
                    )
            weight = weight * adaptive_weight(*(all_reduce_mean(norm) for norm in norms))
        terms = {"adversarial/generator": Loss(loss, weight), "adversarial/weight": Loss(weight, 0.0)}
        return pixel + adversarial * weight, terms

    def _score(self, images: Tensor) -> Tensor:
        """The discriminator's logits of the whole batch."""
        assert self.discriminator is not None
        assert self.config.adversarial is not None
        with self.autocast():
            if self.config.adversarial.discriminator.norm == "batch":  # its statistics are those of all images
                whole: Tensor = self.discriminator(images)
                return whole.float()
            parts = split_evenly(len(images), self.config.accumulate)
            made = [checkpoint(self.discriminator, images[part], use_reentrant=False) for part in parts]
            return torch.cat(made).float()


def _fraction(part: slice, whole: Tensor) -> float:
    return (part.stop - part.start) / len(whole)


def _weighted_sum(parts: Sequence[Losses]) -> Losses:
    """The losses of a batch from its parts', which are weighted already."""
    return {
        key: Loss(torch.stack([part[key].value for part in parts]).sum(), loss.weight) for key, loss in parts[0].items()
    }
