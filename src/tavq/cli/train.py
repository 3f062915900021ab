"""`tavq train`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tavq.cli import console
from tavq.core.errors import UsageError

Settings = Annotated[
    str,
    Parameter(allow_leading_hyphen=True, help="Settings to change, as --SECTION.KEY VALUE."),
]


class BarReporter:
    """Shows a run's progress on a bar, with what `tell` makes of the last line of the log beside it."""

    def __init__(self, bar: console.Bar, tell: Callable[[dict[str, Any]], str]) -> None:
        self.bar, self.tell = bar, tell
        self.note = ""

    def progress(self, step: int, steps: int, line: dict[str, Any] | None) -> None:
        """Moves the bar."""
        if line is not None:
            self.note = self.tell(line)
        self.bar(step, steps, self.note)

    def message(self, text: str) -> None:
        """A line above the bar."""
        console.say(text)


def loss_and_usage(line: dict[str, Any]) -> str:
    """A tokenizer's loss on pixels, and how much of its codebook was used."""
    loss = line.get("reconstruction/l1", line.get("reconstruction/l2", 0.0))
    return f"loss {loss:.3f}, usage {line['codebook/usage']:.0%}"


def train(
    recipe: str, /, *settings: Settings, data: Path, out: Path, resume: bool = False, text: Path | None = None
) -> None:
    """Trains a tokenizer.

    Example: tavq train ta-vqgan-tiny --data scenes --out run --train.steps 400 --model.codebook.entries 512

    On several GPUs: torchrun --standalone --nproc-per-node 4 -m tavq train …; train.batch is that of all together.

    Args:
        recipe: A shipped recipe (`tavq recipes`) or a YAML file.
        data: A folder data set.
        out: The run folder: recipe.yaml, log.jsonl, checkpoints, samples and model.
        resume: Go on from the newest checkpoint, to the same bits an undisturbed run gives.
        text: The text store; by default DATA/text, which is made where it is missing.
    """
    from tavq import recipes
    from tavq.core.config import parse_overrides

    overrides = parse_overrides(settings)
    chosen = recipes.load(recipe, overrides)
    run_training(chosen, data, out, resume, text, "Training")


def run_training(chosen: Any, data: Path, out: Path, resume: bool, text: Path | None, title: str) -> None:
    """Opens the data and the text store and trains `chosen` into `out`, with a bar."""
    from tavq.ops.collective import join_processes

    with join_processes():
        _train(chosen, data, out, resume, text, title)


def _train(chosen: Any, data: Path, out: Path, resume: bool, text: Path | None, title: str) -> None:
    from tavq.data.folder import FolderDataset
    from tavq.ops.collective import barrier, rank
    from tavq.text.store import TextStore
    from tavq.training.tokenizer.trainer import Trainer

    dataset = FolderDataset(data, "train")
    store = None
    if chosen.model.reads_text:
        if rank() == 0 and text is None and not (data / "text").exists():
            encode_text(dataset, chosen.model)
        barrier()
        store = TextStore.open(text or data / "text", verify=True)
        tell_changed(store, dataset)
    with console.bar(title, chosen.train.steps) as bar:
        trainer = Trainer(chosen, dataset, out, store, held_out(data), BarReporter(bar, loss_and_usage))
        trainer.run(resume)
    if rank() == 0:
        console.say(f"The model is in {out / 'model'}. Next: tavq evaluate {out} --data {data}")


def tell_changed(store: Any, dataset: Any) -> None:
    """Says which images have another text now than when the store was made."""
    changed = store.find_changed((record.file_name, record.text or "") for record in dataset)
    if changed:
        first = ", ".join(changed[:3])
        console.say(
            f"The text of {len(changed):,} images ({first}{', …' * (len(changed) > 3)}) is another one than when "
            f"{store.folder} was made, and training reads the old one; make it anew with: tavq text {dataset.folder} "
            f"--encoder {store.manifest.encoder.name}"
        )


def encode_text(dataset: Any, model: Any) -> None:
    """Makes the data set's text store as `tavq text` does by default, with the tables that `model` reads."""
    from tavq.cli.text import text
    from tavq.interfaces import codebooks

    if not any(record.text for record in dataset):
        raise UsageError(f"{dataset.folder} has no captions, and this recipe reads text; use another.")
    full_text, word_graph = model.reads_full_text, codebooks[model.codebook.name].reads_text
    command = f"tavq text {dataset.folder}{' --full-text' * full_text}{' --word-graph' * word_graph}"
    console.say(f"There is no text store yet; making it as by: {command}")
    text(dataset.folder, full_text=full_text, word_graph=word_graph)


def held_out(data: Path) -> Any:
    """The first of the val and test splits that has images, None where neither has."""
    from tavq.core.errors import TavqError
    from tavq.data.folder import FolderDataset

    for split in ("val", "test"):
        try:
            return FolderDataset(data, split)
        except TavqError:
            continue
    return None
