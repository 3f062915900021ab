"""Text sources without texts, for tests that read sizes and words only."""

from typing import Any

import numpy as np


class NoText:
    """An empty text source with a width."""

    def __init__(self, width: int) -> None:
        self.width = width

    def __contains__(self, key: str) -> bool:
        return False

    def vectors(self, key: str) -> dict[str, Any]:
        return {}

    def vocabulary(self, granularity: str) -> tuple[list[str], Any]:
        return [], np.empty((0, self.width), np.float32)


class WordGraphSource(NoText):
    """An empty text source with a word graph."""

    def __init__(self, graph: Any) -> None:
        super().__init__(int(graph.vectors.shape[1]))
        self.graph = graph

    def word_graph(self) -> Any:
        return self.graph
