"""Every tiny recipe and task on a GPU that is not there: nothing mixes devices, and a step costs what is written down.

`counts.yaml` holds the waits and launches of a step. A resumed step must not cost more than one that was not stopped,
which shows optimizer states that leave the fused path.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from pretend_device import Notes, pretend
from pretend_operators import count_operators

from tavq import recipes
from tavq.cli import run
from tavq.data.folder import FolderDataset
from tavq.text.store import TextStore
from tavq.training.reporting import SilentReporter
from tavq.training.task.trainer import TaskTrainer
from tavq.training.tokenizer.trainer import Trainer

TOKENIZERS = [name for name in recipes.names() if name.endswith("-tiny")]
TASKS = [name for name in recipes.names("tasks") if name.endswith("-tiny")]
COUNTS = yaml.safe_load((Path(__file__).parent / "counts.yaml").read_text())

SHORT = {
    "train.steps": 3, "train.batch": 4, "train.warmup": 1, "train.log_every": 100, "train.checkpoint_every": 1,
    "train.sample_every": 100, "train.keep": 3,
}  # fmt: skip
SMALL = {**SHORT, "data.size": 32, "model.net.channels": 8, "model.net.multipliers": [1, 1, 2]}
MEASURED = 2
"""The step whose cost is counted: Adam has its states, the adversary plays, and nothing is logged."""

Make = Callable[[Path, Any], Trainer | TaskTrainer]


class Enough(Exception):
    """Ends a run after the step that was measured."""


class Marks(SilentReporter):
    """A Reporter that keeps what step `MEASURED` noted, from its batch to its last update, and may end the run then."""

    def __init__(self, notes: Notes, to_the_end: bool) -> None:
        self.notes, self.to_the_end = notes, to_the_end
        self.starts: list[Notes] = []
        self.found = Notes()

    def watch(self, trainer: Trainer | TaskTrainer) -> None:
        backward = trainer.backward

        def watched(batch: Any, step: int) -> Any:
            self.starts.append(copy.deepcopy(self.notes))
            return backward(batch, step)

        trainer.backward = watched  # type: ignore[method-assign]

    def progress(self, step: int, steps: int, line: Any) -> None:
        if step == MEASURED:
            start = self.starts[-1]
            self.found = Notes(*(getattr(self.notes, name) - getattr(start, name) for name in vars(start)))
            if not self.to_the_end:
                raise Enough


@contextmanager
def on_gpu() -> Iterator[Notes]:
    with pretend(count_operators) as notes:
        yield notes
    assert not notes.mixes, notes.mixes
    assert not notes.slow_lists, notes.slow_lists


def cost(make: Make, out: Path, resume: bool = False) -> Notes:
    """What one step noted in a run that ends after it, or that a checkpoint of the step before continues to its end."""
    with on_gpu() as notes:
        marks = Marks(notes, to_the_end=resume)
        trainer = make(out, marks)
        marks.watch(trainer)
        with contextlib.suppress(Enough):
            trainer.run(resume)
    return marks.found


def check(kind: str, name: str, make: Make, out: Path) -> None:
    straight, resumed = cost(make, out), cost(make, out, resume=True)
    waits, launches = straight.counts()
    assert waits > 0  # the finite check reads its answer: without a wait nothing was counted
    kept = COUNTS[kind].get(name, {"waits": -1, "launches": -1})
    for found, once in ((straight, 0), (resumed, 3)):  # after a resume each level reads the counts that it has loaded
        message = f"{name}: {{waits: {waits}, launches: {launches}}} {found.waits}"
        assert found.waits.total() <= kept["waits"] + once, message
        assert 0 < found.launches.total() <= kept["launches"], found.places.most_common(40)


@pytest.fixture(scope="module")
def tokenizers(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `images` and `segmentation`, trained on the CPU."""
    home = tmp_path_factory.mktemp("tokenizers")
    for kind in ("images", "segmentation"):
        settings = {**SMALL, "data.images": kind, "train.adversarial": None, "train.steps": 1}
        Trainer(recipes.load("vqgan-tiny", settings), FolderDataset(scenes, "train"), home / kind).run()
    return home


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer(name: str, scenes: Path, tmp_path: Path) -> None:
    adversarial = recipes.load(name).train.adversarial is not None
    smaller = {"train.adversarial.start": 0, "train.adversarial.discriminator.channels": 8} if adversarial else {}
    recipe = recipes.load(name, {**SMALL, **smaller})

    def make(out: Path, marks: Any) -> Trainer:
        text = TextStore.open(scenes / "text") if recipe.model.reads_text else None
        return Trainer(recipe, FolderDataset(scenes, "train"), out, text, reporter=marks)

    check("tokenizers", name, make, tmp_path / "run")
    with on_gpu():
        assert run(["evaluate", str(tmp_path / "run"), "--data", str(scenes), "--empty-features"]) == 0


@pytest.mark.parametrize("name", TASKS)
def test_a_task(name: str, scenes: Path, tokenizers: Path, tmp_path: Path) -> None:
    recipe = recipes.load_task(name, SHORT)
    maps = tokenizers / "segmentation" if name == "semantic-tiny" else None

    def make(out: Path, marks: Any) -> TaskTrainer:
        data, text = FolderDataset(scenes, "train"), TextStore.open(scenes / "text")
        return TaskTrainer(recipe, tokenizers / "images", data, out, text, marks, segmentation_tokenizer=maps)

    check("tasks", name, make, tmp_path / "run")
    with on_gpu():
        assert run(["task", "evaluate", str(tmp_path / "run"), "--data", str(scenes), "--limit", "2"]) == 0
