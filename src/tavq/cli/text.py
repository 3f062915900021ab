"""`tavq text`: split and encode the texts of a data set."""

import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators

from tavq.cli import console
from tavq.cli.console import Count
from tavq.core.errors import UsageError

SHOWN = 10
"""Images without text that are named; all of them are in the store's faults.jsonl."""

LONGEST = 100
"""Characters of a unit that is shown."""


def text(
    folder: Path,
    /,
    *,
    encoder: str = "minilm",
    splitter: str = "pattern",
    out: Path | None = None,
    full_text: bool = False,
    stats: bool = False,
    word_graph: bool = False,
    fewest: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 10,
    word_vectors: Path | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    float16: bool = False,
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
        full_text: Also store token-level text: the vector of every token (for LG-VQ, and TA-VQ without
            multi-granularity).
        stats: Print what was found: units an image, vocabulary, repeats, what was left out, ten samples to read.
        word_graph: Also keep the adjectives and nouns with their vectors and which modifies which (for codebooks made
            of words). A store that is made anew keeps the kinds of tables that the old one had.
        fewest: With --word-graph, words are kept that were seen more often than this.
        word_vectors: With --word-graph, a file of word vectors (GloVe's text format) in the place of the encoder's.
        dtype: bfloat16 is several times faster where the processor has it; the vectors then differ in the third digit.
        float16: Store vectors as float16, half the size; readers still give float32.
        device: Where to encode; by default a GPU where there is one.
        jobs: Processes that split texts; by default one for each processor.
        shard: Only one part of the images, i/n, into the store OUT-i-of-n.
        merge: Join the parts OUT-1-of-n to OUT-n-of-n, which stand beside each other, into OUT.
        json: Also write the counts to this file.
    """
    from tavq.data.sharding import ALL_IMAGES, Shard

    _check_flags(merge, shard, full_text, word_graph, word_vectors, float16)
    place = out or folder / "text"
    place = place.resolve() if place.is_symlink() else place  # who links the store to another disk wants it there
    part, loaded = Shard.parse(shard), None
    if merge:
        store = _merge(place)
    else:
        place = place.with_name(part.add_suffix(place.name))
        texts = Texts(folder, part)
        next(texts(), None)  # a folder that is missing or empty is told before a model is loaded
        loaded = _load(encoder, dtype, device)
        store, word_graph = _encode(texts, loaded, splitter, place, full_text, float16, word_graph, jobs)
        texts.tell_faults()
    facts = tell(store, stats)
    if word_graph:
        loaded = loaded or _load(encoder, dtype, device)
        _check_maker(store, loaded)
        facts["word_graph"] = _build_word_graph(Texts(folder, ALL_IMAGES), loaded, store.folder, fewest, word_vectors)
    console.write_json(json, facts)


def _check_flags(
    merge: bool, shard: str | None, full_text: bool, word_graph: bool, word_vectors: Path | None, float16: bool
) -> None:
    """Refuses flags that would be passed over."""
    if merge and (shard or full_text or float16):
        raise UsageError("--merge joins parts as they were made; leave out --shard, --full-text and --float16.")
    if shard and word_graph:
        raise UsageError("A word graph is made of all texts; give --word-graph with --merge.")
    if word_vectors is not None and not word_graph:
        raise UsageError("--word-vectors goes with --word-graph.")
    if word_vectors is not None and not word_vectors.is_file():
        raise UsageError(f"There is no file {word_vectors}; give word vectors in GloVe's text format.")


class Texts:
    """The key and the text of each image of a data set, or of a part of it; each call reads from the start."""

    def __init__(self, folder: Path, shard: Any) -> None:
        self.folder, self.shard = folder, shard
        self.faults: Any = None

    def __call__(self) -> Iterator[tuple[str, str]]:
        from tavq.data.folder import iter_texts
        from tavq.data.records import Faults

        self.faults = Faults()
        return ((name, text) for name, text in iter_texts(self.folder, self.faults) if name in self.shard)

    def tell_faults(self) -> None:
        """Names the first faults that the last reading found in the data set."""
        for fault in self.faults.first[: console.SHOWN_FAULTS]:
            console.say(f"Skipped {fault}")
        if self.faults.count > console.SHOWN_FAULTS:
            console.say(f"... and {self.faults.count - console.SHOWN_FAULTS:,} more; see them with: tavq data check")


def _load(name: str, dtype: str, device: str | None) -> Any:
    import torch

    from tavq.core.devices import select_device
    from tavq.text.encoders import load_encoder

    return load_encoder(name, select_device(device), getattr(torch, dtype))


def _encode(
    texts: Texts,
    encoder: Any,
    splitter: str,
    place: Path,
    full_text: bool,
    float16: bool,
    word_graph: bool,
    jobs: int | None,
) -> tuple[Any, bool]:
    """The store, made or kept, and whether it is to have a word graph."""
    from tavq.text.building import build_store, working_folder

    before, why = _store_at(place)
    if before is not None and before.matches(texts(), encoder, splitter, full_text):
        console.say(f"The text store {place} holds these texts; it is kept.")
        return before, word_graph
    if before is not None:  # what the old one held beside the units, the new one holds too
        full_text, word_graph = full_text or before.manifest.full_text, word_graph or before.has_word_graph
        maker = before.manifest.encoder
        other = maker != encoder.record
        why = f"it was made by the encoder {maker.name} in {maker.precision}" if other else "the texts are others now"
    if why:
        console.say(f"The text store {place} is made anew: {why}.")
    if working_folder(place).exists():
        console.say(f"Going on with what was begun in {working_folder(place)}.")
    jobs, part = jobs or os.cpu_count() or 1, texts.shard.of > 1
    with _stoppable():
        made = build_store(texts(), encoder, splitter, place, full_text, float16, jobs, console.bar, empty=part)
    return made, word_graph


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ends with one line at Ctrl-C and SIGTERM."""
    from tavq.core.errors import TavqError
    from tavq.core.signals import stop_on_signal

    def stop() -> None:
        raise KeyboardInterrupt

    try:
        with stop_on_signal(stop):
            yield
    except KeyboardInterrupt:
        raise TavqError("Stopped. Nothing that was marked is lost; the same command goes on.") from None


def _merge(out: Path) -> Any:
    from tavq.text.merging import find_shards, merge_stores

    parts = find_shards(out)
    console.say(f"Merging {len(parts)} parts.")
    with _stoppable():
        return merge_stores(parts, out)


def _check_maker(store: Any, encoder: Any) -> None:
    if store.manifest.encoder != encoder.record:
        maker = store.manifest.encoder
        raise UsageError(
            f"The text store {store.folder} was made by the encoder {maker.name!r} in {maker.precision}; its word "
            f"graph needs the same: --encoder {maker.name} --dtype {maker.precision}"
        )


def _store_at(place: Path) -> tuple[Any, str]:
    """The store at a place, else None and why what is there is none."""
    from tavq.core.errors import FileError
    from tavq.text.store import MANIFEST, TextStore

    try:
        return TextStore.open(place, verify=True), ""
    except FileError as error:  # none there, or a damaged one, in whose place a new one is made
        return None, str(error).rstrip(".") if (place / MANIFEST).exists() else ""


def tell(store: Any, whole: bool) -> dict[str, Any]:
    """Prints what a store holds, with `whole` all that is known, and gives it for JSON."""
    from tavq.text.statistics import read_statistics

    found = read_statistics(store)
    rows = [
        [name, level.units, level.distinct, level.share, level.a_image, *level.quantiles, level.without, level.once]
        for name, level in found.levels.items()
    ]
    columns = ["granularity", "units", "distinct", "share distinct", "an image", "5 %", "median", "95 %"]
    console.table("Text store", [*columns, "images without", "met once"], rows)
    if whole:
        _tell_samples(found)
    if found.faults:
        console.table("Left out", ["reason", "images"], [[why, count] for why, count in found.faults.items()])
        for key, reason in store.faults()[:SHOWN]:
            console.say(f"{key}: {reason}")
    console.say(f"Images whose text is in {store.folder}: {found.images:,}.")
    return asdict(found) | {"text_store": str(store.folder)}


def _tell_samples(found: Any) -> None:
    for name, level in found.levels.items():
        common = ", ".join(f"{_short(unit)} {count:,}" for unit, count in level.common)
        print(f"Most frequent {name}: {common or 'each is met once'}")
    for key, units in found.samples.items():
        print(f"\n{key!a}" if not key.isprintable() else f"\n{key}")
        for name, texts in units.items():
            print(f"  {name}: {' · '.join(map(_short, texts)) or '-'}")
    print()


def _short(unit: str) -> str:
    return textwrap.shorten(unit, LONGEST, placeholder=" …")


def _build_word_graph(texts: Texts, encoder: Any, place: Path, fewest: int, vectors: Path | None) -> dict[str, Any]:
    from tavq.text.word_graph import build_word_graph

    summary = build_word_graph((text for _, text in texts()), encoder, place, fewest, vectors)
    console.say(
        f"The word graph of {summary.adjectives:,} adjectives, {summary.nouns:,} nouns and {summary.edges:,} edges "
        f"is in {place}."
    )
    return asdict(summary)
