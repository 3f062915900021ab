"""One comparison: alternatives that do the same work."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec

import torch

OURS = "tavq"
"""Names of our own alternatives start with this; floors are kept for those."""

INSTALL = "pip install 'tavq[bench]'"


@dataclass(frozen=True)
class Alternative:
    """One way of doing the work of a case.

    Attributes:
        name: as the table shows it; ours start with `tavq`.
        work: does it once.
        items: how much of the case's work a call does: images of a batch, or a part of what the first one does.
        repeats: calls in each round, for work that takes microseconds.
        note: what the table says beside it, such as how well its results agree.
    """

    name: str
    work: Callable[[], object]
    items: float = 1
    repeats: int = 1
    note: str = ""


@dataclass
class Case:
    """Alternatives; the first is the one that the others are compared with.

    Attributes:
        key: names the case in files, with its row: `nearest/wide`.
        title: as the table shows it.
        alternatives: those that are installed.
        absent: why others are not here, by name.
        rounds: the most rounds that are worth while.
    """

    key: str
    title: str
    alternatives: list[Alternative] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    rounds: int = 7

    def add_peer(self, name: str, module: str, build: Callable[[], Iterable[Alternative]]) -> None:
        """Add alternatives of a package, or say that it is not installed.

        Args:
            name: the peer, as the table shows it.
            module: the package that is imported.
            build: imports it and makes the alternatives.
        """
        if find_spec(module) is None:
            self.absent[name] = f"{module} is not installed: {INSTALL}"
            return
        try:
            self.alternatives += build()
        except ImportError as error:  # an old version, or one that lacks something itself
            self.absent[name] = f"{module} cannot be used ({error})"


@dataclass(frozen=True)
class Scale:
    """Where and how large: `toy` runs every line in seconds and measures nothing."""

    device: torch.device
    toy: bool = False


Row = Callable[[Scale], Iterator[Case]]
"""Makes the cases of a row one after the other, so that one's tensors are gone before the next one's."""
