"""`tavq text`: split and encode the texts of a data set."""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from tavq.cli import console
from tavq.cli.console import Count

SHOWN = 10
"""Pictures without text that are named; all of them are in the store's faults.jsonl."""

Texts = Callable[[], Iterator[tuple[str, str]]]
"""Reads the key and the text of each picture, from the start."""


def add_to(app: App) -> None:
    """Adds the command."""
    app.command(text)


def text(
    folder: Path,
    /,
    *,
    encoder: str = "minilm",
    splitter: str = "pattern",
    out: Path | None = None,
    whole: bool = False,
    stats: bool = False,
    word_graph: bool = False,
    fewest: int = 10,
    word_vectors: Path | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    device: str | None = None,
    jobs: Count | None = None,
    shard: str | None = None,
    merge: bool = False,
    json: Path | None = None,
) -> None:
    """Splits each text into words, phrases and sentences and encodes each distinct unit once.

    A store that already holds these texts by this encoder is kept; work that was stopped is gone on with.

    On several machines give each a part (--shard 1/2 and --shard 2/2), then join the parts with --merge.

    Example: tavq text scenes --encoder minilm --stats

    Args:
        folder: A folder data set; `long_text` is taken, or the captions joined where there is none.
        encoder: `minilm`, a folder with a BERT-family model, a sentence encoder or CLIP's text tower, or a hub name
            (bert-base-uncased).
        splitter: `pattern` (no downloads) or `corpora` (TextBlob's corpora, where they are installed).
        out: The text store; by default FOLDER/text.
        whole: Also keep the token vectors of each whole text (for LG-VQ, and TA-VQ without multi-granularity).
        stats: Print what was found: units a picture, vocabulary, repeats, what was left out, ten samples to read.
        word_graph: Also keep the adjectives and nouns with their vectors and which modifies which (for codebooks made
            of words). A store that is made anew keeps the kinds of tables that the old one had.
        fewest: With --word-graph, words are kept that were seen more often than this.
        word_vectors: With --word-graph, a file of word vectors (GloVe's text format) in the place of the encoder's.
        dtype: bfloat16 is several times faster where the processor has it; the vectors then differ in the third digit.
        device: Where to encode; by default a GPU where there is one.
        jobs: Processes that split texts; by default one for each processor.
        shard: Only one part of the pictures, i/n, into the store OUT-i-of-n.
        merge: Join the parts OUT-1-of-n to OUT-n-of-n, which stand beside each other, into OUT.
        json: Also write the counts to this file.
    """
    from tavq.data.sharding import WHOLE, Shard

    place = out or folder / "text"
    if merge:
        store, loaded = _merge(place), None
    else:
        loaded = _load(encoder, dtype, device)
        part = Shard.parse(shard)
        place, texts = place.with_name(part.name_of(place.name)), _reader(folder, part)
        store, word_graph = _encode(texts, loaded, splitter, place, whole, word_graph, jobs)
    facts = tell(store, stats)
    if word_graph:
        loaded = loaded or _load(encoder, dtype, device)
        facts["word_graph"] = _build_word_graph(_reader(folder, WHOLE), loaded, store.folder, fewest, word_vectors)
    console.write_json(json, facts)


def _load(name: str, dtype: str, device: str | None) -> Any:
    import torch

    from tavq.interfaces import default_device
    from tavq.text.encoders import load_encoder

    return load_encoder(name, device or default_device(), getattr(torch, dtype))


def _reader(folder: Path, shard: Any) -> Texts:
    from tavq.data.folder import iter_texts

    return lambda: ((name, text) for name, text in iter_texts(folder) if name in shard)


def _encode(
    texts: Texts, encoder: Any, splitter: str, place: Path, whole: bool, word_graph: bool, jobs: int | None
) -> tuple[Any, bool]:
    """The store, made or kept, and whether it is to have a word graph."""
    from tavq.text.building import build_store

    next(texts(), None)  # a folder that is missing or empty is told before anything is written
    before = _store_at(place)
    if before is not None and before.holds(texts(), encoder, splitter, whole):
        console.say(f"The text store {place} holds these texts; it is kept.")
        return before, word_graph
    if before is not None:  # what the old one held beside the units, the new one holds too
        whole, word_graph = whole or before.manifest.whole, word_graph or before.has_word_graph
    jobs = jobs or os.cpu_count() or 1
    return build_store(texts(), encoder, splitter, place, whole, jobs=jobs, bars=console.bar), word_graph


def _merge(out: Path) -> Any:
    from tavq.text.merging import merge_stores, parts_of

    parts = parts_of(out)
    with console.bar("Merging parts", len(parts)):
        return merge_stores(parts, out)


def _store_at(place: Path) -> Any:
    from tavq.core.errors import FileError
    from tavq.text.store import TextStore

    try:
        return TextStore.open(place, verify=True)
    except FileError:  # none there, or a damaged one, in whose place a new one is made
        return None


def tell(store: Any, whole: bool) -> dict[str, Any]:
    """Prints what a store holds, with `whole` all that is known, and gives it for JSON."""
    from tavq.text.statistics import read_statistics

    found = read_statistics(store)
    rows = [
        [name, level.units, level.distinct, level.share, level.a_picture, *level.quantiles, level.without, level.once]
        for name, level in found.levels.items()
    ]
    columns = ["granularity", "units", "distinct", "share distinct", "a picture", "5 %", "median", "95 %"]
    console.table("Text store", [*columns, "pictures without", "met once"], rows)
    if whole:
        _tell_samples(found)
    if found.faults:
        console.table("Left out", ["reason", "pictures"], [[why, count] for why, count in found.faults.items()])
        for key, reason in store.faults()[:SHOWN]:
            console.say(f"{key}: {reason}")
    console.say(f"The text of {found.pictures:,} pictures is in {store.folder}.")
    return asdict(found) | {"text_store": str(store.folder)}


def _tell_samples(found: Any) -> None:
    for name, level in found.levels.items():
        common = ", ".join(f"{unit} {count:,}" for unit, count in level.common)
        print(f"Most frequent {name}: {common}")
    for key, units in found.samples.items():
        print(f"\n{key}")
        for name, texts in units.items():
            print(f"  {name}: {' · '.join(texts) or '-'}")
    print()


def _build_word_graph(texts: Texts, encoder: Any, place: Path, fewest: int, vectors: Path | None) -> dict[str, Any]:
    from tavq.text.wordgraph import build_word_graph

    summary = build_word_graph((text for _, text in texts()), encoder, place, fewest, vectors)
    console.say(
        f"The word graph of {summary.adjectives:,} adjectives, {summary.nouns:,} nouns and {summary.edges:,} edges "
        f"is in {place}."
    )
    return asdict(summary)
