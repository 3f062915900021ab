"""What every registered task that draws does, on one part a position and on several.

A new task needs no line here unless its settings open another path through it; then that goes into `VARIANTS`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.interfaces import TextFeatures, sum_losses
from tavq.tasks.base import GenerationBatch, GenerationTask, Prompt, Sampling, Task, TokenLayout, tasks
from tavq.tasks.model_folder import TaskConfig, load_task, save_task
from tavq.tokenizer import Tokenizer

SMALL = {"layers": 2, "heads": 2, "width": 16, "steps": 4}
"""Settings that a task is given where it has them."""

VARIANTS: dict[str, list[dict[str, Any]]] = {"prior": [{"segmentation": True}]}
"""Settings of a task beside `SMALL`; it is also tested without them."""

CASES = [
    (name, changes)
    for name in tasks
    if issubclass(tasks[name], GenerationTask)
    for changes in [{}, *VARIANTS.get(name, [])]
]
LAYOUTS = {
    "one part": TokenLayout(height=3, width=4, sizes=(7,)),
    "three parts": TokenLayout(height=2, width=3, sizes=(3, 5, 2)),
}
CONDITION = TokenLayout(height=2, width=2, sizes=(6,))
B = 4

SAMPLINGS = [Sampling(), Sampling(temperature=0), Sampling(temperature=0.7, top_k=2), Sampling(top_p=0.5)]

pytestmark = [
    pytest.mark.parametrize(("name", "changes"), CASES, ids=lambda value: value if isinstance(value, str) else ""),
    pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS),
]


@pytest.fixture
def config(name: str, changes: dict[str, Any], layout: TokenLayout, text: Callable[..., TextFeatures]) -> TaskConfig:
    known = tasks[name].Config.model_fields
    settings = {"name": name, **{key: value for key, value in SMALL.items() if key in known}, **changes}
    required = tasks[name].required_conditions(tasks[name].Config.model_validate(settings))
    values = {"task": settings, "layout": layout}
    values |= {"condition_layout": CONDITION} if "segmentation" in required else {}
    values |= {"text_width": text([1]).words.vectors.shape[2]} if "text" in required else {}
    return build(TaskConfig, values, "test")


@pytest.fixture
def task(config: TaskConfig) -> Task:
    """Its weights moved apart: fresh ones may be so small, or 0, that nothing comes through."""
    torch.manual_seed(0)
    made = config.make().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    return made


def random_tokens(layout: TokenLayout, seed: int, count: int = B) -> Tensor:
    """Random tokens, each allowed where it stands."""
    shares = layout.allowed_tokens().float()
    return torch.multinomial(shares, count, True, generator=torch.Generator().manual_seed(seed)).T


@pytest.fixture
def conditions(task: Task, config: TaskConfig, text: Callable[..., TextFeatures]) -> dict[str, Any]:
    """The text and tokens that the task is given."""
    required = task.required_conditions(config.task)
    found: dict[str, Any] = {"text": text([1, 3, 4, 2])} if "text" in required else {}
    return found | ({"condition": random_tokens(CONDITION, 8)} if "segmentation" in required else {})


@pytest.fixture
def codes(layout: TokenLayout, conditions: dict[str, Any]) -> GenerationBatch:
    return GenerationBatch(random_tokens(layout, 1), tuple("abcd"), **conditions)


def sample(task: Task, prompt: Prompt, sampling: Sampling | None = None, seed: int = 5) -> Tensor:
    return task.sample(prompt, sampling or Sampling(), torch.Generator().manual_seed(seed))


def masks(task: Task, layout: TokenLayout) -> list[Tensor]:
    """Which tokens are kept, for a task that completes so."""
    n, places = layout.length, torch.arange(layout.length)
    ends = torch.tensor([0, 1, n // 2, n - 1])
    found = [(places < ends[:, None]), (places < n // 2).expand(B, n), torch.ones(B, n).bool()]
    if task.completion == "any":
        found.append(torch.rand(B, n, generator=torch.Generator().manual_seed(2)) < 0.5)
    return found


def test_the_loss_is_finite_and_reaches_every_parameter(task: Task, codes: GenerationBatch) -> None:
    task.train()
    gradients = dict.fromkeys(dict(task.named_parameters()), 0.0)
    for seed in range(4):  # a part may rest in one draw
        torch.manual_seed(seed)
        losses = task.loss(codes)
        assert losses
        assert all("/" in key and loss.value.isfinite() and loss.value.ndim == 0 for key, loss in losses.items())
        task.zero_grad()
        sum_losses(losses).backward()
        for key, parameter in task.named_parameters():
            gradients[key] += 0.0 if parameter.grad is None else float(parameter.grad.abs().sum())
    assert [key for key, value in gradients.items() if not 0 < value < float("inf")] == []


def test_the_loss_follows_from_the_global_generator(task: Task, codes: GenerationBatch) -> None:
    def value() -> Tensor:
        torch.manual_seed(3)
        return sum_losses(task.loss(codes)).detach()

    assert torch.equal(value(), value())


def test_training_lowers_the_loss(task: Task, codes: GenerationBatch) -> None:
    def mean() -> float:
        torch.manual_seed(9)
        with torch.no_grad():
            return sum(float(sum_losses(task.loss(codes))) for _ in range(8))

    before = mean()
    optimizer = torch.optim.Adam(task.parameters(), 3e-3)
    for seed in range(40):
        torch.manual_seed(seed)
        optimizer.zero_grad()
        sum_losses(task.loss(codes)).backward()
        optimizer.step()
    assert mean() < before


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["plain", "greedy", "top-k", "top-p"])
def test_sampled_tokens_are_allowed_at_their_places(
    task: Task, layout: TokenLayout, conditions: dict[str, Any], sampling: Sampling
) -> None:
    tokens = sample(task, Prompt(B, **conditions), sampling)
    assert tokens.shape == (B, layout.length)
    assert tokens.dtype == torch.int64
    assert layout.allowed_tokens()[torch.arange(layout.length), tokens].all()
    assert torch.equal(layout.to_tokens(layout.to_indices(tokens)), tokens)


def test_the_same_generator_samples_the_same(task: Task, conditions: dict[str, Any]) -> None:
    prompt = Prompt(B, **conditions)
    state = torch.get_rng_state()
    once = sample(task, prompt)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(77)
    assert torch.equal(once, sample(task, prompt))
    assert any(not torch.equal(once, sample(task, prompt, seed=seed)) for seed in (6, 7, 8))


def test_known_tokens_stay(task: Task, layout: TokenLayout, conditions: dict[str, Any]) -> None:
    if not task.completion:
        pytest.skip("declared: it completes nothing")
    known = random_tokens(layout, 4)
    for keep in masks(task, layout):
        hidden = torch.where(keep, known, -1)  # what is hidden must not be read
        tokens = sample(task, Prompt(B, hidden, keep, **conditions))
        assert torch.equal(tokens[keep], known[keep])
        assert layout.allowed_tokens()[torch.arange(layout.length), tokens].all()


def test_the_last_decode_step_is_the_sample_and_missing_tokens_are_marked(
    task: Task, layout: TokenLayout, conditions: dict[str, Any]
) -> None:
    """Of whole images, and of the rest of images where it completes."""
    prompts = [Prompt(B, **conditions)]
    if task.completion:
        keep = masks(task, layout)[0]
        prompts.append(Prompt(B, torch.where(keep, random_tokens(layout, 4), -1), keep, **conditions))
    for prompt in prompts:
        states = list(task.decode_steps(prompt, Sampling(), torch.Generator().manual_seed(5)))
        assert torch.equal(states[-1], sample(task, prompt))
        assert not torch.equal(states[0], states[-1])
        allowed = torch.cat([layout.allowed_tokens(), torch.ones(layout.length, 1).bool()], dim=1)
        assert all(allowed[torch.arange(layout.length), state].all() for state in states)
        blank = [int((state == layout.vocabulary).sum()) for state in states]
        assert blank == sorted(blank, reverse=True)
        assert blank[0] > blank[1]
        assert blank[-1] == 0
        if prompt.keep_mask is not None:
            assert all(torch.equal(state[prompt.keep_mask], states[-1][prompt.keep_mask]) for state in states)


def test_larger_images_are_generated_or_refused(
    task: Task, config: TaskConfig, layout: TokenLayout, conditions: dict[str, Any]
) -> None:
    """Its own size asked for is what it draws anyway; twice as high and wide holds tokens everywhere."""
    own, twice = (layout.height, layout.width), (2 * layout.height, 2 * layout.width)
    assert torch.equal(sample(task, Prompt(B, **conditions, size=own)), sample(task, Prompt(B, **conditions)))
    if not task.supports_larger_grids:
        with pytest.raises(UsageError, match="the size it was trained at"):
            sample(task, Prompt(B, **conditions, size=twice))
        return
    whole = layout.resized(*twice)
    if "condition" in conditions:
        conditions["condition"] = random_tokens(CONDITION.resized(2 * CONDITION.height, 2 * CONDITION.width), 8)
    prompt = Prompt(B, **conditions, size=twice)
    tokens = sample(task, prompt)
    assert task.output_layout(prompt) == whole
    assert whole.allowed_tokens()[torch.arange(whole.length), tokens].all()
    assert torch.equal(tokens, sample(task, prompt))
    assert sample(task, prompt.slice(1, 3)).shape == (2, whole.length)
    known, keep = random_tokens(whole, 4), torch.arange(whole.length).expand(B, -1) < 5
    again = sample(task, Prompt(B, torch.where(keep, known, -1), keep, **conditions, size=twice))
    assert torch.equal(again[keep], known[keep])


def test_sampling_keeps_no_graph_and_changes_no_weight(task: Task, conditions: dict[str, Any]) -> None:
    before = {key: value.clone() for key, value in task.state_dict().items()}
    assert not sample(task, Prompt(B, **conditions)).requires_grad
    assert all(torch.equal(before[key], value) for key, value in task.state_dict().items())


def test_a_model_folder_can_be_loaded_alone(
    task: Task, config: TaskConfig, conditions: dict[str, Any], make: Callable[..., Tokenizer], tmp_path: Path
) -> None:
    tokenizer, given = make(seed=1), make(seed=2) if config.condition_layout is not None else None
    save_task(tmp_path / "model", config, task, tokenizer, given, "# A card\n", {"step": 3})
    loaded = load_task(tmp_path / "model")
    assert loaded.config == config
    assert loaded.metadata["step"] == 3
    assert (loaded.condition_tokenizer is None) == (given is None)
    assert task.state_dict().keys() == loaded.task.state_dict().keys()
    for seed in (1, 2):
        prompt = Prompt(B, **conditions)
        assert torch.equal(sample(task, prompt, seed=seed), sample(loaded.task, prompt, seed=seed))
