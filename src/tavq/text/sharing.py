"""Encoding of texts by several processes: the first builds the store and sends the others chunks to encode.

Only text goes to them and only vectors come back, so that they need no disk in common. A chunk is encoded as a single
process would encode it, which keeps the store the same bytes.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from tavq.core.files import parse_json
from tavq.ops.collective import all_gather_text, barrier, join_processes, rank, world_size
from tavq.ops.gathering import gather_rows, gather_values
from tavq.text.encoders import TextEncoder
from tavq.text.store import TextStore

Vectors = tuple[Tensor, ...]
"""One tensor of vectors; of full texts those of their tokens, and the pooled ones."""

KINDS: dict[str, Callable[[TextEncoder, list[Any]], Vectors]] = {
    "words": lambda encoder, texts: (encoder.encode_words(texts),),
    "units": lambda encoder, texts: (encoder.encode_units(texts),),
    "tokens": lambda encoder, ids: (encoder.token_vectors(ids),),
    "full texts": lambda encoder, ids: encoder.encode_tokens(ids),
}
"""What can be encoded."""


def encode_chunks(encoder: TextEncoder, kind: str, chunks: Sequence[list[Any]], shared: bool) -> list[Vectors]:
    """Encode chunks, one in each process if they are `shared`; the others must be in `help_encode`.

    Args:
        encoder: the same in all processes.
        kind: a key of `KINDS`.
        chunks: no more than there are processes, if shared.
        shared: whether the other processes help.
    """
    if not shared:
        return [KINDS[kind](encoder, chunk) for chunk in chunks]
    all_gather_text(json.dumps([kind, chunks]))
    return _encode_own(encoder, kind, chunks)


def help_encode(encoder: TextEncoder) -> None:
    """Encode what the first process sends until it calls `end_help`."""
    while True:
        kind, chunks = parse_json(all_gather_text("")[0], "What the first process sends to encode")
        if not kind:
            return
        _encode_own(encoder, kind, chunks)


def end_help() -> None:
    """Let the other processes go on."""
    all_gather_text(json.dumps(["", []]))


def chunks_at_once(shared: bool) -> int:
    """The chunks to give to `encode_chunks`."""
    return world_size() if shared else 1


def build_together(
    place: Path, load: Callable[[], TextEncoder] | None, build: Callable[[TextEncoder | None, bool], TextStore]
) -> TextStore:
    """Build a store in the first of the processes of torchrun, for which the others encode; alone without torchrun.

    Args:
        place: where the store will be.
        load: loads the encoder; None where nothing is encoded.
        build: builds the store, given the encoder and whether the others help.
    """
    with join_processes():
        loaded = None if load is None else load()
        if loaded is not None:
            # the store at `place`, which decides about the projection, may be on the disk of the first alone
            [projects, *_] = gather_values(loaded.projection is not None)
            loaded.projection = loaded.projection if projects else None
        if rank() == 0:
            store = build(loaded, world_size() > 1)
            if loaded is not None and world_size() > 1:
                end_help()
        elif loaded is not None:
            help_encode(loaded)
        barrier()
        return store if rank() == 0 else TextStore.open(place, verify=False)


def _encode_own(encoder: TextEncoder, kind: str, chunks: Sequence[list[Any]]) -> list[Vectors]:
    """Encode the chunk of this process, and return those of all in their order."""
    own = [tensor.float() for tensor in KINDS[kind](encoder, chunks[rank()])] if rank() < len(chunks) else []
    results = []
    for part in range(2 if kind == "full texts" else 1):
        rows = [own[part]] if own else []
        counts = _counts(len(own[part]) if own else 0)
        start = sum(counts[: rank()])
        together = gather_rows(range(start, start + counts[rank()]), rows)
        results.append(together.split(counts[: len(chunks)]))
    return list(zip(*results, strict=True))


def _counts(own: int) -> list[int]:
    """The rows of each process."""
    return [int(text) for text in all_gather_text(str(own))]
