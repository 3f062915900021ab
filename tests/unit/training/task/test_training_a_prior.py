"""A prior trained by the loop on the tokens of small tokenizers, with and without segmentation maps."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tavq import recipes
from tavq.core import files
from tavq.core.config import build, read_yaml
from tavq.core.errors import DataError, FileError, TrainingError, UsageError
from tavq.data.folder import FolderDataset
from tavq.data.images import save_png
from tavq.data.records import Fault
from tavq.model_folder import read_config
from tavq.nets.convnet import count_parameters
from tavq.recipes.schema import TaskRecipe
from tavq.tasks.base import Prompt, Sampling, TokenLayout
from tavq.tasks.generation import build_prompt
from tavq.tasks.model_folder import TaskConfig, load_task
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training.reporting import SilentReporter
from tavq.training.task.tokens import TokenTable, join_tables
from tavq.training.task.trainer import TaskTrainer

TASK = {"name": "prior", "layers": 1, "heads": 2, "width": 16, "dropout": 0.2}
TRAIN = {"steps": 6, "batch": 4, "log_every": 2, "checkpoint_every": 3, "sample_every": 6}


def recipe(segmentation: bool = False, size: int = 32, **train: Any) -> TaskRecipe:
    values = {"task": {**TASK, "segmentation": segmentation}, "data": {"size": size}, "train": {**TRAIN, **train}}
    return build(TaskRecipe, values, "test")


def tokenizer(
    folder: Path, seed: int, entries: int, multipliers: tuple[int, ...] = (1, 1, 2, 2), **metadata: Any
) -> Path:
    """A model folder of random weights; its entries are features of plain colours, so that colours have own tokens."""
    torch.manual_seed(seed)
    values = {
        "net": {"channels": 8, "multipliers": multipliers, "blocks": 1, "attention": False},
        "codebook": {"name": "learned", "entries": entries, "width": 6},
    }
    made = Tokenizer(build(TokenizerConfig, values, "test"))
    with torch.no_grad():
        plain = (torch.rand(entries, 3, 1, 1) * 2 - 1).expand(-1, -1, 32, 32)
        next(iter(made.codebook.parameters())).copy_(made.encoder(plain)[1].mean((2, 3)))
    made.save_pretrained(folder, metadata=metadata)
    return folder


@pytest.fixture(scope="module")
def data(shared_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny images with segmentation maps; the map of the third training image is cut short."""
    folder = tmp_path_factory.mktemp("mapped") / "data"
    shutil.copytree(shared_images, folder)
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["segmentation"] = f"segmentation/{number}.png"
        classes = np.zeros((32, 32), np.uint8)
        classes[8 : 16 + number, 8:] = 1 + number % 4
        save_png(folder / line["segmentation"], classes)
    (folder / "segmentation/2.png").write_bytes((folder / "segmentation/2.png").read_bytes()[:60])
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tokenizer of images and one of maps."""
    home = tmp_path_factory.mktemp("tokenizers")
    images = tokenizer(home / "images", 1, 20, kind_of_images="images", size=32)
    return images, tokenizer(home / "maps", 2, 12, kind_of_images="segmentation")


@pytest.fixture
def trainer(data: Path, tokenizers: tuple[Path, Path]) -> Callable[..., TaskTrainer]:
    def make(run: Path, settings: TaskRecipe | None = None, **changes: Any) -> TaskTrainer:
        given: dict[str, Any] = {"tokenizer": tokenizers[0], "segmentation_tokenizer": tokenizers[1], **changes}
        return TaskTrainer(settings or recipe(), dataset=FolderDataset(data, "train"), run=run, **given)

    return make


def weights(run: Path) -> bytes:
    return (run / "model/model.safetensors").read_bytes()


class Stop(SilentReporter):
    """A Reporter that stops the run after a step."""

    def __init__(self, at: int) -> None:
        self.at, self.stop = at, lambda: None

    def progress(self, step: int, steps: int, line: dict[str, Any] | None) -> None:
        if step == self.at:
            self.stop()

    def message(self, text: str) -> None:
        pass


@pytest.mark.parametrize("segmentation", [False, True])
def test_a_stopped_run_resumes_bit_for_bit(
    segmentation: bool, trainer: Callable[..., TaskTrainer], tmp_path: Path
) -> None:
    settings = recipe(segmentation)
    trainer(tmp_path / "whole", settings).run()
    stop = Stop(at=3)
    first = trainer(tmp_path / "parts", settings, reporter=stop)
    stop.stop = first.loop.stop
    with pytest.raises(TrainingError, match="Stopped by a signal after step 3 of 6"):
        first.run()
    trainer(tmp_path / "parts", settings).run(resume=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")
    assert (tmp_path / "whole/samples/00000006.png").is_file()
    losses = [line["prior/nll"] for line in files.read_json_lines(tmp_path / "whole/log.jsonl")]
    assert len(losses) == 3
    assert losses[0] == pytest.approx(np.log(20), abs=0.1)


def test_the_model_folder_of_semantic_synthesis_is_complete(
    trainer: Callable[..., TaskTrainer], tokenizers: tuple[Path, Path], tmp_path: Path
) -> None:
    trainer(tmp_path, recipe(True)).run()
    loaded = load_task(tmp_path)
    assert loaded.condition_tokenizer is not None
    assert (loaded.tokenizer.entries, loaded.condition_tokenizer.entries) == (20, 12)
    shas = [files.read_json(folder / "config.json")["sha256"] for folder in tokenizers]
    assert [loaded.metadata["tokenizer"], loaded.metadata["segmentation_tokenizer"]] == shas
    assert shas[1][:12] in (tmp_path / "model/README.md").read_text()
    given = torch.zeros(2, 16, dtype=torch.int64)
    tokens = loaded.task.sample(Prompt(2, condition=given), Sampling(guidance=2), torch.Generator().manual_seed(0))
    assert loaded.tokenizer.decode(loaded.config.layout.to_indices(tokens)).shape == (2, 3, 32, 32)


def test_a_batch_has_the_tokens_of_images_and_of_their_maps(
    trainer: Callable[..., TaskTrainer], data: Path, tmp_path: Path
) -> None:
    made = trainer(tmp_path, recipe(True))
    table = made.data.table()
    assert table.keys == tuple(f"images/{number}.png" for number in range(10) if number != 2)
    assert [fault.where for fault in table.faults] == ["images/2.png"]
    assert table.condition is not None
    assert table.tokens.shape == table.condition.shape == (9, 2, 16)
    alone = trainer(tmp_path / "alone").data.table()
    assert torch.equal(table.tokens, alone.tokens[[0, 1, *range(3, 10)]])
    assert alone.condition is None
    again = trainer(tmp_path, recipe(True)).data.table()
    assert again.condition is not None
    assert torch.equal(again.condition, table.condition)
    assert torch.equal(trainer(tmp_path).data.table().tokens, alone.tokens)  # another task's tokens are not taken
    batch = next(made.open_batches(0))
    rows = [table.keys.index(key) for key in batch.keys]
    for row, tokens, given in zip(rows, batch.tokens, batch.condition, strict=True):
        sides = [side for side in (0, 1) if torch.equal(table.tokens[row, side].long(), tokens)]
        assert any(torch.equal(table.condition[row, side].long(), given) for side in sides)


@pytest.mark.parametrize("own", [None, {number: (9 * number, 255 - 40 * number, 128) for number in range(5)}])
def test_maps_have_the_colours_their_tokenizer_was_trained_on_everywhere(
    own: dict[int, tuple[int, int, int]] | None, trainer: Callable[..., TaskTrainer], data: Path, tmp_path: Path
) -> None:
    """In training, in a prompt with a map, and in a run that uses the tokenizer in a task's folder."""
    kept = {} if own is None else {"colours": own}
    maps = tokenizer(tmp_path / "maps", 2, 12, kind_of_images="segmentation", **kept)
    made = trainer(tmp_path / "run", recipe(True), segmentation_tokenizer=maps)
    table = made.data.table()
    assert table.condition is not None
    made.run()
    loaded = load_task(tmp_path / "run")
    assert loaded.colours == own
    files_of = {key: data / "segmentation" / Path(key).name for key in table.keys}
    prompt, _ = build_prompt(loaded, (), [*files_of.values()], 1)
    assert prompt.condition is not None
    assert torch.equal(prompt.condition, table.condition[:, 0].long())
    inner = tmp_path / "run/model/segmentation_tokenizer"
    again = trainer(tmp_path / "again", recipe(True), segmentation_tokenizer=inner).data.table()
    assert again.condition is not None
    assert torch.equal(again.condition, table.condition)
    other = tokenizer(tmp_path / "other", 2, 12, kind_of_images="segmentation", colours={9: (0, 0, 0), **(own or {})})
    if own is None:  # the same weights, but no map can be coloured; the kept tokens are not taken either
        with pytest.raises(DataError, match="has no colour for class 0"):
            trainer(tmp_path / "run", recipe(True), segmentation_tokenizer=other).data.table()
    else:
        default = trainer(tmp_path / "default", recipe(True)).data.table()
        assert default.condition is not None
        assert (default.condition != table.condition).float().mean() > 0.3


def test_colours_that_are_damaged_are_refused(trainer: Callable[..., TaskTrainer], tmp_path: Path) -> None:
    maps = tokenizer(tmp_path / "maps", 2, 12, kind_of_images="segmentation", colours={1: "red"})
    with pytest.raises(UsageError, match=r"The tokenizer .*maps: .*colours\.1"):
        trainer(tmp_path / "run", recipe(True), segmentation_tokenizer=maps)


def test_images_without_maps(tokenizers: tuple[Path, Path], shared_images: Path, tmp_path: Path) -> None:
    made = TaskTrainer(
        recipe(True), tokenizers[0], FolderDataset(shared_images), tmp_path, segmentation_tokenizer=tokenizers[1]
    )
    with pytest.raises(DataError, match=r"16 of 16 images .* it has no segmentation"):
        made.run()


def test_the_two_tables_are_joined_by_key() -> None:
    def table(keys: str, first: int) -> TokenTable:
        tokens = first + torch.arange(len(keys), dtype=torch.int32)
        return TokenTable(tokens[:, None, None].expand(-1, 2, 3), tuple(keys), (Fault(keys, "broken"), Fault("x", "y")))

    found = join_tables(table("abcd", 0), table("dab", 10))
    assert found.keys == tuple("abd")
    assert found.condition is not None
    assert found.tokens[:, 0, 0].tolist() == [0, 1, 3]
    assert found.condition[:, 0, 0].tolist() == [11, 12, 10]
    assert [fault.where for fault in found.faults] == ["abcd", "x", "dab"]


def test_no_image_in_both_tables() -> None:
    tables = [TokenTable(torch.zeros(1, 1, 4, dtype=torch.int32), (key,), ()) for key in ("a", "b")]
    with pytest.raises(DataError, match="No image can be read together with its segmentation"):
        join_tables(*tables)


def test_tokenizers_that_do_not_match(
    trainer: Callable[..., TaskTrainer], tokenizers: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = recipe(True)
    with pytest.raises(UsageError, match="needs a tokenizer of segmentation maps; train one with"):
        trainer(tmp_path, settings, segmentation_tokenizer=None)
    with pytest.raises(UsageError, match="was trained on images, not on segmentation maps"):
        trainer(tmp_path, settings, segmentation_tokenizer=tokenizers[0])
    with pytest.raises(UsageError, match="Cannot encode images of 33 x 33"):
        trainer(tmp_path, recipe(size=33)).run()
    trainer(tmp_path / "run", settings).run()
    other = tokenizer(tmp_path / "other", 3, 12, kind_of_images="segmentation")
    with pytest.raises(UsageError, match="The tokenizer of segmentation maps changed since"):
        trainer(tmp_path / "run", settings, segmentation_tokenizer=other).run(resume=True)
    with pytest.raises(UsageError, match="The tokenizer changed since"):
        trainer(tmp_path / "run", settings, tokenizer=tokenizer(tmp_path / "third", 4, 20)).run(resume=True)


def test_images_of_too_many_tokens(trainer: Callable[..., TaskTrainer], tmp_path: Path) -> None:
    fine = tokenizer(tmp_path / "fine", 1, 20, multipliers=(1, 2))
    with pytest.raises(UsageError, match=r"Images of 2048 px: .* an image of 1,048,576 tokens is too long"):
        trainer(tmp_path, recipe(size=2048), tokenizer=fine)


def test_a_model_folder_with_hostile_sizes(trainer: Callable[..., TaskTrainer], tmp_path: Path) -> None:
    trainer(tmp_path).run()
    path = tmp_path / "model/config.json"
    stored = read_config(path.parent)
    for changes, message in (
        ({"layers": 64, "width": 4096}, "parameters is too large"),
        ({"layers": 2}, "model.safetensors"),
        ({"segmentation": True}, "needs the layout of the segmentation maps"),
    ):
        model = {**stored["model"], "task": {**stored["model"]["task"], **changes}}
        files.write_json(path, {**stored, "model": model})
        with pytest.raises(FileError, match=message):
            load_task(tmp_path)


# --- recipes --------------------------------------------------------------------------------------------------------

RECIPES = sorted((Path(recipes.__file__).parent / "tasks").glob("*.yaml"))
PRIORS = [path for path in RECIPES if path.stem.removesuffix("-tiny") in ("unconditional", "semantic")]


@pytest.mark.parametrize("path", PRIORS, ids=lambda path: path.stem)
def test_a_shipped_recipe_can_be_built(path: Path) -> None:
    made = build(TaskRecipe, read_yaml(path.read_text(), path.name), path.name)
    assert made.description
    assert made.task.segmentation == path.stem.startswith("semantic")
    layout = TokenLayout(height=16, width=16, sizes=(1024,))
    with torch.device("meta"):
        task = TaskConfig(
            task=made.task, layout=layout, condition_layout=layout if made.task.segmentation else None
        ).make()
    if path.stem.endswith("-tiny"):
        assert count_parameters(task) < 2_000_000
    else:
        assert (made.task.layers, made.task.heads, made.task.width) == (16, 16, 1024)
        assert 203_000_000 < count_parameters(task) < 206_000_000
        assert made.train.learning_rate == pytest.approx(4.5e-6 * made.train.batch)


def test_four_recipes_are_the_priors() -> None:
    assert len(PRIORS) == 4
