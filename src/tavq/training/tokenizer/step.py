"""The gradients of one training step: generator and discriminator share one forward pass."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from tavq.interfaces import DEEP, Batch, Loss, Losses, Quantized, sum_losses
from tavq.losses import adaptive_weight, last_layer_gradient, reconstruction_losses
from tavq.nets.discriminators import LeCam, PatchDiscriminator, discriminator_hinge, generator_loss
from tavq.ops.collective import all_reduce_mean, rank
from tavq.ops.shares import share_weight
from tavq.recipes.schema import TrainConfig
from tavq.tokenizer import Tokenizer, TokenizerOutput
from tavq.training.compilation import without_gradients
from tavq.training.replicas import Replica
from tavq.training.tokenizer.codes import CodeBatch

Perceptual = Callable[[Tensor, Tensor], Tensor]


class GeneratorStep:
    """Sums and weights every loss and runs the backward passes; no other place does.

    The gradients of the pixel and adversarial losses are first taken at the reconstruction. The backward pass through
    the perceptual network and the discriminator thus runs once, and serves both the adaptive weight and the update;
    the generator's backward pass runs once with their sum.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        discriminator: PatchDiscriminator | None,
        perceptual: Perceptual | None,
        config: TrainConfig,
        device: torch.device,
    ) -> None:
        self.tokenizer, self.discriminator, self.perceptual = tokenizer, discriminator, perceptual
        self.config, self.device = config, device
        lecam = config.adversarial is not None and config.adversarial.lecam > 0
        self.lecam = LeCam().to(device) if lecam else None
        self.replica = Replica(tokenizer)
        self.discriminator_replica = None if discriminator is None else Replica(discriminator)

    def autocast(self) -> torch.autocast:
        """A context of bf16 autocast, if train.precision asks for it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def adversarial_on(self, step: int) -> bool:
        """Whether the discriminator is used at this step."""
        return self.config.adversarial is not None and step >= self.config.adversarial.start

    def generator_is_judged(self, step: int) -> bool:
        """Whether the discriminator's judgement trains the tokenizer at this step."""
        adversarial = self.config.adversarial
        return adversarial is not None and step >= adversarial.start + adversarial.warmup

    def backward(self, batch: Batch, step: int) -> tuple[TokenizerOutput, Losses]:
        """Compute the gradients of the tokenizer and, if it is used, of the discriminator; return every term."""
        output = self.replica(self._reconstruct, batch)
        images = output.images.float().detach().requires_grad_()
        pixel = self._pixel_losses(images, batch.images)
        gradient = torch.autograd.grad(sum_losses(pixel), images)[0]
        terms = {**pixel, **output.losses}
        if self.generator_is_judged(step):
            adversarial, adversarial_terms = self._adversarial_gradient(images, output, gradient)
            gradient = gradient + adversarial
            terms |= adversarial_terms
        slope = self._weigh(gradient.to(output.images.dtype))
        self._run_backward([(output.images, slope), (sum_losses(output.losses), None)])
        if self.adversarial_on(step):
            terms |= self._discriminator_backward(batch.images, images.detach())
        return output, terms

    def _reconstruct(self, batch: Batch) -> TokenizerOutput:
        with self.autocast():
            output: TokenizerOutput = self.tokenizer(batch.images, batch.text)
        return output

    def _weigh(self, slope: Tensor) -> Tensor:
        """A gradient of this process's losses as it counts in the mean over processes."""
        weight = share_weight(rank())
        return slope if weight == 1 else slope * weight

    def _run_backward(self, roots: Sequence[tuple[Tensor, Tensor | None]]) -> None:
        """Run one backward pass from all roots, each with the gradient at it; of None it is the weight of a loss."""
        # With frozen parts an output may depend on no trainable parameter; backward refuses such a root.
        trained = [(root, slope) for root, slope in roots if root.requires_grad]
        weight = share_weight(rank())
        slopes = [torch.full_like(root, weight) if slope is None and weight != 1 else slope for root, slope in trained]
        torch.autograd.backward([root for root, _ in trained], slopes)

    def align(self, batch: CodeBatch) -> Losses:
        """Compute the gradients of the aligner on codes that are known; return its terms."""
        terms = self.replica(self._align, batch)
        self._run_backward([(sum_losses(terms), None)])
        return dict(terms)

    def _align(self, batch: CodeBatch) -> Losses:
        assert self.tokenizer.aligner is not None
        assert batch.text is not None
        with self.autocast():
            with torch.no_grad():
                grid = self.tokenizer.quantizer.lookup(batch.indices, self.tokenizer.codebook)
            losses: Losses = self.tokenizer.aligner({DEEP: Quantized(grid, grid, batch.indices, {})}, batch.text)
        return losses

    def _pixel_losses(self, images: Tensor, reference: Tensor) -> Losses:
        losses = reconstruction_losses(images, reference, self.config.l1, self.config.l2)
        if self.perceptual is not None and self.config.perceptual is not None:
            with self.autocast():
                distance = self.perceptual(images, reference)
            losses["reconstruction/perceptual"] = Loss(distance.float(), self.config.perceptual.weight)
        return losses

    def _adversarial_gradient(
        self, images: Tensor, output: TokenizerOutput, pixel_gradient: Tensor
    ) -> tuple[Tensor, Losses]:
        assert self.discriminator is not None
        assert self.config.adversarial is not None
        loss, gradient = self._judge_images(images)
        weight = torch.full((), self.config.adversarial.weight, device=images.device)
        if self.config.adversarial.adaptive:
            last = self.tokenizer.decoder.last_weight
            # Averaged over processes, so that all use the same weight.
            norms = [
                all_reduce_mean(last_layer_gradient(output.images, last, g.to(output.images.dtype)))
                for g in (pixel_gradient, gradient)
            ]
            weight = weight * adaptive_weight(*norms)
        terms = {"adversarial/generator": Loss(loss, weight), "adversarial/weight": Loss(weight, 0.0)}
        return gradient * weight, terms

    def _judge_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The adversarial loss of reconstructions, and its gradient at them."""
        assert self.discriminator is not None
        leaf = images.detach().requires_grad_()
        with without_gradients(self.discriminator) if self.config.compile else nullcontext():
            loss = generator_loss(self._score(leaf))
            gradient = torch.autograd.grad(loss, leaf)[0]
        return loss.detach(), gradient

    def _discriminator_backward(self, real: Tensor, fake: Tensor) -> Losses:
        assert self.discriminator is not None
        assert self.config.adversarial is not None
        assert self.discriminator_replica is not None
        real_logits, fake_logits = self.discriminator_replica(lambda: (self._score(real), self._score(fake)))
        terms: Losses = {"adversarial/discriminator": Loss(discriminator_hinge(real_logits, fake_logits), 1.0)}
        if self.lecam is not None:
            terms["adversarial/lecam"] = Loss(self.lecam(real_logits, fake_logits), self.config.adversarial.lecam)
        self._run_backward([(sum_losses(terms), None)])
        return {key: Loss(loss.value.detach(), loss.weight) for key, loss in terms.items()}

    def _score(self, images: Tensor) -> Tensor:
        """The discriminator's logits."""
        assert self.discriminator is not None
        with self.autocast():
            logits: Tensor = self.discriminator(images)
        return logits.float()
