"""`tavq explore`: what codes mean, in a browser."""

import contextlib
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from tavq import api
from tavq.cli import console
from tavq.cli.console import Workers
from tavq.cli.devices import with_device
from tavq.core.errors import UsageError

Port = Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65535))]


@with_device
def explore(
    *models: str,
    data: Path,
    port: Port = 0,
    export: Path | None = None,
    page: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    split: str | None = None,
    text: Path | None = None,
    text_encoder: Path | None = None,
    store: Path | None = None,
    fault_budget: str | None = None,
    workers: Workers | None = None,
) -> None:
    """Explore what codes mean: codes, words, images and edits of codes, in a browser on this machine.

    The first call counts what every code does on the data set; later calls open the page at once.

    Example: tavq explore run --data scenes

    Args:
        models: One or more tokenizers, or models of tasks, which are asked about edited images: model folders, run
            folders or hub names.
        data: A folder data set.
        port: Port on 127.0.0.1; by default a free one.
        export: Write a part that needs no server to this page (.html) or bundle (.json) and end.
        page: Address of a code, text or image that is exported, such as #/m/run/deep/code/7, instead of the most
            frequent ones; repeat it.
        split: Only this split; by default all images.
        text: The text store; by default DATA/text. Without one, captions are split and nothing is aligned.
        text_encoder: Folder of the text encoder of an aligner, if it has moved.
        store: Folder of the counts; by default tavq/explore in the user's folder of caches.
        fault_budget: How many images may be unreadable: a number (by default 100), or a share of them such as 5%.
        workers: Background processes that read images; by default 0 on a CPU, and one a core, at most 8, on a GPU.
    """
    if not models:
        raise UsageError("Name one or more models, such as: tavq explore run --data scenes")
    if page and export is None:
        raise UsageError("--page chooses what --export writes; give both.")
    api.check_explorer(port, export)
    with console.bar(f"Exploring {data}") as bar:
        explorer = api.open_explorer(
            models, data=data, split=split, text=text, text_encoder=text_encoder, store=store,
            fault_budget=fault_budget, workers=workers, progress=bar,
        )  # fmt: skip
    if export is not None:
        left_out = api.export_explorer(explorer, export, pages=page)
        console.say(f"The page is {export.resolve()}")
        more = ", ".join(f"{count} {name}" for name, count in left_out.items() if count)
        if more:
            console.say(f"Left out, as the page would be larger than 20 MB: {more}")
        return
    with contextlib.suppress(KeyboardInterrupt):
        api.serve_explorer(explorer, port=port, ready=_announce)


def _announce(address: str) -> None:
    console.say(f"Open {address}\nEnd with Ctrl+C.")
