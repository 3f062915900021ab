"""`tavq train`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tavq import api
from tavq.cli import console
from tavq.cli.devices import with_device
from tavq.cli.tracking import LogTo

Settings = Annotated[
    str,
    Parameter(allow_leading_hyphen=True, help="Settings to change, as --SECTION.KEY VALUE."),
]

Resume = bool | Literal["auto"]


@with_device
def train(
    recipe: str,
    /,
    *settings: Settings,
    data: Path,
    out: Path,
    resume: Resume = False,
    text: Path | None = None,
    log_to: LogTo = (),
) -> None:
    """Train a tokenizer.

    A trained model further: tavq train finetune-decoder --train.start_from MODEL --data images --out tuned

    On several GPUs: torchrun --standalone --nproc-per-node 4 -m tavq train …; train.batch is the batch of all GPUs
    together.

    Example: tavq train ta-vqgan-tiny --data scenes --out run --train.steps 400 --model.codebook.entries 512

    Args:
        recipe: A shipped recipe (list them with `tavq recipes`) or a YAML file.
        data: A folder data set.
        out: The run folder: recipe.yaml, log.jsonl, checkpoints, samples and model.
        resume: Continue from the newest checkpoint; the result is bit-for-bit that of an uninterrupted run.
            `auto` starts the run if there is none yet, for schedulers that repeat the command.
        text: The text store; by default DATA/text, which is built where it is missing.
    """
    changes = api.parse_overrides(settings)
    with console.bar("Training") as bar:
        api.train(recipe, data=data, out=out, settings=changes, resume=resume, text=text, log_to=log_to, progress=bar)
    if console.is_first_process() and (bar.done or resume != "auto"):  # else it said that the run is complete
        console.say(f"The model is in {out / 'model'}. Next: tavq evaluate {out} --data {data}")
