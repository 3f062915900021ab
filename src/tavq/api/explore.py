"""Explore what codes mean: statistics, edits and a server for a browser."""

import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tavq.api.calls import Budget, PathLike, Progress
from tavq.api.images import image_config
from tavq.core.devices import default_device
from tavq.core.errors import UsageError
from tavq.core.files import write_text
from tavq.data.folder import FolderDataset
from tavq.explore import opening
from tavq.explore.store import default_folder
from tavq.text.store import TextStore

if TYPE_CHECKING:
    from tavq.explore.explorer import Explorer

PACKAGES = ("fastapi", "uvicorn")


def open_explorer(
    models: Sequence[PathLike],
    *,
    data: PathLike,
    split: str | None = None,
    text: PathLike | None = None,
    text_encoder: PathLike | None = None,
    store: PathLike | None = None,
    fault_budget: Budget | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> "Explorer":
    """Count what the codes of models do on a data set, for `serve_explorer` and `export_explorer`.

    One pass over the images writes a store, which later calls open; an interrupted pass continues.

    Args:
        models: one or more tokenizers or tasks on them: model folders, run folders or hub names. A task is asked about
            edited images of its tokenizer.
        data: a folder data set.
        split: only this split; by default all images.
        text: the text store; by default DATA/text. Without one, captions are split and nothing is aligned.
        text_encoder: folder of the text encoder of an aligner, where it has moved.
        store: folder of the stores; by default tavq/explore in the user's folder of caches.
        fault_budget: how many images may be unreadable before the call fails: a number (by default 100), or a share of
            them such as "5%".
        workers: processes that read images; by default 0 on a CPU, and one a core, at most 8, on a GPU.
        progress: called with (images, total, note).

    Returns:
        The explorer.

    Raises:
        UsageError: there is no such model or data set.
        DataError: too many images cannot be read.
        FileError: a file is damaged.
    """
    if not models:
        raise UsageError("Name one or more models to explore.")
    dataset = FolderDataset(Path(data), split)
    setup = opening.Setup(
        dataset,
        TextStore.find(dataset.home, None if text is None else Path(text)),
        default_folder() if store is None else Path(store),
        image_config(256, fault_budget, workers),
        None if text_encoder is None else os.fspath(text_encoder),
        default_device(),
        progress,
    )
    return opening.open_explorer([os.fspath(model) for model in models], setup)


def serve_explorer(explorer: "Explorer", *, port: int = 0, ready: Callable[[str], None] | None = None) -> None:
    """Answer the explorer's page on 127.0.0.1 until the process is interrupted.

    Args:
        explorer: from `open_explorer`.
        port: to listen on; by default a free one.
        ready: called with the address to open, which holds a random token.

    Raises:
        UsageError: the port cannot be used, or the extra `explore` is missing.
    """
    check_explorer(port)
    from tavq.explore.server.serving import serve

    serve(explorer, port, ready)


def export_explorer(
    explorer: "Explorer",
    out: PathLike,
    *,
    codes: int = 48,
    words: int = 48,
    images: int = 16,
    pages: Sequence[str] = (),
) -> dict[str, int]:
    """Write a chosen part of the explorer to one file that needs no server.

    Args:
        explorer: from `open_explorer`.
        out: a page (.html), or the bundle alone (.json); below 20 MB.
        codes: the most used codes of each model.
        words: the most frequent words.
        images: evenly spaced images.
        pages: instead of all these, the codes, texts and images at these addresses of the explorer's page, such as
            "#/m/run/deep/code/7".

    Returns:
        How many of the codes, units and images did not fit.

    Raises:
        UsageError: `out` has another ending, an address is of something else, or the extra `explore` is missing.
        FileError: the file cannot be written.
    """
    place = Path(out)
    check_explorer(export=place)
    from tavq.explore.offline import choose_pages, choose_part, make_page
    from tavq.explore.server.offline import bundle_of

    choice = choose_pages(explorer, pages) if pages else choose_part(explorer, codes, words, images)
    bundle = bundle_of(explorer, choice)
    whole = json.dumps(bundle.model_dump(mode="json"), ensure_ascii=True, separators=(",", ":"))
    write_text(place, make_page(whole) if place.suffix == ".html" else whole)
    return dict(bundle.left_out)


def check_explorer(port: int = 0, export: Path | None = None) -> None:
    """Raise UsageError where the explorer could not be shown, so that nobody waits for its counts in vain.

    Args:
        port: to listen on; 0 for a free one.
        export: the file to write instead of listening.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"The explorer needs {', '.join(missing)}: pip install 'tavq[explore]'.")
    if export is None:
        from tavq.explore.server.serving import check_port

        check_port(port)
    elif export.suffix not in (".html", ".json"):
        raise UsageError(f"{export} must end in .html (a page) or .json (the bundle alone).")
