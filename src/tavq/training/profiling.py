"""`train.profile`: where the time of a few steps goes, as a trace for a browser and as a short table."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, schedule

from tavq.core import files
from tavq.core.errors import first_line
from tavq.training.speed import WAITING

WARMUP = 3
"""Steps before those that are profiled: the first ones allocate, choose algorithms and compile."""

OPERATORS = 20
PROFILE = "profile"
"""Folder of a run with trace.json and summary.txt."""


@contextmanager
def profile_steps(steps: int, run: Path, inform: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Profile some steps after a warm-up and write RUN/profile; gives a function to call after each step.

    Args:
        steps: number of steps to profile; 0 profiles nothing.
        run: the run folder.
        inform: shows a person a line of text.
    """
    if steps == 0:
        yield lambda: None
        return
    gpu = torch.cuda.is_available()
    done: list[str] = []
    profiler = profile(
        activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])],
        schedule=schedule(wait=0, warmup=WARMUP, active=steps, repeat=1),
        on_trace_ready=lambda found: done.append(_write(found, run / PROFILE)),
    )
    profiler.start()
    try:
        yield lambda: _step(profiler, done, inform)
    finally:
        if not done:
            profiler.stop()
            inform(done[0] if done else f"Nothing was profiled: train.profile needs more than {WARMUP} steps.")


def _step(profiler: profile, done: list[str], inform: Callable[[str], None]) -> None:
    """Tell the profiler that a step is over; after the last one it is stopped, as it slows every step down."""
    if done:
        return
    profiler.step()
    if done:
        profiler.stop()
        inform(done[0])


def _write(profiler: profile, folder: Path) -> str:
    """Write a profile, and return a sentence about it; what goes wrong does not end the run."""
    try:
        with files.write_folder(folder) as place:
            profiler.export_chrome_trace(str(place / "trace.json"))
            files.write_text(place / "summary.txt", summarize(profiler.key_averages()))
    except Exception as error:
        return f"The profile could not be written ({first_line(error)}). The run goes on."
    return f"Where the time goes is in {folder / 'summary.txt'}; open {folder / 'trace.json'} in ui.perfetto.dev."


def summarize(events: Any) -> str:
    """A table of the operators that took most time by themselves, of the GPU where there is one.

    Args:
        events: averages by name, as `torch.profiler.profile.key_averages` gives them.
    """
    listed = list(events)
    by_name = {event.key: event for event in listed}
    whole = [event for event in listed if event.key.startswith("ProfilerStep")]
    steps = sum(event.count for event in whole) or 1
    seconds = sum(event.cpu_time_total for event in whole) / 1e6
    waited = by_name[WAITING].cpu_time_total / 1e6 if WAITING in by_name else 0.0
    operators = [event for event in listed if not event.is_user_annotation and event not in whole]
    kernels = [event for event in operators if event.device_type != DeviceType.CPU]  # operators repeat their times
    gpu = bool(kernels)
    spent = {event.key: _self_time(event, gpu) / 1e6 for event in (kernels or operators)}
    total = sum(spent.values()) or 1.0
    counted = f"{steps} step{'s' if steps > 1 else ''}"
    lines = [f"{counted}, {seconds / steps:.4f} s a step, {waited / (seconds or 1):.1%} waiting for data"]
    if gpu:
        lines.append(f"{_count_launches(by_name) / steps:,.0f} kernels launched a step")
    lines += ["", f"{'operator':<60} {'calls a step':>12} {'ms a step':>10} {'share':>6}"]
    for name in sorted(spent, key=lambda key: -spent[key])[:OPERATORS]:
        calls, own = by_name[name].count / steps, spent[name]
        lines.append(f"{name[:60]:<60} {calls:>12,.1f} {1e3 * own / steps:>10.3f} {own / total:>6.1%}")
    about = f"Time of the {'GPU' if gpu else 'processor'} in each operator itself, without those that it calls."
    return "\n".join([*lines, "", about, ""])


def _self_time(event: Any, gpu: bool) -> float:
    return float(event.self_device_time_total if gpu else event.self_cpu_time_total)


def _count_launches(by_name: dict[str, Any]) -> int:
    return sum(
        event.count for name, event in by_name.items() if name.startswith(("cudaLaunchKernel", "cuLaunchKernel"))
    )
