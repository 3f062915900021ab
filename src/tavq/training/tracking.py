"""Logs a run to other programs too, such as TensorBoard; what goes wrong there never ends the run."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import UInt8
from numpy import ndarray

from tavq.core import files
from tavq.core.checks import is_number
from tavq.core.errors import FileError, first_line
from tavq.core.registry import Registry
from tavq.recipes.schema import RunRecipe
from tavq.training.reporting import Reporter

TRACKING = "tracking.json"
"""File of a run folder with what trackers need to continue a run, by their names."""


class Tracker(ABC):
    """Writes the course of one run for another program.

    Args:
        run: the run folder.
        state: what earlier trackers of this run left in it, which may be added to; kept in `TRACKING`.
        step: steps done; what was logged of later ones is replaced.
        settings: of the run.

    Raises:
        Exception: of any kind; the run goes on without it.
    """

    name: ClassVar[str]
    distribution: ClassVar[str]
    """The package that must be installed; the extra is called as the tracker."""

    @abstractmethod
    def __init__(self, run: Path, state: dict[str, Any], step: int, settings: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of a step."""

    @abstractmethod
    def show(self, step: int, image: UInt8[ndarray, "y x 3"]) -> None:
        """Log a sample image of a step."""

    @abstractmethod
    def evaluate(self, step: int, values: Mapping[str, float]) -> None:
        """Log the metrics of the model after its last step."""

    @abstractmethod
    def close(self) -> None:
        """Write what is not written yet."""


trackers: Registry[type[Tracker]] = Registry("tracker", "tavq.training.trackers")
"""What a run can be logged to, by name."""


class TrackingReporter:
    """A Reporter that passes everything on to another one, and to trackers.

    Args:
        inner: the other one.
        names: of the trackers.

    Raises:
        UsageError: there is no tracker of a name.
    """

    def __init__(self, inner: Reporter, names: Iterable[str]) -> None:
        self._inner = inner
        self._kinds = {name: trackers[name] for name in names}
        self._open: dict[str, Tracker] = {}

    def begin(self, run: Path, recipe: RunRecipe, step: int) -> None:
        """Open the trackers."""
        self._inner.begin(run, recipe, step)
        self.open(run, recipe.model_dump(mode="json"), step)

    def open(self, run: Path, settings: Mapping[str, Any], step: int) -> None:
        """Open the trackers of a run; one that cannot be opened is named and left out."""
        if not self._kinds:
            return
        try:
            states = _read_states(run)
        except Exception as error:
            names = " and ".join(self._kinds)
            self._inner.message(f"Not logged to {names} ({_describe(error)}). The run goes on without it.")
            return
        for name, kind in self._kinds.items():
            try:
                self._open[name] = kind(run, states.setdefault(name, {}), step, settings)
            except ImportError:
                hint = f"It needs the package {kind.distribution}: pip install 'tavq[{name}]'."
                self._inner.message(f"Not logged to {name}. {hint}")
            except Exception as error:
                self._inner.message(f"Not logged to {name} ({_describe(error)}). The run goes on without it.")
        kept = {name: state for name, state in states.items() if state or name in self._open}
        try:
            files.write_json(run / TRACKING, kept)
        except Exception as error:
            self._inner.message(f"If this run is resumed, it may begin new curves ({_describe(error)}).")

    def _each(self, act: Callable[[Tracker], None]) -> None:
        """Do something with every tracker; one that fails is named and not used again."""
        for name, tracker in list(self._open.items()):
            try:
                act(tracker)
            except Exception as error:
                del self._open[name]
                self._inner.message(f"No longer logged to {name} ({_describe(error)}). The run goes on without it.")

    def progress(self, step: int, steps: int, line: dict[str, Any] | None) -> None:
        """Pass a step on, and log its line."""
        self._inner.progress(step, steps, line)
        if line is not None:
            values = flatten_line(line)
            self._each(lambda tracker: tracker.log(step, values))

    def sample(self, step: int, image: UInt8[ndarray, "y x 3"]) -> None:
        """Pass a sample image on, and log it."""
        self._inner.sample(step, image)
        self._each(lambda tracker: tracker.show(step, image))

    def message(self, text: str) -> None:
        """Pass a message on."""
        self._inner.message(text)

    def evaluate(self, step: int, values: Mapping[str, float]) -> None:
        """Log the metrics of the trained model."""
        self._each(lambda tracker: tracker.evaluate(step, values))

    def close(self) -> None:
        """Close the trackers."""
        self._each(lambda tracker: tracker.close())
        self._open.clear()


@contextmanager
def tracking(inner: Reporter, names: Iterable[str]) -> Iterator[TrackingReporter]:
    """A reporter that also logs to the trackers of these names, which are closed at the end."""
    reporter = TrackingReporter(inner, names)
    try:
        yield reporter
    finally:
        reporter.close()


def flatten_line(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a log line by name; those in an object get its name before theirs."""
    values: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, Mapping):
            values |= {f"{key}/{name}": number for name, number in flatten_line(value).items()}
        elif is_number(value) and key != "step":
            values[key] = float(value)
    return values


def _read_states(run: Path) -> dict[str, dict[str, Any]]:
    path = run / TRACKING
    if not os.path.lexists(path):
        return {}
    states = files.read_json(path)
    if not isinstance(states, dict) or not all(isinstance(state, dict) for state in states.values()):
        raise FileError(f"{path} was altered: it must hold an object for each tracker. Remove it to log a new curve.")
    return states


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)[:200]}"
