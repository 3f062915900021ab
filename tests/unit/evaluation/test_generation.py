"""Metrics of generation tasks, with tasks whose samples and losses are known."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.evaluation import generation
from tavq.evaluation.generation import mix_codes, randomize_weights
from tavq.evaluation.task import evaluate_task
from tavq.interfaces import Aligner, Loss, Losses, TextFeatures
from tavq.metrics.distances import ImageSet, compare_image_sets
from tavq.metrics.inpainting import hidden_distance, hidden_psnr, hidden_ssim
from tavq.nets.features.extractors import FeatureNetwork, ScenesNetwork
from tavq.tasks.base import GenerationBatch, Prompt, Sampling, Task, TokenLayout
from tavq.tasks.completion import complete_images, fill_smoothly, named_mask
from tavq.tasks.model_folder import TaskConfig, TaskModel
from tavq.tokenizer import Tokenizer, TokenizerConfig

SIZE = 32
LAYOUT = TokenLayout(height=8, width=8, sizes=(20,))
PRIOR = {"name": "prior", "layers": 1, "heads": 2, "width": 16}
MASKED = {"name": "masked", "layers": 1, "heads": 2, "width": 16, "steps": 2}
DIFFUSION = {"name": "diffusion", "layers": 1, "heads": 2, "width": 16, "steps": 2}


class Small(FeatureNetwork):
    """Mean colours of an image's quarters; distances by its pixels."""

    name, width, sha256 = "small", 12, "0" * 64

    def stages(self, images: Tensor) -> list[Tensor]:
        return [images]

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


class Paired(Small):
    """With heads, as LPIPS: for pairs of images."""

    name = "paired"
    heads = (torch.ones(3),)


class Known(Task):
    """Always generates the tokens of `table`; its loss is the mean token."""

    name = "known"

    def __init__(self, table: Tensor, needs: Sequence[str] = (), completes: str = "") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.table, self.place, self.asked = table, 0, []
        self.layout, self.completion = LAYOUT, completes
        self.required_conditions = lambda config: frozenset(needs)

    def loss(self, codes: GenerationBatch) -> Losses:
        return {"known/mean": Loss(codes.tokens.float().mean(), 1.0)}

    def sample(self, prompt: Prompt, sampling: Sampling, generator: torch.Generator) -> Tensor:
        self.asked.append(prompt)
        rows = torch.arange(self.place, self.place + prompt.count) % len(self.table)
        self.place += prompt.count
        found = self.table[rows]
        return found if prompt.keep_mask is None else torch.where(prompt.keep_mask, prompt.known_tokens, found)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    values = {
        "net": {"channels": 8, "multipliers": [1, 1, 1], "blocks": 1, "attention": False},
        "codebook": {"name": "learned", "entries": 20, "width": 6},
    }
    made = Tokenizer(build(TokenizerConfig, values, "test")).eval()
    with torch.no_grad():
        next(iter(made.codebook.parameters())).normal_()
    return made


@pytest.fixture
def model(tokenizer: Tokenizer) -> Callable[..., TaskModel]:
    def make(task: Mapping[str, Any] = PRIOR, own: Task | None = None, **facts: Any) -> TaskModel:
        width = 6 if task["name"] == "diffusion" else None
        config = build(TaskConfig, {"task": dict(task), "layout": LAYOUT, "text_width": width}, "test")
        torch.manual_seed(5)
        chosen = own or config.make().eval()
        return TaskModel(config, chosen, tokenizer, None, {"size": SIZE, **facts})

    return make


@pytest.fixture
def test_split(shared_images: Path) -> FolderDataset:
    return FolderDataset(shared_images, "test")


def evaluated(*arguments: Any, **settings: Any) -> dict[str, Any]:
    """Values by key, the details, the intervals and the warnings of an evaluation."""
    found = evaluate_task(*arguments, **settings)
    values = {metric.key: metric.value for metric in found.metrics}
    intervals = {metric.key: metric.interval for metric in found.metrics if metric.interval is not None}
    return {**values, **found.details, "intervals": intervals, "warnings": found.warnings}


def images(dataset: FolderDataset) -> Tensor:
    [batch] = EvaluationLoader(dataset, DataConfig(size=SIZE), 32)
    return batch.images


def tokens(tokenizer: Tokenizer, dataset: FolderDataset) -> Tensor:
    return LAYOUT.to_tokens(tokenizer.encode(images(dataset)))


def decoded(tokenizer: Tokenizer, rows: Tensor) -> Tensor:
    return tokenizer.decode(LAYOUT.to_indices(rows)).clamp(-1, 1)


def distance(one: Tensor, other: Tensor) -> float:
    sets = [ImageSet(Small()), ImageSet(Small())]
    for image_set, found in zip(sets, (one, other), strict=True):
        image_set.update(found, [str(place) for place in range(len(found))])
    frechet, _ = compare_image_sets(*sets)
    return frechet.value


# --- means and sets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_every_image_counts_equally_in_any_batches(
    batch: int, model: Callable[..., TaskModel], test_split: FolderDataset, tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(generation, "BATCH", batch)
    own = tokens(tokenizer, test_split)
    seen: list[int] = []
    found = evaluated(model(own=Known(own)), test_split, [Small()], progress=seen.append)
    assert seen[-1] == found["images"] == 3
    assert found["loss/known/mean"] == pytest.approx(float(own.float().mean()))
    image_set = images(test_split)
    expected = distance(decoded(tokenizer, own), image_set)
    assert found["codes/fd_small"] == pytest.approx(expected, rel=1e-6)
    assert found["fd_small"] == pytest.approx(expected, rel=1e-6)  # it draws these very codes
    assert expected > 0.01
    assert found["feature_weights"] == {"small": "0" * 64}


def test_the_untrained_network_is_a_baseline(model: Callable[..., TaskModel], test_split: FolderDataset) -> None:
    trained = model()
    found = evaluated(trained, test_split, [Small()])
    other = randomize_weights(trained)
    assert found["untrained/loss/prior/nll"] != found["loss/prior/nll"]
    again = evaluated(other, test_split, [Small()])
    for name in ("loss/prior/nll", "fd_small"):
        assert again[name] == found[f"untrained/{name}"] == again[f"untrained/{name}"]
    assert evaluated(trained, test_split, [Small()]) == found


def test_an_objective_that_samples_gives_the_same_value_again(
    model: Callable[..., TaskModel], test_split: FolderDataset
) -> None:
    """Masks come from torch's global generator and are the same for both networks."""
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(evaluated(model(MASKED), test_split, [Small()]))
    assert found[0] == found[1]
    again = evaluated(randomize_weights(model(MASKED)), test_split, [Small()])
    assert again["loss/task/masked"] == again["untrained/loss/task/masked"]


def test_untrained_weights_follow_from_a_fixed_seed_and_leave_the_global_one(model: Callable[..., TaskModel]) -> None:
    made = model()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = randomize_weights(made).task.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = randomize_weights(made).task.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], value) for name, value in made.task.state_dict().items())


def test_mixed_codes_are_those_of_some_image_at_each_position() -> None:
    own = torch.arange(5)[:, None] * 100 + torch.arange(64)
    found = mix_codes(own, 5, torch.Generator().manual_seed(0))
    assert found.shape == own.shape
    assert torch.equal(found % 100, torch.arange(64).expand(5, 64))
    for row in found // 100:
        assert len(row.unique()) == 5  # of no single image
    assert not torch.equal(found, mix_codes(own, 5, torch.Generator().manual_seed(1)))
    [alone] = mix_codes(own, 1, torch.Generator().manual_seed(0)) // 100
    assert len(alone.unique()) == 5  # also of a batch of one, from the images before


def test_mixed_codes_are_farther_away_than_the_images_own(
    model: Callable[..., TaskModel], test_split: FolderDataset
) -> None:
    found = evaluated(model(), test_split, [Small()])
    assert found["mixed/fd_small"] != found["codes/fd_small"]
    assert "nearest/fd_small" not in found  # nothing is asked for


def test_codes_are_mixed_from_the_latest_images(
    model: Callable[..., TaskModel], test_split: FolderDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "BATCH", 2)
    pools, codes = [], []
    own = model().tokenizer.__class__.encode

    def mix(pool: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
        pools.append(pool.clone())
        return mix_codes(pool, count, generator)

    def encode(tokenizer: Tokenizer, images: torch.Tensor) -> torch.Tensor:
        codes.append(own(tokenizer, images))
        return codes[-1]

    monkeypatch.setattr(generation, "mix_codes", mix)
    monkeypatch.setattr(Tokenizer, "encode", encode)
    evaluated(model(), test_split, [Small()])
    assert len(pools) >= 2
    seen = torch.cat([found.flatten(1) for found in codes if len(found)])
    for number, pool in enumerate(pools):
        last = min(2 * (number + 1), len(seen))
        assert len(pool) == 2
        assert torch.equal(pool.sort(dim=0).values, seen[last - 2 : last].sort(dim=0).values)


def test_the_limit_bounds_both_splits(model: Callable[..., TaskModel], test_split: FolderDataset) -> None:
    found = evaluated(model(), test_split, [Small()], limit=2)
    assert (found["images"], found["training_images"]) == (2, 2)
    assert evaluated(model(), test_split, [Small()])["training_images"] == 10
    with pytest.raises(UsageError, match="--limit 0 must be 1 or more"):
        evaluated(model(), test_split, limit=0)


def test_without_a_training_split_there_is_no_nearest_copy(
    model: Callable[..., TaskModel], shared_images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(shared_images, folder)
    lines = (folder / "metadata.jsonl").read_text().replace('"train"', '"val"')
    (folder / "metadata.jsonl").write_text(lines)
    found = evaluated(model(MASKED), FolderDataset(folder, "test"), [Small()])
    assert found["training_images"] == 0
    assert not [name for name in found if "nearest" in name or "copying" in name]
    assert "continued/completed/centre/psnr" in found


# --- memorization -----------------------------------------------------------------------------------------------------


def test_a_task_that_repeats_training_images_shows_as_copying(
    model: Callable[..., TaskModel], test_split: FolderDataset, tokenizer: Tokenizer
) -> None:
    train = FolderDataset(test_split.folder, "train")
    copied = tokens(tokenizer, train)[:3]
    found = evaluated(model(own=Known(copied), data_sha256=train.fingerprint), test_split, [Small()])
    image_set, network = images(train), Small()

    def nearest(made: Tensor) -> Tensor:
        return torch.cdist(network(made).double(), network(image_set).double()).min(dim=1).values

    ours, theirs = (nearest(decoded(tokenizer, rows)) for rows in (copied, tokens(tokenizer, test_split)))
    assert found["nearest_distance_small"] == pytest.approx(float(ours.mean()), rel=1e-4)
    assert found["held_out/nearest_distance_small"] == pytest.approx(float(theirs.mean()), rel=1e-4)
    expected = float(((ours[:, None] < theirs).double() + (ours[:, None] == theirs).double() / 2).mean())
    assert expected > 0.6
    assert found["data_copying_small"] == pytest.approx(expected)
    assert {"data_copying_small", "nearest_distance_small"} <= found["intervals"].keys()
    assert not [warning for warning in found["warnings"] if "training" in warning]


def test_memorization_warns_of_other_data_and_of_the_training_split(
    model: Callable[..., TaskModel], test_split: FolderDataset, tokenizer: Tokenizer
) -> None:
    other = evaluated(model(data_sha256="0"), test_split, [Small()])
    assert "was trained on other data than images" in " ".join(other["warnings"])
    train = FolderDataset(test_split.folder, "train")
    own = evaluated(model(own=Known(tokens(tokenizer, train))), train, [Small()])
    assert "are training images" in " ".join(own["warnings"])
    # what is drawn may be near its own key's image, and the images themselves are compared with the others
    assert own["nearest_distance_small"] < own["held_out/nearest_distance_small"]


# --- completion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("completes", "masks"), [("any", {"right", "centre"}), ("end", {"bottom"}), ("", set())])
def test_tasks_are_evaluated_on_what_they_complete(
    completes: str, masks: set[str], model: Callable[..., TaskModel], test_split: FolderDataset, tokenizer: Tokenizer
) -> None:
    task = MASKED if completes == "any" else PRIOR
    own = Known(tokens(tokenizer, test_split), completes=completes)
    found = evaluated(model(task, own), test_split, [Small()])
    assert {name.split("/")[1] for name in found if name.startswith("completed/")} == masks


@pytest.mark.parametrize("batch", [2, 32])
def test_fillings_by_hand(
    batch: int, model: Callable[..., TaskModel], test_split: FolderDataset, tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(generation, "BATCH", batch)
    own = Known(torch.full((1, 64), 7), completes="any")
    found = evaluated(model(MASKED, own), test_split, [Small()])
    originals = images(test_split)
    train = images(FolderDataset(test_split.folder, "train"))
    for name in ("right", "centre"):
        mask = named_mask(name, SIZE)
        masks = mask.expand(3, SIZE, SIZE)
        known = originals[:, :, ~mask]
        apart = torch.cdist(known.flatten(1), train[:, :, ~mask].flatten(1))
        fillings = {
            "mean_colour": known.mean(dim=2)[:, :, None, None].expand_as(originals),
            "continued": fill_smoothly(originals, ~masks),
            "codes": decoded(tokenizer, tokens(tokenizer, test_split)),
            "nearest": train[apart.argmin(dim=1)],
        }
        sets = {f"{filling}/": image_set for filling, image_set in fillings.items()}
        sets[""] = complete_images(model(MASKED, own), originals, masks, Sampling(), torch.Generator())
        for filling, image_set in sets.items():
            expected = distance(torch.where(mask, image_set, originals), originals)
            assert found[f"{filling}completed/{name}/fd_small"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
        for filling, image_set in fillings.items():
            made = torch.where(mask, image_set, originals)
            for measure, score in (("psnr", hidden_psnr), ("ssim", hidden_ssim)):
                key = f"{filling}/completed/{name}/{measure}"
                values = score(made, originals, masks)
                assert found[key] == pytest.approx(float(values.mean()), abs=1e-4), key
                low, high = found["intervals"][key]
                assert float(values.min()) - 1e-4 <= low <= found[key] <= high <= float(values.max()) + 1e-4
            key = f"{filling}/completed/{name}/distance_small"
            assert found[key] == pytest.approx(float(hidden_distance(Small(), made, originals, masks).mean()), abs=1e-4)
        assert found[f"completed/{name}/psnr"] != found[f"untrained/completed/{name}/psnr"]


def test_only_fids_own_network_gives_completed_images_a_fid(
    model: Callable[..., TaskModel], test_split: FolderDataset, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Known(tokens(tokenizer, test_split), completes="end")
    found = evaluate_task(model(PRIOR, own), test_split, [Small()])["completed/bottom/fd_small"]
    assert (found.title, found.interval, found.main) == ("Fréchet distance (small)", None, True)
    assert "Not FID" in found.meaning
    assert "biased" in found.warning  # three images
    monkeypatch.setattr(Small, "metric_name", lambda self, metric: {"fd": "fid"}.get(metric, metric))
    assert evaluate_task(model(PRIOR, own), test_split, [Small()])["completed/bottom/fid"].title == "FID"


def test_a_network_with_heads_compares_pairs_and_no_sets(
    model: Callable[..., TaskModel], test_split: FolderDataset, tokenizer: Tokenizer
) -> None:
    own = Known(tokens(tokenizer, test_split), completes="end")
    found = evaluated(model(PRIOR, own), test_split, [Paired(), Small()])
    assert [name for name in found if name.startswith("completed/bottom/f")] == ["completed/bottom/fd_small"]


def test_only_the_hidden_part_is_generated(
    model: Callable[..., TaskModel], test_split: FolderDataset, tokenizer: Tokenizer
) -> None:
    """A task that knows the images' own tokens reaches what the tokenizer allows."""
    own = Known(tokens(tokenizer, test_split), completes="end")
    found = evaluated(model(PRIOR, own), test_split, [Small()])
    assert [prompt.keep_mask is not None for prompt in own.asked] == [False, True]
    continuing = own.asked[1]
    assert continuing.keep_mask is not None
    assert continuing.keep_mask.all(dim=0).tolist() == [place < 32 for place in range(64)]
    # its upper half is encoded from an image without the lower one, so a little differs
    assert found["completed/bottom/psnr"] == pytest.approx(found["codes/completed/bottom/psnr"], abs=3)


# --- faithfulness ---------------------------------------------------------------------------------------------------


class Text:
    """The mean colour of each image as its only sentence, so a colour can retrieve its text."""

    width = 6

    def __init__(self, folder: Path, silent: str = "") -> None:
        everything = FolderDataset(folder)
        self.rows = {
            record.file_name: colour_of(image[None])
            for record, image in zip(everything, images(everything), strict=True)
            if record.file_name != silent
        }

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def vectors(self, key: str) -> dict[str, Any]:
        row = self.rows[key].numpy().astype(np.float32)
        return {"words": row, "phrases": row, "sentences": row}

    def vocabulary(self, granularity: str) -> Any:
        raise AssertionError("no vocabulary is asked for here")


def colour_of(image_set: Tensor) -> Tensor:
    """Colours of the quarters; six numbers distinguish the images."""
    return normalize(nn.functional.adaptive_avg_pool2d(image_set, (1, 2)).flatten(1).double(), dim=1).float()


class ByColour(Aligner):
    """An aligner whose image embedding is `colour_of`."""

    name = "colour"

    def forward(self, levels: Any, text: TextFeatures) -> Any:
        raise AssertionError("nothing is trained here")

    def embed_images(self, levels: Any) -> Tensor:
        return colour_of(levels)

    def embed_text(self, text: TextFeatures) -> Tensor:
        return text.sentences.vectors[:, 0]

    def embed_entries(self, entries: Tensor, granularity: str) -> None:
        return None


class Judge(Tokenizer):
    """A tokenizer whose grids are the images themselves."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.aligner = ByColour()

    def quantize(self, images: Any) -> Any:
        return images


def test_images_retrieve_their_own_text(
    model: Callable[..., TaskModel], test_split: FolderDataset, tokenizer: Tokenizer
) -> None:
    text, train = Text(test_split.folder), FolderDataset(test_split.folder, "train")
    own = Known(tokens(tokenizer, test_split)[:1], needs=("text",))
    found = evaluated(model(DIFFUSION, own), test_split, [Small()], text=text, aligned=Judge())
    assert found["images/text_recall@1"] == 1
    assert found["shuffled/text_recall@5"] == 1  # of three texts
    assert found["text_recall@1"] == pytest.approx(1 / 3)  # always the same image, so one of three at most
    assert found["shuffled/text_recall@1"] in (0, pytest.approx(1 / 3))
    assert found["images/text_r_precision"] is None
    assert {"codes/text_recall@1", "untrained/text_recall@1", "nearest/text_recall@1"} <= found.keys()
    assert "mixed/text_recall@1" not in found
    assert found["intervals"]["images/text_recall@1"] == (1, 1)
    assert [prompt.text is not None for prompt in own.asked] == [True]
    # the nearest training images by text are here those nearest in the judge's space
    keys = [record.file_name for record in test_split]
    asked, answers = (torch.cat([text.rows[key] for key in names]) for names in (keys, [r.file_name for r in train]))
    copies = images(train)[(asked @ answers.mT).argmax(dim=1)]
    assert found["nearest/fd_small"] == pytest.approx(distance(copies, images(test_split)), rel=1e-5)
    expected = ((colour_of(copies) @ asked.mT).argmax(dim=1) == torch.arange(3)).double().mean()
    assert found["nearest/text_recall@1"] == pytest.approx(float(expected))
    assert "data_copying_small" not in found


def test_images_without_text_do_not_count(
    model: Callable[..., TaskModel], test_split: FolderDataset, tokenizer: Tokenizer
) -> None:
    silent = test_split[1].file_name
    own = Known(tokens(tokenizer, test_split), needs=("text",))
    text = Text(test_split.folder, silent)
    found = evaluated(model(DIFFUSION, own), test_split, [Small()], text=text, aligned=Judge())
    assert found["images"] == 3
    assert found["images/text_recall@1"] == 1
    assert found["shuffled/text_recall@1"] == 0  # of two texts the other one
    assert found["nearest/fd_small"] is not None


def test_without_an_aligned_tokenizer_or_texts_there_is_no_retrieval(
    model: Callable[..., TaskModel], test_split: FolderDataset, tokenizer: Tokenizer
) -> None:
    own = Known(tokens(tokenizer, test_split), needs=("text",))
    found = evaluated(model(DIFFUSION, own), test_split, [ScenesNetwork()], text=Text(test_split.folder))
    assert not [name for name in found if "recall" in name]
    alone = evaluated(
        model(DIFFUSION, own), test_split, [Small()], text=Text(test_split.folder), limit=1, aligned=Judge()
    )
    assert not [name for name in alone if "recall" in name]
