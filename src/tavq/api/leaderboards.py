"""Measure tokenizers, own and imported ones, by one protocol."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from tavq.api.calls import Budget, PathLike, Progress, count_up_to, warn
from tavq.api.images import image_config
from tavq.api.measuring import BATCH, measure_split, open_network
from tavq.core.devices import default_device
from tavq.core.errors import UsageError
from tavq.core.torchrun import launched_processes
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.data.workers import explain_dead_workers
from tavq.evaluation.leaderboard import measure_beyond
from tavq.inspection.pixels import as_bytes
from tavq.interfaces import Batch
from tavq.model_folder import find_model, read_model_config
from tavq.report.leaderboard import Entry, Leaderboard, Shown, write_leaderboard
from tavq.text.store import TextStore
from tavq.tokenizer import Tokenizer

SHOWN = 6
"""Images whose reconstructions the page shows."""


@explain_dead_workers()
def leaderboard(
    models: Sequence[PathLike],
    *,
    data: PathLike,
    out: PathLike,
    split: str = "test",
    text: PathLike | None = None,
    features: Iterable[str] = ("scenes",),
    limit: int | None = None,
    size: int | None = None,
    fault_budget: Budget | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Leaderboard:
    """Measure tokenizers on the same images, and write OUT/leaderboard.html, .md and .json.

    Beyond `evaluate`: the length of a code in tokens and bits, codes encoded and decoded a second, the Fréchet distance
    after a tenth of the codes was changed, and zero-shot words of tokenizers with an aligner.

    Args:
        models: two or more model folders, run folders or hub names. Nothing is written into them.
        data: a folder data set.
        out: the folder to write.
        split: train, val or test.
        text: the text store; by default DATA/text where it exists. A tokenizer that was aligned with the vectors of
            another encoder is measured without text.
        features: feature networks of the distances, as in `evaluate`; the first decides the order.
        limit: measure only the first images.
        size: side of the images; by default the size that all models were trained at.
        fault_budget: as in `evaluate`.
        workers: background processes that read images; 0 reads them in this process. By default 0 on a CPU, and one a
            core, at most 8, on a GPU. The result is the same.
        progress: called with (images, total, note) after each batch.

    Returns:
        The tokenizers with all their metrics, best first by the first feature network's distance (`entries`), and the
        short table (`headings`, `values`).

    Raises:
        UsageError: fewer than two models, or models that were trained at different sizes where `size` is not given.
    """
    if launched_processes() > 1:
        raise UsageError("A leaderboard is measured by one process; call it without torchrun.")
    folders = {name: find_model(model) for name, model in name_models(models).items()}
    side = _common_size(folders) if size is None else size
    dataset = FolderDataset(Path(data), split)
    store = TextStore.find(dataset.home, None if text is None else Path(text))
    networks = [open_network(name).to(default_device()) for name in features]
    config = image_config(side, fault_budget, workers)
    first = next(iter(EvaluationLoader(dataset, config, SHOWN)))
    entries, rebuilt = [], {}
    for name, folder in folders.items():
        tokenizer = Tokenizer.from_pretrained(folder).prepare(default_device())
        own = _fitting_text(store, name, folder)
        report = _named(progress, name)
        found = measure_split(tokenizer, folder, dataset, config, own, networks, limit, report)
        count = count_up_to(int(found.details["images"]), report, "")
        loader = EvaluationLoader(dataset, config, BATCH, None, limit)
        beyond = measure_beyond(tokenizer, loader, networks, own, count)
        entries.append(Entry(name, read_model_config(folder), replace(found, metrics=(*found.metrics, *beyond))))
        rebuilt[name] = [as_bytes(image) for image in _reconstruct(tokenizer, first)]
    board = Leaderboard(entries)
    shown = []
    for index, (key, image) in enumerate(zip(first.keys, first.images, strict=True)):
        shown.append(Shown(key, as_bytes(image), {name: images[index] for name, images in rebuilt.items()}))
    write_leaderboard(Path(out), board, shown)
    return board


def name_models(models: Sequence[PathLike]) -> dict[str, str | Path]:
    """A name for each model: the last part of its path that is not `model`, with its parent's where two are the same.

    Raises:
        UsageError: fewer than two models, or one twice.
    """
    given: list[str | Path] = [model if isinstance(model, str) else Path(model) for model in models]
    if len(given) < 2:
        raise UsageError(f"A leaderboard compares two or more tokenizers; got {len(given)}.")
    paths = [Path(model).parent if Path(model).name == "model" else Path(model) for model in given]
    parts = [path.resolve().parts if path.exists() else path.parts for path in paths]
    for length in range(1, 1 + max(map(len, parts))):
        names = ["/".join(own[-length:]) for own in parts]
        if len(set(names)) == len(names):
            return dict(zip(names, given, strict=True))
    raise UsageError(f"A tokenizer is given twice in {', '.join(map(str, given))}; give each one once.")


def _common_size(folders: Mapping[str, Path]) -> int:
    """The side of the images that all models were trained at."""
    sizes = {name: read_model_config(folder).get("size") for name, folder in folders.items()}
    found = {size for size in sizes.values() if isinstance(size, int)}
    if len(found) != 1:
        listed = ", ".join(f"{name}: {size or 'not said'}" for name, size in sizes.items())
        raise UsageError(
            f"The tokenizers were trained at different image sizes ({listed}); say with --size at which size to "
            "compare them."
        )
    return found.pop()


def _fitting_text(store: TextStore | None, name: str, folder: Path) -> TextStore | None:
    """The store, or None where the model was aligned with another encoder's vectors."""
    if store is None:
        return None
    try:
        store.check_encoder(read_model_config(folder).get("text"))
    except UsageError as error:
        warn(f"{name} is measured without text: {error}")
        return None
    return store


def _named(progress: Progress | None, name: str) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total, _: progress(done, total, name)


def _reconstruct(tokenizer: Tokenizer, batch: Batch) -> Float[Tensor, "b 3 y x"]:
    return tokenizer.decode(tokenizer.encode(batch.images.to(default_device()))).cpu()
