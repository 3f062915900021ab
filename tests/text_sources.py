"""Text sources for tests that read sizes and words and no image's text."""

from typing import Any

import numpy as np


class NoText:
    """A text source of a width that holds the text of no image and no unit."""

    def __init__(self, width: int) -> None:
        self.width = width

    def __contains__(self, key: str) -> bool:
        return False

    def vectors(self, key: str) -> dict[str, Any]:
        return {}

    def vocabulary(self, granularity: str) -> tuple[list[str], Any]:
        return [], np.empty((0, self.width), np.float32)


class Words(NoText):
    """One that has a word graph."""

    def __init__(self, graph: Any) -> None:
        super().__init__(int(graph.vectors.shape[1]))
        self.graph = graph

    def word_graph(self) -> Any:
        return self.graph
