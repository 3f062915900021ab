"""One training step: the generator and the discriminator on one shared forward pass."""

from collections.abc import Callable

import torch
from torch import Tensor

from tavq.interfaces import Batch, Loss, Losses, sum_losses
from tavq.losses import adaptive_weight, last_layer_gradient, reconstruction
from tavq.nets.discriminators import LeCam, PatchCritic, discriminator_hinge, generator_loss
from tavq.ops.collective import all_reduce_mean
from tavq.recipes.schema import TrainConfig
from tavq.tokenizer import Output, Tokenizer

Perceptual = Callable[[Tensor, Tensor], Tensor]


class GeneratorStep:
    """Sums, weights and steps every loss; the one place that does.

    The gradients of pixel and adversarial losses are taken at the reconstruction first. Their path through the
    perceptual and the discriminator network is so walked once, serving the adaptive weight and the update both,
    and the generator is walked back once with their sum.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        discriminator: PatchCritic | None,
        perceptual: Perceptual | None,
        config: TrainConfig,
        device: torch.device,
    ) -> None:
        self.tokenizer, self.discriminator, self.perceptual = tokenizer, discriminator, perceptual
        self.config, self.device = config, device
        lecam = config.adversarial is not None and config.adversarial.lecam > 0
        self.lecam = LeCam().to(device) if lecam else None

    def autocast(self) -> torch.autocast:
        """bf16 where the settings ask for it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def adversarial_on(self, step: int) -> bool:
        """True from the adversary's first step on."""
        return self.config.adversarial is not None and step >= self.config.adversarial.start

    def backward(self, batch: Batch, step: int) -> tuple[Output, Losses]:
        """Fills the gradients of the tokenizer, and of the discriminator where it counts; returns every term."""
        with self.autocast():
            output = self.tokenizer(batch.images, batch.text)
        images = output.images.float().detach().requires_grad_()
        pixel = self._pixel_losses(images, batch.images)
        gradient = torch.autograd.grad(sum_losses(pixel), images)[0]
        terms = {**pixel, **output.losses}
        if self.adversarial_on(step):
            adversarial, adversarial_terms = self._adversarial_gradient(images, output, gradient)
            gradient = gradient + adversarial
            terms |= adversarial_terms
        ends = [(output.images, gradient.to(output.images.dtype)), (sum_losses(output.losses), None)]
        # of frozen parts nothing may lead back
        moving = [(end, slope) for end, slope in ends if end.requires_grad]
        torch.autograd.backward([end for end, _ in moving], [slope for _, slope in moving])
        if self.adversarial_on(step):
            terms |= self._discriminator_backward(batch.images, images.detach())
        return output, terms

    def _pixel_losses(self, images: Tensor, reference: Tensor) -> Losses:
        losses = reconstruction(images, reference, self.config.l1, self.config.l2)
        if self.perceptual is not None and self.config.perceptual is not None:
            with self.autocast():
                distance = self.perceptual(images, reference)
            losses["reconstruction/perceptual"] = Loss(distance.float(), self.config.perceptual.weight)
        return losses

    def _adversarial_gradient(self, images: Tensor, output: Output, pixel_gradient: Tensor) -> tuple[Tensor, Losses]:
        assert self.discriminator is not None
        assert self.config.adversarial is not None
        with self.autocast():
            loss = generator_loss(self.discriminator(images).float())
        gradient = torch.autograd.grad(loss, images)[0]
        weight = torch.tensor(self.config.adversarial.weight, device=images.device)
        if self.config.adversarial.adaptive:
            last = self.tokenizer.decoder.last_weight
            norms = [
                all_reduce_mean(last_layer_gradient(output.images, last, g.to(output.images.dtype)))
                for g in (pixel_gradient, gradient)
            ]
            weight = weight * adaptive_weight(*norms)
        terms = {"adversarial/generator": Loss(loss.detach(), float(weight)), "adversarial/weight": Loss(weight, 0.0)}
        return gradient * weight, terms

    def _discriminator_backward(self, real: Tensor, fake: Tensor) -> Losses:
        assert self.discriminator is not None
        assert self.config.adversarial is not None
        with self.autocast():
            real_logits, fake_logits = self.discriminator(real).float(), self.discriminator(fake).float()
        terms: Losses = {"adversarial/discriminator": Loss(discriminator_hinge(real_logits, fake_logits), 1.0)}
        if self.lecam is not None:
            terms["adversarial/lecam"] = Loss(self.lecam(real_logits, fake_logits), self.config.adversarial.lecam)
        sum_losses(terms).backward()
        return {key: Loss(value.detach(), weight) for key, (value, weight) in terms.items()}
