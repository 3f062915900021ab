"""The training step, compared with one backward pass of the sum of all losses."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from tavq.interfaces import Batch
from tavq.nets.discriminators import PatchDiscriminator
from tavq.recipes.schema import Recipe
from tavq.tokenizer import Tokenizer
from tavq.training.ema import EMA
from tavq.training.tokenizer.step import GeneratorStep

CPU = torch.device("cpu")
Make = Callable[..., Recipe]


def distance(images: Tensor, reference: Tensor) -> Tensor:
    """A stand-in for the perceptual loss: a nonlinear distance of blurred images."""
    blurred, sharp = (nn.functional.avg_pool2d(x, 4).tanh() for x in (images, reference))
    return (blurred - sharp).square().mean()


def parts(recipe: Recipe) -> tuple[Tokenizer, PatchDiscriminator, Batch]:
    torch.manual_seed(3)
    tokenizer = Tokenizer(recipe.model).train()
    assert recipe.train.adversarial is not None
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    tokenizer.codebook.init_from_features(torch.randn(64, 8))
    return tokenizer, PatchDiscriminator(recipe.train.adversarial.discriminator, seed=1), Batch(images, ("0", "1", "2"))


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=2e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


def plain_backward(
    recipe: Recipe, tokenizer: Tokenizer, discriminator: PatchDiscriminator, batch: Batch
) -> tuple[Tensor, Tensor]:
    """One total loss, as in the papers; returns it and the adaptive weight."""
    train = recipe.train
    assert train.adversarial is not None
    output = tokenizer(batch.images, batch.text)
    pixel = train.l1 * (output.images - batch.images).abs().mean()
    pixel = pixel + train.l2 * (output.images - batch.images).square().mean()
    if train.perceptual is not None:
        pixel = pixel + train.perceptual.weight * distance(output.images, batch.images)
    adversarial = -discriminator(output.images).mean()
    weight = torch.tensor(train.adversarial.weight)
    if train.adversarial.adaptive:
        last = tokenizer.decoder.conv_out.weight
        norms = [torch.autograd.grad(x, last, retain_graph=True)[0].norm() for x in (pixel, adversarial)]
        weight = weight * (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4)
    loss = pixel + weight * adversarial
    for term in output.losses.values():
        loss = loss + term.weight * term.value
    loss.backward()
    discriminator.zero_grad()
    hinge = 0.5 * (
        (1 - discriminator(batch.images)).clamp(min=0).mean()
        + (1 + discriminator(output.images.detach())).clamp(min=0).mean()
    )
    hinge.backward()
    return loss.detach(), weight


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train.l2": 0.5, "train.adversarial.adaptive": False, "train.adversarial.weight": 0.3},
        {"train.l1": 0.0, "train.l2": 2.0, "train.perceptual": {"network": "scenes", "weight": 0.7}},
    ],
)
def test_gradients_are_those_of_the_summed_losses(recipe: Make, changes: dict[str, object]) -> None:
    settings = recipe(changes)
    tokenizer, discriminator, batch = parts(settings)
    twin, twin_discriminator = deepcopy(tokenizer), deepcopy(discriminator)
    loss, weight = plain_backward(settings, twin, twin_discriminator, batch)
    perceptual = distance if settings.train.perceptual is not None else None
    step = GeneratorStep(tokenizer, discriminator, perceptual, settings.train, CPU)
    _, terms = step.backward(batch, 2)
    close(gradients(tokenizer), gradients(twin))
    close(gradients(discriminator), gradients(twin_discriminator))
    assert set(gradients(tokenizer)) == {name for name, _ in tokenizer.named_parameters()}
    assert terms["adversarial/weight"].value == pytest.approx(float(weight), rel=1e-4)
    summed = sum(float(t.weight * t.value.detach()) for key, t in terms.items() if key != "adversarial/discriminator")
    assert summed == pytest.approx(float(loss), rel=1e-4)


def test_gradients_with_an_aligner(aligned: Make, recipe: Make, words: object) -> None:
    from tavq.data.texts import collate_text

    settings = aligned({"model.text_width": 6})
    tokenizer, discriminator, batch = parts(settings)
    batch = Batch(batch.images, batch.keys, collate_text(words, batch.keys))
    twin, twin_discriminator = deepcopy(tokenizer), deepcopy(discriminator)
    torch.manual_seed(8)  # the aligner samples
    loss, _ = plain_backward(settings, twin, twin_discriminator, batch)
    torch.manual_seed(8)
    _, terms = GeneratorStep(tokenizer, discriminator, None, settings.train, CPU).backward(batch, 2)
    close(gradients(tokenizer), gradients(twin))
    assert {"align/words", "align/phrases", "align/sentences", "quantizer/commitment/low"} <= terms.keys()
    summed = sum(float(t.weight * t.value.detach()) for key, t in terms.items() if key != "adversarial/discriminator")
    assert summed == pytest.approx(float(loss), rel=1e-4)


def test_the_discriminator_is_not_run_before_its_first_step(recipe: Make) -> None:
    settings = recipe()
    tokenizer, discriminator, batch = parts(settings)
    calls: list[int] = []
    discriminator.register_forward_hook(lambda *_: calls.append(1))
    step = GeneratorStep(tokenizer, discriminator, None, settings.train, CPU)
    _, terms = step.backward(batch, 1)
    assert calls == []
    assert gradients(discriminator) == {}
    assert not any(key.startswith("adversarial") for key in terms)
    step.backward(batch, 2)
    assert len(calls) == 3  # once for the generator, once each for real and made
    assert set(gradients(discriminator)) == {name for name, _ in discriminator.named_parameters()}


def test_the_discriminator_of_vqganplus_gets_the_gradient_of_hinge_and_lecam(recipe: Make) -> None:
    modern = {"adaptive": False, "weight": 0.02, "lecam": 0.5, "start": 2}
    modern["discriminator"] = {"channels": 8, "layers": 2, "norm": "group", "downsample": "blur"}
    settings = recipe({"train.adversarial": modern})
    tokenizer, discriminator, batch = parts(settings)
    twin, twin_discriminator = deepcopy(tokenizer), deepcopy(discriminator)
    step = GeneratorStep(tokenizer, discriminator, None, settings.train, CPU)
    assert step.lecam is not None
    step.lecam.real.fill_(0.3)
    step.lecam.made.fill_(-0.2)
    _, terms = step.backward(batch, 2)
    plain_backward(settings, twin, twin_discriminator, batch)
    made = twin(batch.images).images.detach()
    scores = twin_discriminator(batch.images).mean(), twin_discriminator(made).mean()
    lecam = (scores[0] + 0.2).clamp(min=0) ** 2 + (0.3 - scores[1]).clamp(min=0) ** 2
    (0.5 * lecam).backward()  # on top of the hinge's
    close(gradients(discriminator), gradients(twin_discriminator))
    close(gradients(tokenizer), gradients(twin))
    assert terms["adversarial/lecam"].value.item() == pytest.approx(lecam.item(), rel=1e-4)
    assert step.lecam.real.item() == pytest.approx(0.999 * 0.3 + 0.001 * scores[0].item(), rel=1e-4)


def test_bf16_stays_near_fp32(recipe: Make) -> None:
    found = []
    for precision in ("fp32", "bf16"):
        settings = recipe({"train.precision": precision})
        tokenizer, discriminator, batch = parts(settings)
        GeneratorStep(tokenizer, discriminator, None, settings.train, CPU).backward(batch, 0)
        found.append(torch.cat([gradient.flatten() for gradient in gradients(tokenizer.decoder).values()]))
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.8
    assert not torch.equal(*found)


def test_the_moving_average_by_hand() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    mean = EMA(module, decay=0.5)
    nn.init.constant_(module.weight, 3.0)
    mean.update(1)  # decay 2/11: below the setting at first
    assert mean.shadow["weight"].item() == pytest.approx(2 / 11 * 1 + 9 / 11 * 3)
    nn.init.constant_(module.weight, -1.0)
    mean.update(100)  # decay 0.5: the setting
    assert mean.shadow["weight"].item() == pytest.approx(0.5 * (2 / 11 + 27 / 11) - 0.5)


def test_swapping_twice_changes_nothing() -> None:
    module = nn.Linear(3, 2)
    mean = EMA(module, decay=0.9)
    with torch.no_grad():
        module.weight.add_(1)
    weights, shadow = deepcopy(module.state_dict()), {name: value.clone() for name, value in mean.shadow.items()}
    mean.swap()
    assert torch.equal(module.weight, shadow["weight"])
    assert torch.equal(mean.shadow["weight"], weights["weight"])
    mean.swap()
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(value, shadow[name]) for name, value in mean.shadow.items())
