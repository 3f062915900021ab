"""`tavq study`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tavq import api
from tavq.cli import console
from tavq.cli.console import Count, Seed
from tavq.cli.devices import with_device
from tavq.core.errors import TavqError

Settings = Annotated[
    str,
    Parameter(
        allow_leading_hyphen=True, help="Settings to change in every row, as --SECTION.KEY VALUE; tasks keep theirs."
    ),
]


@with_device
def study(
    study: str,
    /,
    *settings: Settings,
    data: Path,
    out: Path,
    rows: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    seeds: Annotated[list[Seed] | None, Parameter(consume_multiple=True, negative=())] = None,
    text: Path | None = None,
    features: Annotated[list[str] | None, Parameter(negative=())] = None,
    limit: Count | None = None,
    jobs: Count = 1,
) -> int:
    """Train and evaluate a list of recipes with several seeds, and write one table: OUT/study.md and study.json.

    The same command continues a study that was stopped.

    Example: tavq study ta-vq-table-2-tiny --data scenes --out study

    A quick try of it: add --seeds 0 --limit 50 --train.steps 20

    Args:
        study: A shipped study (list them with `tavq recipes`) or a YAML file.
        data: A folder data set; its split test is measured.
        out: The folder of the study, with a run folder for each row and seed.
        rows: Names of the rows to run; by default all.
        seeds: Seeds in place of the study's.
        text: The text store of all rows; by default those that the study names, or DATA/text, which is built.
        features: Feature networks of the distances in place of the study's, as NAME or NAME=FILE.
        limit: Measure only the first images.
        jobs: Runs to train side by side, each on one processor core, and on GPUs in turn where there are several.
    """
    changes = api.parse_overrides(settings)
    chosen = api.load_study(study, changes, rows, seeds)
    jobs = min(jobs, len(chosen.rows) * len(chosen.seeds))
    titles = [f"Worker {index + 1}" for index in range(jobs)] if jobs > 1 else ["Study"]
    try:
        with console.bars(titles) as bars:
            result = api.run_study(
                chosen,
                data=data,
                out=out,
                text=text,
                features=features,
                limit=limit,
                jobs=jobs,
                progress=lambda worker, done, total, note: bars[worker](done, total, note),
            )
    except KeyboardInterrupt:
        raise TavqError(f"Stopped. {out} keeps what is finished; the same command continues the study.") from None
    table = result.table
    console.print_table(table.study.title, table.headings, list(table.rows()))
    for note in [*table.notes, *result.failures]:
        console.say(note)
    console.say(f"The table is in {out / 'study.md'} and {out / 'study.json'}")
    return 1 if result.failures else 0
