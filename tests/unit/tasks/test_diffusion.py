"""VQ-Diffusion as a task: drawing, text, steps drawn by their loss, and runs that resume to the bit."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tavq.core.config import build, read_yaml
from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset
from tavq.interfaces import TextFeatures, TextUnits, sum_losses
from tavq.recipes.schema import TaskRecipe
from tavq.tasks.base import GenerationBatch, Prompt, Sampling, TokenLayout
from tavq.tasks.diffusion import MIN_STEP_COUNT, Diffusion
from tavq.tasks.model_folder import load_task
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training.task.trainer import TaskTrainer

PARTS = TokenLayout(height=2, width=2, sizes=(3, 5))
RECIPES = Path(__file__).parents[3] / "src/tavq/recipes/tasks"
WIDTH = 6


def make(layout: TokenLayout = PARTS, **changes: Any) -> Diffusion:
    torch.manual_seed(0)
    config = Diffusion.Config(**{"layers": 1, "heads": 2, "width": 8, "steps": 8, **changes})
    task = Diffusion(config, layout, text_width=WIDTH if config.text else None)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return task.eval()


def text_of(*counts: int, seed: int = 0) -> TextFeatures:
    """That many words, one phrase fewer and no sentence for each image, padded."""
    generator = torch.Generator().manual_seed(seed)

    def units(numbers: list[int]) -> TextUnits:
        mask = torch.arange(max(*numbers, 1)) < torch.tensor(numbers)[:, None]
        vectors = torch.randn(*mask.shape, WIDTH, generator=generator)
        return TextUnits(vectors * mask[..., None], mask)

    return TextFeatures(units([*counts]), units([max(c - 1, 0) for c in counts]), units([0] * len(counts)))


def sample(task: Diffusion, text: TextFeatures | None = None, count: int = 2, seed: int = 1, **how: Any) -> Tensor:
    prompt = Prompt(count, text=text)
    return task.sample(prompt, Sampling(**how), torch.Generator().manual_seed(seed))


class Knows(nn.Module):
    """A network that is sure of the tokens."""

    def __init__(self, tokens: Tensor, v: int) -> None:
        super().__init__()
        self.logits = torch.nn.functional.one_hot(tokens, v) * 1e3
        self.steps_run = 0

    def forward(self, noisy: Tensor, step: Tensor, vectors: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        self.steps_run += 1
        return self.logits


TOKENS = torch.tensor([[0, 3, 1, 7, 2, 5, 2, 3], [2, 4, 0, 6, 0, 3, 1, 7]])

# --- sampling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [None, 1, 3, 8])
@pytest.mark.parametrize(
    "noise", [{}, {"keep_probability": (0.9, 0.1), "mask_probability": (0.05, 0.5)}], ids=["paper", "wide"]
)
def test_a_perfect_model_samples_the_tokens(steps: int | None, noise: dict[str, Any]) -> None:
    """So in strides as in single steps, and whatever noise it begins with."""
    task = make(text=False, **noise)
    task.network = Knows(TOKENS, 8)
    assert torch.equal(sample(task, steps=steps), TOKENS)
    assert task.network.steps_run == (steps or 8)


def test_a_perfect_model_has_no_loss() -> None:
    task = make(text=False)
    task.network = Knows(TOKENS, 8)
    assert sum_losses(task.loss(GenerationBatch(TOKENS, ("a", "b")))).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("steps", "times"),
    [(None, [8, 7, 6, 5, 4, 3, 2, 1, 0]), (1, [8, 0]), (3, [8, 5, 3, 0]), (7, [8, 7, 6, 5, 3, 2, 1, 0])],
)
def test_sampling_steps(steps: int | None, times: list[int]) -> None:
    assert make(text=False)._sampling_steps(steps) == times


def test_more_sampling_steps_than_timesteps_are_refused() -> None:
    with pytest.raises(UsageError, match=r"has 8 timesteps; --steps 9 must be between 1 and 8\."):
        sample(make(text=False), steps=9)


def test_initial_noise_has_the_scheduled_probabilities() -> None:
    task = make(text=False, keep_probability=(0.9, 0.1), mask_probability=(0.05, 0.5))
    found = task._sample_noise(5000, PARTS.allowed_tokens(), torch.Generator().manual_seed(0))
    assert (found == 8).float().mean().item() == pytest.approx(0.5, abs=0.01)
    first, second = (torch.bincount(found[:, position], minlength=9)[:8] / 5000 for position in (0, 1))
    assert first.tolist() == pytest.approx([0.5 / 3] * 3 + [0] * 5, abs=0.02)
    assert second.tolist() == pytest.approx([0] * 3 + [0.5 / 5] * 5, abs=0.02)


@pytest.mark.parametrize(
    "how",
    [{}, {"temperature": 0}, {"temperature": 50.0}, {"top_p": 0.5}, {"top_k": 2}, {"guidance": 5.0}, {"steps": 2}],
)
def test_only_allowed_tokens_are_sampled(how: dict[str, Any]) -> None:
    tokens = sample(make(keep_probability=(0.9, 0.1), mask_probability=(0.05, 0.5)), text_of(3, 1), **how)
    assert PARTS.allowed_tokens()[torch.arange(8), tokens].all()


def test_the_generator_alone_determines_the_tokens() -> None:
    task, text = make(), text_of(3, 1)
    torch.manual_seed(5)
    one = sample(task, text)
    torch.manual_seed(6)
    assert torch.equal(one, sample(task, text))
    assert not torch.equal(one, sample(task, text, seed=2))


def test_truncated_sampling_takes_only_the_most_likely() -> None:
    layout = TokenLayout(height=4, width=4, sizes=(4,))
    task = make(layout, text=False)
    logits = torch.tensor([0.05, 0.5, 0.15, 0.3]).log().expand(50, 16, -1)
    task.network = Knows(torch.zeros(50, 16, dtype=torch.int64), 4)
    task.network.logits = logits
    assert set(sample(task, count=50).flatten().tolist()) == {0, 1, 2, 3}
    assert set(sample(task, count=50, top_p=0.7).flatten().tolist()) == {1, 3}
    assert set(sample(task, count=50, top_k=3).flatten().tolist()) == {1, 2, 3}
    assert set(sample(task, count=50, temperature=0).flatten().tolist()) == {1}


def test_the_temperature_divides_the_logits() -> None:
    layout = TokenLayout(height=1, width=2, sizes=(4,))
    logits = torch.tensor([[[0.0, 1.0, 3.0, -2.0], [5.0, 0.0, 0.0, 1.0]]])
    found = make(layout, text=False)._log_start(logits, Sampling(temperature=2))
    torch.testing.assert_close(found, (logits / 2).log_softmax(2))


@torch.no_grad()
def test_the_network_distinguishes_all_timesteps() -> None:
    task = make(text=False)
    logits = torch.stack([task.network(TOKENS[:1], torch.tensor([step])) for step in range(1, 9)]).flatten(1)
    assert torch.pdist(logits).min() > 1e-3
    with_text, text = make(), text_of(2, 2)
    vectors, mask = with_text._text_vectors(text, 2)
    outputs = [with_text.network(TOKENS, torch.tensor([step, step]), vectors, mask) for step in range(1, 9)]
    assert torch.pdist(torch.stack(outputs).flatten(1)).min() > 1e-3


def test_guidance_of_1_is_off_and_more_goes_further() -> None:
    task, text = make(), text_of(3, 2)
    noisy, (vectors, mask) = torch.full((2, 8), 8), task._text_vectors(text, 2)
    assert vectors is not None
    assert mask is not None
    step = torch.tensor([4, 4])
    conditional = task.network(noisy, step, vectors, mask)
    blank = task.network(noisy, step, vectors, torch.zeros_like(mask))
    torch.testing.assert_close(task._guided_logits(noisy, 4, vectors, mask, 1.0), conditional)
    torch.testing.assert_close(task._guided_logits(noisy, 4, vectors, mask, 3.0), 3 * conditional - 2 * blank)
    torch.testing.assert_close(task._guided_logits(noisy, 4, vectors, mask, 0.0), blank)
    assert not torch.allclose(conditional, blank)


def test_guidance_without_a_model_for_it_is_refused() -> None:
    for task, text in ((make(text=False), None), (make(text_dropout=0.0), text_of(1, 2))):
        with pytest.raises(UsageError, match=r"Guidance needs a task\.diffusion that was trained with text"):
            sample(task, text, guidance=2.0)


def test_only_the_trained_size_is_supported() -> None:
    task = make(text=False)
    how = Sampling(), torch.Generator().manual_seed(1)
    with pytest.raises(UsageError, match=r"'diffusion' only generates images of 2 x 2 positions, .*; got 2 x 4"):
        task.sample(Prompt(2, size=(2, 4)), *how)
    assert torch.equal(task.sample(Prompt(2, size=(2, 2)), *how), sample(task))


def test_completion_is_refused() -> None:
    task = make(text=False)
    prompt = Prompt(2, known_tokens=TOKENS, keep_mask=torch.ones(2, 8, dtype=torch.bool))
    with pytest.raises(UsageError, match="generates whole images and cannot complete one"):
        task.sample(prompt, Sampling(), torch.Generator())


# --- text -----------------------------------------------------------------------------------------------------------


def test_required_conditions_follow_from_the_settings() -> None:
    assert Diffusion.required_conditions(Diffusion.Config()) == {"text"}
    assert Diffusion.required_conditions(Diffusion.Config(text=False)) == frozenset()
    with pytest.raises(UsageError, match=r"needs the width of the text vectors; set task\.text to false"):
        Diffusion(Diffusion.Config(layers=1, heads=1, width=2), PARTS)


def test_units_of_the_three_granularities_are_concatenated() -> None:
    text = text_of(3, 1)
    vectors, mask = make()._text_vectors(text, 2)
    assert vectors is not None
    assert mask is not None
    assert mask.tolist() == [[True] * 5 + [False], [True, False, False, False, False, False]]
    assert torch.equal(vectors[0, 3:5], text.phrases.vectors[0])


def test_full_text_is_read_if_the_store_has_it() -> None:
    units = text_of(3, 1)
    whole = TextUnits(torch.ones(2, 4, WIDTH), torch.ones(2, 4, dtype=torch.bool))
    vectors, mask = make()._text_vectors(TextFeatures(units.words, units.phrases, units.sentences, whole), 2)
    assert vectors is whole.vectors or torch.equal(torch.as_tensor(vectors), whole.vectors)
    assert mask is not None
    assert mask.all()


def test_text_is_read_and_padding_is_not() -> None:
    task, text = make(), text_of(3, 1)
    noisy, step = torch.full((2, 8), 8), torch.tensor([4, 4])
    vectors, mask = task._text_vectors(text, 2)
    assert vectors is not None
    assert mask is not None
    logits = task.network(noisy, step, vectors, mask)
    other = torch.where(mask[..., None], vectors, torch.randn_like(vectors))
    torch.testing.assert_close(logits, task.network(noisy, step, other, mask))
    assert not torch.allclose(logits, task.network(noisy, step, vectors.flip(2), mask))
    assert not torch.allclose(logits[0], logits[1])


def test_an_image_without_text_uses_the_null_vector() -> None:
    task = make()
    nothing, other = text_of(0, 0), text_of(0, 0, seed=4)
    assert torch.equal(sample(task, nothing), sample(task, other))
    losses = task.loss(GenerationBatch(TOKENS, ("a", "b"), nothing))
    sum_losses(losses).backward()
    assert task.network.null_text is not None
    assert task.network.null_text.weight.grad is not None
    assert float(task.network.null_text.weight.grad.abs().sum()) > 0


def test_missing_text_and_a_wrong_number_of_texts_are_refused() -> None:
    with pytest.raises(UsageError, match="was trained with text; give a text for each image"):
        sample(make())
    with pytest.raises(UsageError, match="Got 2 texts for 3 images"):
        sample(make(), text_of(1, 2), count=3)


def test_text_is_dropped_in_training_only() -> None:
    task = make(text_dropout=0.3)
    seen: list[Tensor] = []
    task.terms = lambda tokens, step, vectors, mask: (  # type: ignore[method-assign]
        seen.append(mask.any(1)) or torch.zeros(len(tokens)),
        torch.zeros(len(tokens)),
    )
    codes = GenerationBatch(TOKENS[:1].expand(2000, -1), ("",) * 2000, text_of(*[2] * 2000))
    task.loss(codes)
    task.train().loss(codes)
    assert seen[0].all()
    assert seen[1].float().mean().item() == pytest.approx(0.7, abs=0.03)


# --- steps drawn by their loss --------------------------------------------------------------------------------------


def test_timesteps_are_uniform_until_each_was_sampled() -> None:
    task = make(text=False, steps=4)
    task.mean_squared_losses.copy_(torch.tensor([1.0, 100.0, 4.0, 16.0]))
    task.step_counts.copy_(torch.tensor([MIN_STEP_COUNT, 99, 99, 99]))
    step, probability = task._sample_steps(4000)
    assert probability.tolist() == [0.25] * 4000
    assert (torch.bincount(step, minlength=5) / 4000).tolist() == pytest.approx([0] + [0.25] * 4, abs=0.03)


def test_timesteps_are_sampled_by_the_root_of_their_mean_squared_loss() -> None:
    task = make(text=False, steps=4)
    task.mean_squared_losses.copy_(torch.tensor([1.0, 100.0, 4.0, 16.0]))
    task.step_counts.fill_(MIN_STEP_COUNT + 1)
    step, probability = task._sample_steps(4000)
    expected = [10 / 26, 10 / 26, 2 / 26, 4 / 26]  # the first as the second
    assert (torch.bincount(step, minlength=5)[1:] / 4000).tolist() == pytest.approx(expected, abs=0.03)
    assert probability.tolist() == pytest.approx([expected[t - 1] for t in step.tolist()], rel=1e-3)


def test_the_loss_is_unbiased_for_any_timestep_weights() -> None:
    task = make(text=False, steps=4)
    task.mean_squared_losses.copy_(torch.tensor([1.0, 100.0, 4.0, 16.0]))
    task.step_counts.fill_(MIN_STEP_COUNT + 1)
    task.terms = lambda tokens, step, *_: (step.float(), step.float())  # type: ignore[method-assign]
    codes = GenerationBatch(TOKENS[:1].expand(20_000, -1), ("",) * 20_000)
    assert task.loss(codes)["diffusion/variational"].value.item() == pytest.approx((1 + 2 + 3 + 4) / 8, rel=0.02)


def test_mean_squared_losses_by_hand() -> None:
    task = make(text=False, steps=4)
    task.mean_squared_losses.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    task._update_mean_losses(torch.tensor([2, 4, 2]), torch.tensor([3.0, 2.0, 1.0]))
    assert task.mean_squared_losses.tolist() == pytest.approx([1.0, 0.9 * 2 + 0.1 * 5, 3.0, 0.9 * 4 + 0.1 * 4])
    assert task.step_counts.tolist() == [0, 2, 0, 1]


def test_several_processes_have_the_mean_losses_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, halves = make(text=False, steps=4), [make(text=False, steps=4) for _ in range(2)]
    steps, losses = torch.tensor([2, 4, 2, 1]), torch.tensor([3.0, 2.0, 1.0, 5.0])
    whole._update_mean_losses(steps, losses)
    parts: list[Tensor] = []
    monkeypatch.setattr("tavq.ops.collective.all_reduce_sum", lambda values: parts.append(values) or values)
    for half in (slice(0, 2), slice(2, 4)):
        make(text=False, steps=4)._update_mean_losses(steps[half], losses[half])
    monkeypatch.setattr("tavq.ops.collective.all_reduce_sum", lambda values: parts[0] + parts[1])
    for number, half in enumerate((slice(0, 2), slice(2, 4))):
        halves[number]._update_mean_losses(steps[half], losses[half])
        assert torch.equal(halves[number].mean_squared_losses, whole.mean_squared_losses)
        assert torch.equal(halves[number].step_counts, whole.step_counts)


def test_mean_losses_are_updated_in_training_only() -> None:
    task = make(text=False)
    task.loss(GenerationBatch(TOKENS, ("a", "b")))
    assert int(task.step_counts.sum()) == 0
    task.train().loss(GenerationBatch(TOKENS, ("a", "b")))
    task.finish_step()
    assert int(task.step_counts.sum()) == 2
    assert float(task.mean_squared_losses.sum()) > 0


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 10, "heads": 3}, "width 10 is not a multiple of 3 heads"),
        (
            {"keep_probability": (0.5, 0.6)},
            "keep_probability must fall, mask_probability rise, and their sum stay below 1",
        ),
        (
            {"keep_probability": (0.9, 0.1), "mask_probability": (0.2, 0.9)},
            "keep_probability must fall, mask_probability rise, and their sum stay below 1",
        ),
        (
            {"keep_probability": (0.5, 0.1), "mask_probability": (0.1, 0.89)},
            "must not fall faster than keep_probability does",
        ),
        ({"steps": 1}, "greater than or equal to 2"),
        ({"text_dropout": 1.0}, "less than 1"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Diffusion.Config(**changes)


@pytest.mark.parametrize("name", ["text-to-image", "text-to-image-tiny"])
def test_the_shipped_recipes(name: str) -> None:
    recipe = build(TaskRecipe, read_yaml((RECIPES / f"{name}.yaml").read_text(), name), name)
    assert isinstance(recipe.task, Diffusion.Config)
    assert build(TaskRecipe, recipe.model_dump(mode="json"), name) == recipe
    assert not recipe.data.flip


def test_the_papers_sizes() -> None:
    recipe = build(TaskRecipe, read_yaml((RECIPES / "text-to-image.yaml").read_text(), ""), "")
    task = recipe.task
    assert isinstance(task, Diffusion.Config)
    assert (task.layers, task.heads, task.width, task.steps, task.auxiliary_weight) == (19, 16, 1024, 100, 5e-4)
    with torch.device("meta"):
        made = Diffusion(task, TokenLayout(height=16, width=16, sizes=(1024,)), text_width=512)
    assert 350e6 < sum(parameter.numel() for parameter in made.parameters()) < 450e6


# --- training -------------------------------------------------------------------------------------------------------


def test_it_learns_which_tokens_belong_to_which_text() -> None:
    """Four texts and four images: each text draws its own, strided and guided too, and the bound falls below 0.3."""
    layout = TokenLayout(height=2, width=3, sizes=(6,))
    tokens = torch.tensor([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [1, 1, 5, 5, 0, 0], [2, 0, 4, 4, 3, 1]])
    torch.manual_seed(0)
    config = Diffusion.Config(layers=2, heads=2, width=32, steps=10, auxiliary_weight=0.05)
    task = Diffusion(config, layout, text_width=WIDTH).train()
    text, codes = text_of(2, 1, 3, 2), GenerationBatch(tokens.repeat(4, 1), ("",) * 16, text_of(*[2, 1, 3, 2]))
    codes = GenerationBatch(codes.tokens, codes.keys, _repeated(text, 4))
    optimizer = torch.optim.AdamW(task.parameters(), 3e-3)
    for step in range(350):
        torch.manual_seed(step)
        optimizer.zero_grad()
        sum_losses(task.loss(codes)).backward()
        task.finish_step()
        optimizer.step()
    task.eval()
    for how in ({}, {"steps": 4}, {"guidance": 2.0}, {"top_p": 0.9}):
        assert torch.equal(sample(task, text, count=4, **how), tokens)
    torch.manual_seed(0)
    assert task.bound(GenerationBatch(tokens, ("",) * 4, text)).mean().item() / 6 < 0.3


def _repeated(text: TextFeatures, times: int) -> TextFeatures:
    kinds = (text.words, text.phrases, text.sentences)
    return TextFeatures(*[TextUnits(k.vectors.repeat(times, 1, 1), k.mask.repeat(times, 1)) for k in kinds])


class TextTokenizer:
    """One to three words, a phrase and a sentence for each image, drawn from its name."""

    width = WIDTH

    def __contains__(self, key: str) -> bool:
        return True

    def vectors(self, key: str) -> Mapping[str, np.ndarray]:
        number = int(Path(key).stem)
        rng = np.random.default_rng(number)
        counts = {"words": 1 + number % 3, "phrases": 1, "sentences": 1}
        return {name: rng.standard_normal((count, WIDTH), np.float32) for name, count in counts.items()}

    def vocabulary(self, granularity: str) -> tuple[list[str], np.ndarray]:
        raise UsageError(f"These words are no {granularity}.")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    settings = {
        "net": {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False},
        "codebook": {"name": "learned", "entries": 16, "width": 8},
    }
    torch.manual_seed(0)
    Tokenizer(build(TokenizerConfig, settings, "test")).save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def train(tokenizer: Path, shared_images: Path, tmp_path: Path) -> Callable[..., Path]:
    """Trains a tiny recipe into a run folder of that name and returns the model folder."""

    def run(name: str, steps: int, resume: bool = False) -> Path:
        task = {"name": "diffusion", "layers": 1, "heads": 2, "width": 8, "steps": 4, "text_dropout": 0.3}
        settings = {"batch": 4, "ema": 0.9, "checkpoint_every": 1000, "sample_every": 20, "steps": steps}
        recipe = build(TaskRecipe, {"task": task, "data": {"size": 16}, "train": settings}, "test")
        dataset = FolderDataset(shared_images, "train")
        return TaskTrainer(recipe, tokenizer, dataset, tmp_path / name, TextTokenizer()).run(resume)

    return run


def test_resuming_gives_the_same_bits(train: Callable[..., Path]) -> None:
    """20 steps of 4 images: by the 14th all 4 noises were seen often enough to be drawn by their loss."""
    whole = train("whole", 20)
    assert int(load_task(whole).task.step_counts.min()) > MIN_STEP_COUNT
    train("parts", 14)
    parts = train("parts", 20, resume=True)
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    samples = [(run.parent / "samples/00000020.png").read_bytes() for run in (whole, parts)]
    assert samples[0] == samples[1]


def test_a_loaded_model_samples_the_same(train: Callable[..., Path]) -> None:
    model = load_task(train("run", 2))
    task = model.task
    assert isinstance(task, Diffusion)
    assert task.schedule.dtype == torch.float64
    tokens = sample(task, text_of(2, 1))
    assert model.tokenizer.decode(task.layout.to_indices(tokens)).shape == (2, 3, 16, 16)
