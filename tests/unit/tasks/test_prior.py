"""The prior: its likelihood by hand, what it draws against a slow sampler, and what it refuses."""

import itertools
import math
import tracemalloc
from typing import Any

import pytest
import torch
from torch import Tensor

from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.tasks.base import GenerationBatch, Prompt, Sampling, TokenLayout, apply_guidance, filter_logits, sample_tokens
from tavq.tasks.model_folder import TaskConfig
from tavq.tasks.prior import Prior, PriorConfig

ONE = TokenLayout(height=3, width=4, sizes=(9,))
PARTS = TokenLayout(height=2, width=3, sizes=(3, 5, 2))
MAPS = TokenLayout(height=2, width=2, sizes=(6,))
SMALL = {"layers": 2, "heads": 2, "width": 16}


def prior(
    layout: TokenLayout = ONE, condition: TokenLayout | None = None, scale: float = 0.3, **settings: Any
) -> Prior:
    """Its weights moved apart by `scale`."""
    torch.manual_seed(0)
    config = PriorConfig(**{**SMALL, "segmentation": condition is not None, **settings})
    made = Prior(config, layout, condition).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape) * scale)
    return made


def random_tokens(layout: TokenLayout, count: int = 2, seed: int = 1) -> Tensor:
    probabilities = layout.allowed_tokens().float()
    return torch.multinomial(probabilities, count, True, generator=torch.Generator().manual_seed(seed)).T


def sample(model: Prior, prompt: Prompt, sampling: Sampling | None = None, seed: int = 3) -> Tensor:
    return model.sample(prompt, sampling or Sampling(), torch.Generator().manual_seed(seed))


# --- likelihood -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [ONE, PARTS])
def test_loss_of_an_uninformed_prior_is_the_log_of_the_allowed_tokens(layout: TokenLayout) -> None:
    model = prior(layout)
    torch.nn.init.zeros_(model.head.weight)
    found = model.loss(GenerationBatch(random_tokens(layout), ("a", "b")))["prior/nll"]
    assert found.value.item() == pytest.approx(sum(math.log(size) for size in layout.sizes) / layout.parts)
    assert found.weight == 1


@torch.no_grad()
def test_likelihoods_of_all_images_sum_to_one() -> None:
    """Of the 36 images of one position of three parts and the 36 of two positions of one."""
    for layout in (TokenLayout(height=1, width=1, sizes=(3, 4, 3)), TokenLayout(height=1, width=2, sizes=(6,))):
        ends = itertools.accumulate(layout.sizes)
        of_part = [range(end - size, end) for end, size in zip(ends, layout.sizes, strict=True)]
        every = torch.tensor(list(itertools.product(*of_part * (layout.length // layout.parts))))
        assert len(every) == 36
        assert float(prior(layout).log_likelihood(every, None).sum(1).exp().sum()) == pytest.approx(1, abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("layout", [ONE, PARTS])
def test_likelihoods_do_not_depend_on_later_tokens(layout: TokenLayout) -> None:
    model, tokens = prior(layout), random_tokens(layout)
    before = model.log_likelihood(tokens, None)
    for position in range(layout.length):
        changed = tokens.clone()
        changed[:, position] = random_tokens(layout, seed=7)[:, position]
        after = model.log_likelihood(changed, None)
        torch.testing.assert_close(after[:, :position], before[:, :position])
        moved = changed[:, position] != tokens[:, position]
        if position + 1 < layout.length and moved.any():
            assert not torch.allclose(after[moved, position + 1 :], before[moved, position + 1 :])


@torch.no_grad()
def test_condition_affects_the_first_token_and_is_sometimes_dropped() -> None:
    model, tokens, condition = (
        prior(condition=MAPS, condition_dropout=0.25),
        random_tokens(ONE, 400),
        random_tokens(MAPS, 400, seed=2),
    )
    none = torch.full_like(condition, MAPS.vocabulary)
    conditional, unconditional = model.log_likelihood(tokens, condition), model.log_likelihood(tokens, none)
    assert not torch.allclose(conditional[:, 0], unconditional[:, 0])
    batch = GenerationBatch(tokens, ("",) * 400, condition=condition)
    assert float(model.loss(batch)["prior/nll"].value) == pytest.approx(-float(conditional.mean()))  # none is left out
    model.train()
    losses = [float(model.loss(batch)["prior/nll"].value) for _ in range(20)]
    means = -float(conditional.mean()), -float(unconditional.mean())
    assert abs(means[0] - means[1]) > 0.05
    assert sum(losses) / 20 == pytest.approx(0.75 * means[0] + 0.25 * means[1], abs=0.012)
    assert len(set(losses)) == 20


# --- sampling --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def sample_without_cache(model: Prior, prompt: Prompt, sampling: Sampling, seed: int = 3) -> Tensor:
    """The tokens of a sampler without a cache, from the likelihoods of every token at every position."""
    layout, generator = model.layout, torch.Generator().manual_seed(seed)
    known = (
        torch.zeros(prompt.count, layout.length, dtype=torch.int64)
        if prompt.known_tokens is None
        else prompt.known_tokens
    )
    keep = torch.zeros_like(known, dtype=torch.bool) if prompt.keep_mask is None else prompt.keep_mask
    tokens, every = known.clone(), int(keep.all(0).sum())  # nothing is drawn for what all images keep

    def logits(position: int, condition: Tensor | None) -> Tensor:
        part = position % layout.parts
        first = sum(layout.sizes[:part])
        columns = []
        for token in range(first, first + layout.sizes[part]):
            tried = tokens.clone()
            tried[:, :position], tried[:, position] = tokens[:, :position], token
            tried[:, position + 1 :] = random_tokens(layout, prompt.count)[:, position + 1 :]
            columns.append(model.log_likelihood(tried, condition)[:, position])
        return torch.stack(columns, dim=1)

    for position in range(every, layout.length):
        found = logits(position, prompt.condition)
        if prompt.condition is not None and sampling.guidance != 1:
            none = torch.full_like(prompt.condition, MAPS.vocabulary)
            found = apply_guidance(found, logits(position, none), sampling.guidance)
        sampled = sample_tokens(found, sampling, generator) + sum(layout.sizes[: position % layout.parts])
        tokens[:, position] = torch.where(keep[:, position], known[:, position], sampled)
    return tokens


SAMPLINGS = [
    Sampling(),
    Sampling(temperature=0),
    Sampling(temperature=1.5, top_k=3),
    Sampling(top_p=0.6),
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("layout", [ONE, PARTS])
def test_the_cache_changes_no_token(layout: TokenLayout, sampling: Sampling) -> None:
    model = prior(layout)
    assert torch.equal(sample(model, Prompt(3), sampling), sample_without_cache(model, Prompt(3), sampling))


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_condition_with_and_without_guidance(guidance: float) -> None:
    model, sampling = prior(PARTS, MAPS), Sampling(guidance=guidance)
    prompt = Prompt(3, condition=random_tokens(MAPS, 3))
    assert torch.equal(sample(model, prompt, sampling), sample_without_cache(model, prompt, sampling))


# --- larger images ------------------------------------------------------------------------------------------------


@torch.no_grad()
def slow_window(model: Prior, count: int, size: tuple[int, int], condition: Tensor | None, guidance: float) -> Tensor:
    """The tokens of a sampler without a cache that reads, for each position, only the window around it.

    Where the window lies follows VQ-GAN's published sampling, `condition` is a grid.
    """
    own, (height, width), generator = model.layout, size, torch.Generator().manual_seed(3)
    sizes = own.sizes
    tokens = torch.zeros(count, height, width, own.parts, dtype=torch.int64)

    def within(position: int, whole: int, window: int) -> int:
        if position <= window // 2:
            return position
        return window - (whole - position) if whole - position < window - window // 2 else window // 2

    def logits(y: int, x: int, part: int, condition: Tensor | None) -> Tensor:
        inner = within(y, height, own.height), within(x, width, own.width)
        top, left = y - inner[0], x - inner[1]
        seen = tokens[:, top : top + own.height, left : left + own.width].flatten(1)
        position = (inner[0] * own.width + inner[1]) * own.parts + part
        if condition is not None:
            ratio = MAPS.height / own.height, MAPS.width / own.width
            rows, columns = int(top * ratio[0] + 1e-9), int(left * ratio[1] + 1e-9)
            condition = condition[:, rows : rows + MAPS.height, columns : columns + MAPS.width].flatten(1)
        columns_of = []
        for token in range(sum(sizes[:part]), sum(sizes[: part + 1])):
            tried = random_tokens(own, count)
            tried[:, :position], tried[:, position] = seen[:, :position], token
            columns_of.append(model.log_likelihood(tried, condition)[:, position])
        return torch.stack(columns_of, dim=1)

    for y, x, part in itertools.product(range(height), range(width), range(own.parts)):
        found = logits(y, x, part, condition)
        if condition is not None and guidance != 1:
            found = apply_guidance(found, logits(y, x, part, torch.full_like(condition, MAPS.vocabulary)), guidance)
        tokens[:, y, x, part] = sample_tokens(found, Sampling(), generator) + sum(sizes[:part])
    return tokens.flatten(1)


@pytest.mark.parametrize(
    ("layout", "size"),
    [(ONE, (3, 4)), (ONE, (3, 9)), (ONE, (8, 4)), (ONE, (5, 7)), (PARTS, (2, 3)), (PARTS, (5, 4))],
)
def test_larger_images_are_sampled_in_the_window_around_each_position(
    layout: TokenLayout, size: tuple[int, int]
) -> None:
    model = prior(layout)
    found = sample(model, Prompt(2, size=size))
    assert torch.equal(found, slow_window(model, 2, size, None, 1))
    if size == (layout.height, layout.width):
        assert torch.equal(found, sample(model, Prompt(2)))


@pytest.mark.parametrize(("layout", "size"), [(PARTS, (4, 6)), (PARTS, (3, 3)), (ONE, (6, 8))])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_condition_is_cropped_with_the_window(layout: TokenLayout, size: tuple[int, int], guidance: float) -> None:
    model = prior(layout, MAPS)
    grid = MAPS.height * size[0] // layout.height, MAPS.width * size[1] // layout.width
    maps = random_tokens(MAPS.resized(*grid), 2)
    found = sample(model, Prompt(2, condition=maps, size=size), Sampling(guidance=guidance))
    assert torch.equal(found, slow_window(model, 2, size, maps.view(2, *grid), guidance))


def test_the_window_of_a_map_with_fewer_positions_moves_with_its_corner() -> None:
    """1 x 1 of the map for 3 x 4: it changes where the window has gone that far."""
    condition = TokenLayout(height=1, width=1, sizes=(6,))
    torch.manual_seed(0)
    model = Prior(PriorConfig(**SMALL, segmentation=True), ONE, condition).eval()
    maps = torch.tensor([[0, 1, 2]])
    found = [model._crop_condition(maps, ONE.resized(3, 12), (0, left)) for left in range(9)]
    assert [int(cut) for cut in found if cut is not None] == [0, 0, 0, 0, 1, 1, 1, 1, 2]


def test_sizes_that_are_refused() -> None:
    cases = [
        (prior(), Prompt(2, size=(2, 9)), r"2 x 9 positions are too few: this model generates 3 x 4 or more"),
        (prior(), Prompt(2, size=(9, 3)), r"9 x 3 positions are too few"),
        (prior(), Prompt(2, size=(400, 400)), r"400 x 400 positions of 1 is too large; at most 65,536 tokens"),
        (
            prior(),
            Prompt(2, random_tokens(ONE, 2), random_tokens(ONE, 2) > -1, size=(3, 5)),
            r"images have shape \[2, 12\]; expected 2 images of 3 x 5",
        ),
        (
            prior(condition=MAPS),
            Prompt(2, condition=random_tokens(MAPS, 2), size=(3, 5)),
            r"3 x 5 positions do not match a whole number of",
        ),
        (
            prior(condition=MAPS),
            Prompt(2, condition=random_tokens(MAPS, 2), size=(3, 8)),
            r"maps have shape \[2, 4\]; expected 2 images of 2 x 4 positions",
        ),
    ]
    for model, prompt, message in cases:
        with pytest.raises(UsageError, match=message):
            sample(model, prompt)


def test_completion_uses_known_tokens_only() -> None:
    model, known, positions = prior(PARTS), random_tokens(PARTS, 3), torch.arange(PARTS.length)
    for ends in ([7, 7, 7], [2, 0, 9], [5, 4, PARTS.length]):
        keep = positions < torch.tensor(ends)[:, None]
        prompt = Prompt(3, known, keep)
        found = sample(model, prompt)
        assert torch.equal(found, sample_without_cache(model, prompt, Sampling()))
        assert torch.equal(found[keep], known[keep])
        other = Prompt(3, random_tokens(PARTS, 3, seed=9), keep)
        assert min(ends) == 0 or not torch.equal(sample(model, other)[~keep], found[~keep])


@pytest.mark.parametrize(("layout", "size"), [(ONE, None), (PARTS, None), (PARTS, (4, 5))])
def test_each_decode_step_is_a_row_of_positions(layout: TokenLayout, size: tuple[int, int] | None) -> None:
    height, width = size or (layout.height, layout.width)
    sampled = [
        int((state[0] != layout.vocabulary).sum())
        for state in prior(layout).decode_steps(Prompt(2, size=size), Sampling(), torch.Generator().manual_seed(3))
    ]
    assert sampled == [row * width * layout.parts for row in range(height + 1)]


def test_guidance_of_1_is_off_and_0_ignores_the_condition() -> None:
    model = prior(condition=MAPS)
    prompts = [Prompt(3, condition=random_tokens(MAPS, 3, seed=seed)) for seed in (1, 2)]
    forgotten = [sample(model, prompt, Sampling(guidance=0)) for prompt in prompts]
    assert torch.equal(*forgotten)
    assert not torch.equal(*[sample(model, prompt) for prompt in prompts])


def test_temperature_0_takes_the_most_likely_token() -> None:
    model = prior()
    found = [sample(model, Prompt(2), Sampling(temperature=0), seed) for seed in (1, 2)]
    assert torch.equal(*found)
    assert torch.equal(found[0][0], found[0][1])


def test_sampled_frequencies_match_the_probabilities() -> None:
    """Of the 36 images of a small layout, by 20,000 draws: a chi-square of 35 degrees, and its 0.9999 quantile."""
    layout = TokenLayout(height=1, width=2, sizes=(6,))
    model = prior(layout)
    tokens = sample(model, Prompt(20_000))
    every = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    with torch.no_grad():
        expected = model.log_likelihood(every, None).sum(1).exp() * len(tokens)
    counts = torch.bincount(tokens[:, 0] * 6 + tokens[:, 1], minlength=36)
    assert float(((counts - expected).square() / expected).sum()) < 76.4


def test_top_k_and_top_p_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.1, 0.25, 0.15]]).log()
    keep = {
        Sampling(top_k=2): [0, 2],
        Sampling(top_k=9): [0, 1, 2, 3],
        Sampling(top_p=0.5): [0],
        Sampling(top_p=0.51): [0, 2],
        Sampling(top_p=0.8): [0, 2, 3],
        Sampling(top_p=0.01): [0],
        Sampling(top_k=3, top_p=0.84): [0, 2, 3],  # of the three: 0.56, 0.28, 0.17
        Sampling(top_k=3, top_p=0.83): [0, 2],
    }
    for sampling, tokens in keep.items():
        assert filter_logits(logits, sampling)[0].isfinite().nonzero()[:, 0].tolist() == tokens


def test_top_k_keeps_k_of_equal_logits() -> None:
    assert filter_logits(torch.zeros(3, 9), Sampling(top_k=2)).isfinite().sum(dim=1).tolist() == [2, 2, 2]


# --- learning -------------------------------------------------------------------------------------------------------


def learned(model: Prior, batch: GenerationBatch, steps: int) -> float:
    """The loss after some steps."""
    optimizer = torch.optim.AdamW(model.train().parameters(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.loss(batch)["prior/nll"].value
        loss.backward()
        optimizer.step()
    model.eval()
    return float(loss.detach())


def test_constant_images_cost_only_their_first_token() -> None:
    tokens = torch.arange(4)[:, None].expand(4, ONE.length)
    model = prior(scale=0)
    assert learned(model, GenerationBatch(tokens, tuple("abcd")), 120) < 1.05 * math.log(4) / ONE.length + 0.01
    with torch.no_grad():
        likelihood = model.log_likelihood(tokens, None)
    assert likelihood[:, 0].exp().tolist() == pytest.approx([0.25] * 4, abs=0.02)
    assert float(likelihood[:, 1:].mean()) > -0.01
    sampled = sample(model, Prompt(40))
    assert (sampled == sampled[:, :1]).all()
    assert set(sampled[:, 0].tolist()) == {0, 1, 2, 3}


def test_a_few_images_are_learned_and_generated_again() -> None:
    tokens, condition = random_tokens(PARTS, 5, seed=6), random_tokens(MAPS, 5, seed=6)
    model = prior(PARTS, MAPS, scale=0)
    learned(model, GenerationBatch(tokens, tuple("abcde"), condition=condition), 200)
    assert torch.equal(sample(model, Prompt(5, condition=condition), Sampling(temperature=0)), tokens)
    half = (torch.arange(PARTS.length) < 9).expand_as(tokens)
    assert torch.equal(sample(model, Prompt(5, tokens, half, condition=condition), Sampling(temperature=0)), tokens)


# --- what is refused ------------------------------------------------------------------------------------------------


def test_required_conditions_follow_from_the_settings() -> None:
    assert Prior.required_conditions(PriorConfig()) == frozenset()
    assert Prior.required_conditions(PriorConfig(segmentation=True)) == {"segmentation"}
    with pytest.raises(UsageError, match="needs the layout of the segmentation maps"):
        Prior(PriorConfig(**SMALL, segmentation=True), ONE)
    assert Prior(PriorConfig(**SMALL), ONE, MAPS).condition_layout is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 20, "heads": 8}, "width 20 is not a multiple of 8 heads"),
        ({"layers": 10**9}, "task.layers"),
        ({"width": 10**9}, "task.width"),
        ({"dropout": 1}, "task.dropout"),
        ({"condition_dropout": 1}, "task.condition_dropout"),
        ({"depth": 3}, "Unknown setting 'task.depth'"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(TaskConfig, {"task": {"name": "prior", **settings}, "layout": ONE}, "test")


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [({"layers": 64, "width": 4096, "heads": 1}, (9,)), ({"layers": 1, "width": 4096, "heads": 1}, (2**24,) * 1024)],
)
def test_a_huge_network_is_refused_before_memory_is_allocated(settings: dict[str, Any], sizes: tuple[int, ...]) -> None:
    layout = TokenLayout(height=1, width=1, sizes=sizes)
    tracemalloc.start()
    with pytest.raises(UsageError, match="parameters is too large"):
        Prior(PriorConfig(**settings), layout)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_prompts_that_are_refused() -> None:
    plain, conditional, deaf = prior(), prior(condition=MAPS), prior(condition=MAPS, condition_dropout=0)
    known, condition = random_tokens(ONE, 2), random_tokens(MAPS, 2)
    hole = torch.arange(ONE.length).expand(2, -1) != 3
    every, second = hole | True, torch.arange(ONE.length).expand(2, -1) == 1
    cases = [
        (plain, Prompt(2), {"guidance": 2}, "this prior has no condition"),
        (conditional, Prompt(2), {}, "give one map for each image"),
        (
            conditional,
            Prompt(3, condition=condition),
            {},
            r"maps have shape \[2, 4\]; expected 3 images of 2 x 2 positions of 1",
        ),
        (conditional, Prompt(2, condition=random_tokens(ONE, 2)), {}, r"maps have shape \[2, 12\]"),
        (
            conditional,
            Prompt(2, condition=condition + 6),
            {},
            "do not fit a vocabulary of 6; they come from another tokenizer",
        ),
        (deaf, Prompt(2, condition=condition), {"guidance": 2}, "trained without dropping conditions"),
        (plain, Prompt(2, known, hole), {}, "keeps a token after a hidden one"),
        (plain, Prompt(2, known, second), {}, "keeps a token after a hidden one"),
        (
            plain,
            Prompt(2, known[:, :-1], every[:, :-1]),
            {},
            r"images have shape \[2, 11\]; expected 2 images of 3 x 4 positions of 1",
        ),
        (plain, Prompt(2, known + 9, every), {}, "of the images do not fit a vocabulary of 9"),
        (plain, Prompt(2, known - 9, every), {}, "of the images do not fit a vocabulary of 9"),
    ]
    for model, prompt, changes, message in cases:
        with pytest.raises(UsageError, match=message):
            sample(model, prompt, Sampling(**changes))
