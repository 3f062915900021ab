"""Plain values and tensors from all processes, in the order of one."""

import json
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from tavq.core.files import parse_json
from tavq.ops.collective import all_gather_text, all_gather_uneven, world_size


def gather_values(own: Any) -> list[Any]:
    """The values of all processes, by rank; JSON carries them, so they are plain."""
    return [parse_json(text, "What another process sent") for text in all_gather_text(json.dumps(own))]


def gather_in_order(places: Sequence[int], values: Sequence[Any]) -> list[Any]:
    """The plain values of all processes, ordered by their places; none may have two places."""
    own = list(zip(places, values, strict=True))
    pairs = own if world_size() == 1 else [pair for part in gather_values(own) for pair in part]
    return [value for _, value in sorted(pairs, key=lambda pair: pair[0])]


def gather_rows(places: Sequence[int], rows: Sequence[Shaped[Tensor, "_n *d"]]) -> Shaped[Tensor, "m *d"]:
    """The rows of all processes as one tensor, ordered by their places.

    Args:
        places: of each row of this process; no two rows of all processes have the same.
        rows: parts that follow each other; a process may have none.
    """
    shape = max(gather_values(list(rows[0].shape[1:]) if rows else []))
    types = [torch.int64, torch.float32, torch.int32, torch.float64]
    type = types[max(gather_values(types.index(rows[0].dtype) if rows else 0))]
    own = torch.cat(list(rows)) if rows else torch.empty(0, *shape, dtype=type)
    if world_size() == 1:
        return own[torch.tensor(sorted(range(len(places)), key=places.__getitem__), dtype=torch.int64)]
    flat = all_gather_uneven(own.flatten(1) if shape else own[:, None])
    order = [place for part in gather_values(list(places)) for place in part]
    return flat.view(-1, *shape)[torch.tensor(order, dtype=torch.int64).argsort()]
