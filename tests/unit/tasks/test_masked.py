"""The masked-token task: its schedules by hand, what its loss counts, and how it draws."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tavq.core.config import build
from tavq.core.errors import TrainingError, UsageError
from tavq.data.folder import FolderDataset
from tavq.interfaces import sum_losses
from tavq.nets.transformer import sinusoidal_positions
from tavq.recipes.schema import TaskRecipe
from tavq.tasks.base import GenerationBatch, Prompt, Sampling, TokenLayout, sample_tokens
from tavq.tasks.masked import INIT_STD, MaskedTask, count_masked, count_still_masked, select_largest
from tavq.tasks.model_folder import load_task
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training.reporting import SilentReporter
from tavq.training.task.trainer import TaskTrainer

PLAIN = TokenLayout(height=3, width=4, sizes=(9,))
PARTS = TokenLayout(height=2, width=3, sizes=(5, 2, 7))
SMALL = {"layers": 2, "heads": 2, "width": 16, "dropout": 0.0, "label_smoothing": 0.0}


def task(layout: TokenLayout = PLAIN, seed: int = 0, **settings: Any) -> MaskedTask:
    torch.manual_seed(seed)
    return MaskedTask(MaskedTask.Config(**{**SMALL, **settings}), layout).eval()


def sharpened(made: MaskedTask) -> MaskedTask:
    """Fresh logits are all but alike; here they differ, so that likelier tokens and surer places exist."""
    with torch.no_grad():
        made.bias.copy_(torch.randn(made.bias.shape, generator=torch.Generator().manual_seed(5)))
        made.token_embedding.weight.mul_(50)
        made.position_embedding.weight.mul_(50)
    return made


def images(count: int, layout: TokenLayout = PLAIN, seed: int = 1) -> Tensor:
    """Tokens that may stand where they do."""
    probabilities = layout.allowed_tokens().float().expand(count, -1, -1).flatten(0, 1)
    return torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(seed)).view(count, -1)


def batch(tokens: Tensor) -> GenerationBatch:
    return GenerationBatch(tokens, tuple(str(row) for row in range(len(tokens))))


def generator(seed: int = 2) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- schedules ------------------------------------------------------------------------------------------------------


def test_masked_counts_in_training_by_hand() -> None:
    draws = torch.tensor([0, 1 / 3, 0.5, 2 / 3, 0.9999999])  # cosines of 0°, 30°, 45°, 60° and almost 90°
    assert count_masked(draws, 100).tolist() == [100, 87, 71, 50, 1]
    assert count_masked(draws, 8).tolist() == [8, 7, 6, 4, 1]
    probabilities = count_masked(torch.linspace(0, 1, 10_001)[:-1], 1000).double().div(1000)
    assert float(probabilities.mean()) == pytest.approx(2 / torch.pi, abs=1e-3)  # the mean of the cosine


def test_still_masked_counts_by_hand() -> None:
    counts = torch.tensor([8, 100, 1, 0])
    assert [count_still_masked(step, 3, counts).tolist() for step in (1, 2, 3)] == [
        [7, 87, 0, 0],
        [4, 50, 0, 0],
        [0, 0, 0, 0],
    ]
    assert count_still_masked(1, 1, counts).tolist() == [0, 0, 0, 0]
    many = [count_still_masked(step, 1000, torch.tensor([4])).item() for step in range(1, 6)]
    assert many == [3, 2, 1, 0, 0]  # never a pass that fills nothing in


def test_select_largest_of_each_row() -> None:
    values = torch.tensor([[3.0, 1.0, 2.0], [-torch.inf, 5.0, 0.0]])
    assert select_largest(values, torch.tensor([2, 1])).tolist() == [[True, False, True], [False, True, False]]
    assert not select_largest(values, torch.tensor([0, 0])).any()


# --- the loss -------------------------------------------------------------------------------------------------------


def hidden_of(tokens: Tensor, seed: int) -> Tensor:
    """The places that the loss hides after `torch.manual_seed(seed)`: two draws, in this order."""
    torch.manual_seed(seed)
    counts = count_masked(torch.rand(len(tokens)), tokens.shape[1])
    return select_largest(torch.rand(tokens.shape), counts)


def test_position_embeddings_start_as_sinusoids() -> None:
    for layout in (PLAIN, PARTS):
        positions = task(layout).position_embedding.weight.detach().view(-1, layout.parts, SMALL["width"])
        waves = 2**0.5 * INIT_STD * sinusoidal_positions(layout.height, layout.width, 16, torch.device("cpu"))
        of_part = positions - waves[:, None]
        assert torch.allclose(of_part, of_part[:1], atol=1e-6)  # a vector for each part, the same everywhere
        assert bool(of_part.abs().max() > INIT_STD / 4) == (layout.parts > 1)


@pytest.mark.parametrize("layout", [PLAIN, PARTS], ids=["plain", "parts"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_by_hand(layout: TokenLayout, smoothing: float) -> None:
    made, tokens = sharpened(task(layout, label_smoothing=smoothing)), images(40, layout)
    hidden = hidden_of(tokens, 7)
    assert int(hidden.sum(1).min()) == 1
    features = made._encode(tokens.masked_fill(hidden, made.mask_token))
    logits = features @ made.token_embedding.weight[:-1].T + made.bias
    logits = logits.masked_fill(~layout.allowed_tokens(), -torch.inf)
    errors = []
    for b, n in hidden.nonzero().tolist():
        logs = logits[b, n].log_softmax(0)
        smooth = logs[layout.allowed_tokens()[n]].mean()
        errors.append(-(1 - smoothing) * logs[tokens[b, n]] - smoothing * smooth)
    torch.manual_seed(7)
    losses = made.loss(batch(tokens))
    torch.testing.assert_close(sum_losses(losses), torch.stack(errors).mean())


def test_only_masked_tokens_are_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are the input too, so what the network makes of that is held fixed."""
    made, tokens = sharpened(task()), images(4)
    hidden = hidden_of(tokens, 3)
    assert 0 < hidden.sum() < hidden.numel()
    features = made._encode(tokens.masked_fill(hidden, made.mask_token))
    monkeypatch.setattr(made, "_encode", lambda _: features)

    def loss(targets: Tensor) -> float:
        torch.manual_seed(3)
        return sum_losses(made.loss(batch(targets))).item()

    changed = (tokens + 1) % PLAIN.vocabulary
    assert loss(torch.where(hidden, tokens, changed)) == loss(tokens)
    assert loss(torch.where(hidden, changed, tokens)) != loss(tokens)


def test_masked_tokens_have_no_influence() -> None:
    made, tokens = sharpened(task()), images(2)
    keep = torch.rand(tokens.shape, generator=generator()) < 0.5
    sampled = [
        made.sample(Prompt(2, torch.where(keep, tokens, other), keep), Sampling(), generator())
        for other in (tokens, torch.zeros_like(tokens))
    ]
    assert torch.equal(*sampled)


def test_attention_is_bidirectional() -> None:
    made, tokens = sharpened(task()), images(1)
    features = made._encode(tokens)
    for changed in range(PLAIN.length):
        other = tokens.clone()
        other[0, changed] = (other[0, changed] + 1) % PLAIN.vocabulary
        assert (made._encode(other) != features).any(dim=2).all()


# --- sampling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [PLAIN, PARTS], ids=["plain", "parts"])
@pytest.mark.parametrize("steps", [1, 2, 5, 40])
def test_masking_follows_the_schedule_and_known_tokens_stay(layout: TokenLayout, steps: int) -> None:
    made, tokens = sharpened(task(layout)), images(4, layout)
    keep = torch.zeros_like(tokens, dtype=torch.bool)
    for row, count in enumerate([0, 1, layout.length // 2, layout.length]):
        keep[row, torch.randperm(layout.length, generator=generator(row))[:count]] = True
    counts = (~keep).sum(1)
    before = made.mask_token * torch.ones_like(tokens)
    seen = list(made.decode_steps(Prompt(4, tokens, keep), Sampling(steps=steps), generator()))
    assert len(seen) == min(steps, layout.length) + 1
    for step, now in enumerate(seen):
        left = (now == made.mask_token).sum(1)
        assert torch.equal(left, count_still_masked(step, steps, counts) if step else counts)
        assert torch.equal(now[keep], tokens[keep])
        assert (now[before != made.mask_token] == before[before != made.mask_token]).all()  # what is drawn once stays
        before = now
    assert layout.allowed_tokens()[torch.arange(layout.length), before].all()


@pytest.mark.parametrize("layout", [PLAIN, PARTS], ids=["plain", "parts"])
def test_whole_images_have_allowed_tokens_only(layout: TokenLayout) -> None:
    sampled = task(layout).sample(Prompt(200), Sampling(steps=2), generator())
    assert sampled.shape == (200, layout.length)
    positions = torch.arange(layout.length).expand_as(sampled)
    found = torch.zeros(layout.length, layout.vocabulary, dtype=torch.bool)
    found[positions.flatten(), sampled.flatten()] = True
    assert torch.equal(found, layout.allowed_tokens())  # and of an untrained network everything that may stand


def test_an_image_without_hidden_tokens_is_returned() -> None:
    tokens = images(2)
    assert torch.equal(task().sample(Prompt(2, tokens, tokens >= 0), Sampling(), generator()), tokens)


def test_the_generator_determines_the_tokens() -> None:
    made = sharpened(task(dropout=0.5)).train()
    torch.manual_seed(0)
    one = made.sample(Prompt(3), Sampling(), generator(1))
    torch.manual_seed(1)
    assert torch.equal(made.sample(Prompt(3), Sampling(), generator(1)), one)
    assert not torch.equal(made.sample(Prompt(3), Sampling(), generator(2)), one)
    assert made.training


def test_temperature_0_is_deterministic() -> None:
    made, cold = sharpened(task()), Sampling(temperature=0)
    assert torch.equal(made.sample(Prompt(2), cold, generator(1)), made.sample(Prompt(2), cold, generator(2)))


def test_the_most_confident_tokens_are_kept_first() -> None:
    made, cold = sharpened(task()), Sampling(temperature=0, steps=3)
    first, second, *_ = made.decode_steps(Prompt(1), cold, generator())
    logits = made._encode(first)[0] @ made.token_embedding.weight[:-1].T + made.bias
    most_confident, most_likely = logits.log_softmax(1).max(1)
    keep = second[0] != made.mask_token
    assert keep.sum() == PLAIN.length - count_still_masked(1, 3, torch.tensor([PLAIN.length]))
    assert most_confident[keep].min() > most_confident[~keep].max()
    assert torch.equal(second[0][keep], most_likely[keep])


def test_the_choice_noise_of_each_step_by_hand() -> None:
    """2 · (1 - 1/3) in the first of three passes, 2 · (1 - 2/3) in the second; its draws follow those of the tokens."""
    made, ours = sharpened(task(choice_temperature=2.0)), generator(3)
    seen = list(made.decode_steps(Prompt(20), Sampling(steps=3), generator(3)))
    for step, weight in ((1, 4 / 3), (2, 2 / 3)):
        tokens = seen[step - 1]
        hidden = tokens == made.mask_token
        logits = (made._encode(tokens) @ made.token_embedding.weight[:-1].T + made.bias)[hidden]
        sampled = sample_tokens(logits, Sampling(), ours)
        scores = torch.full(tokens.shape, -torch.inf)
        scores[hidden] = logits.log_softmax(1)[torch.arange(len(sampled)), sampled]
        scores = scores - weight * torch.empty_like(scores).exponential_(generator=ours).log()
        expected, proposed = tokens.clone(), tokens.clone()
        proposed[hidden] = sampled
        for row in range(20):
            count = int(hidden[row].sum() - count_still_masked(step, 3, torch.tensor([PLAIN.length])))
            chosen = scores[row].topk(count).indices
            expected[row, chosen] = proposed[row, chosen]
        assert torch.equal(seen[step], expected)


@pytest.mark.parametrize(("layout", "size"), [(PLAIN, (3, 4)), (PLAIN, (5, 7)), (PARTS, (4, 3))])
def test_larger_images_are_decoded_window_by_window(layout: TokenLayout, size: tuple[int, int]) -> None:
    """Each window as a completion of what the windows before it left."""
    made, ours, how = sharpened(task(layout)), generator(), Sampling(steps=3)
    (height, width), parts = size, layout.parts
    tokens = torch.full((2, height, width, parts), made.mask_token)
    tops = sorted({*range(0, height - layout.height, layout.height // 2), height - layout.height})
    lefts = sorted({*range(0, width - layout.width, layout.width // 2), width - layout.width})
    for top in tops:
        for left in lefts:
            window = tokens[:, top : top + layout.height, left : left + layout.width]
            known = window.flatten(1)
            sampled = made.sample(Prompt(2, known, known != made.mask_token), how, ours)
            window.copy_(sampled.view_as(window))
    found = list(made.decode_steps(Prompt(2, size=size), how, generator()))
    assert torch.equal(found[-1], tokens.flatten(1))
    assert len(found) <= 1 + 3 * len(tops) * len(lefts)  # where few are hidden, few passes
    if size == (layout.height, layout.width):
        assert torch.equal(found[-1], made.sample(Prompt(2), how, generator()))


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="width 10 is not a multiple of 4 heads"):
        MaskedTask.Config(width=10, heads=4)
    for wrong in ({"dropout": 1}, {"steps": 0}, {"choice_temperature": -1}, {"label_smoothing": 1}, {"layers": 0}):
        with pytest.raises(ValueError):
            MaskedTask.Config(**wrong)


def test_known_tokens_of_another_size_are_refused() -> None:
    tokens = torch.zeros(2, 5, dtype=torch.long)
    with pytest.raises(UsageError, match=r"known tokens have shape \[2, 5\].*expected \[2, 12\]"):
        task().sample(Prompt(2, tokens, tokens == 0), Sampling(), generator())


# --- learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [PLAIN, PARTS], ids=["plain", "parts"])
def test_it_overfits_a_few_images_and_completes_them(layout: TokenLayout) -> None:
    tokens = images(4, layout)
    made = task(layout, width=32).train()
    optimizer = torch.optim.AdamW(made.parameters(), 5e-3)
    for _ in range(200):
        optimizer.zero_grad()
        sum_losses(made.loss(batch(tokens.repeat(8, 1)))).backward()
        optimizer.step()
    keep = torch.arange(layout.length).expand_as(tokens) % 4 == 0
    sampled = made.sample(Prompt(4, tokens, keep), Sampling(temperature=0), generator())
    assert torch.equal(sampled, tokens)
    whole = made.sample(Prompt(30), Sampling(), generator())
    same = (whole[:, None] == tokens).all(2)
    assert same.any(1).float().mean() > 0.3  # by chance it would be one of hundreds of thousands
    assert same.any(0).sum() >= 2


class Killed(SilentReporter):
    """A Reporter that stops the run after a step."""

    def __init__(self, step: int) -> None:
        self.last, self.stop = step, lambda: None

    def progress(self, step: int, steps: int, line: dict[str, Any] | None) -> None:
        if step == self.last:
            self.stop()


@pytest.fixture
def trainer(shared_images: Path, tmp_path: Path) -> Callable[..., TaskTrainer]:
    torch.manual_seed(0)
    settings = {
        "net": {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False},
        "codebook": {"name": "learned", "entries": 16, "width": 8},
    }
    Tokenizer(build(TokenizerConfig, settings, "test")).save_pretrained(tmp_path / "tokenizer")
    recipe = TaskRecipe.model_validate(
        {
            "task": {"name": "masked", **SMALL, "dropout": 0.2},
            "data": {"size": 16},
            "train": {"steps": 5, "batch": 4, "ema": 0.9, "checkpoint_every": 2, "sample_every": 5},
        }
    )
    dataset = FolderDataset(shared_images, "train")

    def trainer(run: str, reporter: Killed | None = None) -> TaskTrainer:
        return TaskTrainer(recipe, tmp_path / "tokenizer", dataset, tmp_path / run, reporter=reporter)

    return trainer


def test_resuming_gives_the_same_bits(trainer: Callable[..., TaskTrainer], tmp_path: Path) -> None:
    whole = trainer("whole").run()
    killed = Killed(3)
    stopped = trainer("stopped", killed)
    killed.stop = stopped.loop.stop
    with pytest.raises(TrainingError, match="after step 3 of 5"):
        stopped.run()
    parts = trainer("stopped").run(resume=True)
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    model = load_task(tmp_path / "whole")
    sampled = model.task.sample(Prompt(2), Sampling(), generator())
    assert model.tokenizer.decode(model.config.layout.to_indices(sampled)).shape == (2, 3, 16, 16)
    assert (tmp_path / "whole" / "samples" / "00000005.png").is_file()
