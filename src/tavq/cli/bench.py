"""`tavq bench`: ours beside peers and the incumbent's arrangement."""

from pathlib import Path

from tavq import api
from tavq.cli import console
from tavq.cli.devices import with_device


@with_device
def bench(
    *rows: str,
    out: Path | None = None,
    seconds: float = 45.0,
    check: bool = False,
    floors: Path | None = None,
    write_floors: Path | None = None,
    fraction: float = 0.8,
    toy: bool = False,
) -> int:
    """Measure our speed and memory beside peers, as ratios of interleaved runs.

    Peers that are not installed are named: pip install 'tavq[bench]'. All rows take up to a quarter of an hour on two
    cores. The machine must do nothing else, and OMP_NUM_THREADS=1 gives the steadiest ratios. The exit code is 1 where
    --check finds a ratio below its floor.

    Example: tavq bench nearest sinkhorn --out bench

    Args:
        rows: Rows to measure, by default all: nearest, quantizer, step, encode, sampling, sinkhorn, text, jpeg.
        out: Folder for bench.json, bench.md and bench.svg.
        seconds: Time of each case beyond two rounds.
        check: Compare our ratios with the floors of this class of machine.
        floors: File of floors, instead of those that tavq brings.
        write_floors: Keep a fraction of the measured ratios as floors in this file.
        fraction: That fraction.
        toy: Tiny sizes that try the command and measure nothing.
    """
    with console.bar("Measuring") as bar:
        result = api.run_bench(rows, seconds, toy, lambda title: bar(0, None, title))
    for case in result["cases"].values():
        body = [api.make_cells(name, row) for name, row in case["rows"].items()]
        console.print_table(f"{case['title']} ({case['rounds']} rounds)", api.BENCH_COLUMNS, body)
    for line in api.absent_lines(result):
        console.say(f"Not measured: {line}")
    if out is not None:
        api.write_bench(result, out)
        console.say(f"Wrote {out}/bench.json, bench.md and bench.svg.")
    if write_floors is not None:
        api.write_floors(result, write_floors, fraction)
        console.say(f"Wrote {write_floors}.")
    return _check(result, floors) if check else 0


def _check(result: "api.BenchResult", floors: Path | None) -> int:
    failures, missing = api.check_floors(result, floors)
    for line in missing:
        console.say(f"Not checked: {line}")
    for line in failures:
        console.say(f"Too slow: {line}")
    if not failures:
        console.say("All measured ratios reach their floors.")
    return 1 if failures else 0
