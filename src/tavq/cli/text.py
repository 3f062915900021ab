"""`tavq text`: split and encode the texts of a data set."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cyclopts import App

from tavq.cli import console

SHOWN = 10
"""Pictures without text that are named; all of them are in the file of --json."""


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
    word_graph: bool = False,
    fewest: int = 10,
    word_vectors: Path | None = None,
    json: Path | None = None,
) -> None:
    """Splits each text into words, phrases and sentences and encodes each distinct unit once.

    Example: tavq text scenes --encoder minilm

    Args:
        folder: A folder data set; `long_text` is taken, or the captions joined where there is none.
        encoder: `minilm`, a folder with a BERT-family model or CLIP's text tower, or a hub name (bert-base-uncased).
        splitter: `pattern` (no downloads) or `corpora` (TextBlob's corpora, where they are installed).
        out: The text store; by default FOLDER/text.
        whole: Also keep the token vectors of each whole text (for LG-VQ, and TA-VQ without multi-granularity).
        word_graph: Also keep the adjectives and nouns with their vectors and which modifies which (for codebooks made
            of words); a store of the same pictures by the same encoder is kept as it is. A store that is made anew
            keeps the kinds of tables that the old one had.
        fewest: With --word-graph, words are kept that were seen more often than this.
        word_vectors: With --word-graph, a file of word vectors (GloVe's text format) in the place of the encoder's.
        json: Also write the counts to this file.
    """
    from tavq.data.folder import FolderDataset
    from tavq.text.encoders import load_encoder

    dataset = FolderDataset(folder)
    console.tell_faults(dataset.faults)
    texts = {record.file_name: record.text or "" for record in dataset.records}
    loaded, place = load_encoder(encoder), out or folder / "text"
    facts: dict[str, Any] = {}
    before = _store_at(place)
    if word_graph and before is not None and before.holds(texts, loaded, splitter, whole):
        console.say(f"The text store {place} holds these pictures; it is kept.")
    else:
        if before is not None:  # what the old one held beside the units, the new one holds too
            whole, word_graph = whole or before.manifest.whole, word_graph or before.has_word_graph
        facts = _build(texts, loaded, splitter, place, whole)
    if word_graph:
        facts["word_graph"] = _build_word_graph(texts, loaded, place, fewest, word_vectors)
    console.write_json(json, facts)


def _store_at(place: Path) -> Any:
    from tavq.core.errors import FileError
    from tavq.text.store import TextStore

    try:
        return TextStore.open(place, verify=True)
    except FileError:  # none there, or a damaged one, in whose place a new one is made
        return None


def _build(texts: Mapping[str, str], encoder: Any, splitter: str, place: Path, whole: bool) -> dict[str, Any]:
    from tavq.text.building import build_store

    with console.bar("Encoding text", len(texts)) as bar:
        summary = build_store(texts, encoder, splitter, place, whole, progress=bar)
    rows = [
        [name, count, summary.distinct[name], summary.share(name), count / max(summary.pictures, 1)]
        for name, count in summary.units.items()
    ]
    console.table("Text store", ["granularity", "units", "distinct", "share distinct", "a picture"], rows)
    for key, reason in summary.dropped[:SHOWN]:
        console.say(f"No text for {key}: {reason}")
    console.say(f"The text of {summary.pictures:,} pictures is in {place}; {len(summary.dropped):,} have none.")
    return asdict(summary)


def _build_word_graph(
    texts: Mapping[str, str], encoder: Any, place: Path, fewest: int, vectors: Path | None
) -> dict[str, Any]:
    from tavq.text.wordgraph import build_word_graph

    summary = build_word_graph(texts.values(), encoder, place, fewest, vectors)
    console.say(
        f"The word graph of {summary.adjectives:,} adjectives, {summary.nouns:,} nouns and {summary.edges:,} edges "
        f"is in {place}."
    )
    return asdict(summary)
