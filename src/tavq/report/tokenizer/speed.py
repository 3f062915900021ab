"""The section of a run's page that says how fast it was trained, for tokenizers and tasks."""

from collections.abc import Callable
from statistics import median

from tavq.core.checks import is_number
from tavq.report.html.markup import Markup, tag
from tavq.report.run import Run
from tavq.report.tokenizer.sections import note, section, table

SPEED = "speed"
"""Key of a log line under which training writes what it measured of itself."""


def _share(value: float) -> str:
    return f"{value:.1%}"


def _gigabytes(value: float) -> str:
    return f"{value / 1e9:.2f} GB"


ROWS: dict[str, tuple[str, Callable[[float], str], str]] = {
    "images_per_second": ("images a second", "{:,.4g}".format, "Of all processes together."),
    "data_wait": ("waiting for data", _share, "Share of the time; more data.workers may lower it."),
    "mfu": ("MFU", _share, "Model FLOP utilization: the operations of the model over the device's peak."),
    "memory_allocated": ("GPU memory, allocated", _gigabytes, "Peak of the tensors."),
    "memory_reserved": ("GPU memory, reserved", _gigabytes, "Peak of what PyTorch took from the GPU."),
    "memory_resident": ("memory", _gigabytes, "Of the machine, held by the process that held most."),
}
"""What is shown of each measured quantity: its name, its format and what it means."""


def render_speed(run: Run) -> Markup | None:
    """A table of the run's speed, medians over its log lines; None for runs that did not measure it.

    The first line is left out where there are others: the start-up is in it.
    """
    lines = run.lines[1:] or run.lines
    measured = [line[SPEED] for line in lines if isinstance(line.get(SPEED), dict)]
    rows = []
    for key, (title, show, meaning) in ROWS.items():
        values = [speed[key] for speed in measured if is_number(speed.get(key))]
        if values:
            cells = [tag("th", title, scope="row"), tag("td", show(median(values)), class_="number")]
            rows.append([*cells, tag("td", meaning, class_="meaning")])
    if not rows:
        return None
    device = run.provenance.get("device", "an unknown device")
    processes = run.provenance.get("processes", 1)
    where = f"{device}, one process" if processes == 1 else f"{device}, {processes} processes"
    about = f"Trained on {where}. Medians over the log lines."
    return section("speed", "Speed", note(about), table(["quantity", "value", "meaning"], rows, numbers=[1]))
