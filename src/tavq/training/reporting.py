"""Who hears of a run while it trains."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import UInt8
from numpy import ndarray

from tavq.recipes.schema import RunRecipe


@runtime_checkable
class Reporter(Protocol):
    """Receives the progress of a run, in the first process alone; the command line shows it as a bar."""

    def begin(self, run: Path, recipe: RunRecipe, step: int) -> None:
        """Called before the first step of this process, which is the one after `step`; above 0 in a resumed run."""
        ...

    def progress(self, step: int, steps: int, line: dict[str, Any] | None) -> None:
        """Called after each step; `line` is the log line of this step, if one was written."""
        ...

    def sample(self, step: int, image: UInt8[ndarray, "y x 3"]) -> None:
        """Called with each image that shows what the model can do."""
        ...

    def message(self, text: str) -> None:
        """Show a person a line of text."""
        ...


class SilentReporter:
    """A Reporter that shows nothing; others inherit what they do not show."""

    def begin(self, run: Path, recipe: RunRecipe, step: int) -> None:
        """Do nothing."""

    def progress(self, step: int, steps: int, line: dict[str, Any] | None) -> None:
        """Do nothing."""

    def sample(self, step: int, image: UInt8[ndarray, "y x 3"]) -> None:
        """Do nothing."""

    def message(self, text: str) -> None:
        """Do nothing."""
