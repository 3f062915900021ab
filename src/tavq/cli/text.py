"""`tavq text`: split and encode the texts of a data set."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators

from tavq import api
from tavq.cli import console
from tavq.cli.console import Count
from tavq.cli.devices import Device
from tavq.core.caption_keys import describe_key
from tavq.core.errors import TavqError
from tavq.core.signals import stop_on_signal

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
    min_count: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 10,
    word_vectors: Path | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    projection: bool | None = None,
    float16: bool = False,
    each_caption: bool | None = None,
    device: Device = None,
    jobs: Count | None = None,
    shard: str | None = None,
    merge: bool = False,
    json: Path | None = None,
) -> None:
    """Split texts into words, phrases and sentences, and encode each distinct unit once.

    A store that already holds these texts by this encoder is kept; work that was stopped is resumed.

    On several machines encode one shard on each (--shard 1/2 and --shard 2/2), then join the shards with --merge.

    Example: tavq text scenes --encoder minilm --stats

    Args:
        folder: A folder data set; its `long_text` is used, or the captions joined where an image has none.
        encoder: `minilm`, a folder with a BERT-family model, a sentence encoder or CLIP's text tower, or a hub name
            (bert-base-uncased).
        splitter: `pattern` (no downloads) or `corpora` (TextBlob's corpora, where they are installed).
        out: The text store; by default FOLDER/text.
        full_text: Also store token-level text: the vector of every token (for LG-VQ, and TA-VQ without
            multi-granularity).
        stats: Print statistics: units per image, vocabulary, repeats, texts left out, and ten samples.
        word_graph: Also store adjectives and nouns with their vectors and which modifies which (for VQCT). A rebuilt
            store keeps the kinds of tables that the old one had.
        min_count: Keep words in the word graph that occur more often than this.
        word_vectors: Take the word graph's vectors from this file (GloVe's text format) instead of the encoder.
        dtype: Precision of the encoder; bfloat16 is several times faster where the processor has it, and changes the
            third digit of the vectors.
        projection: Put CLIP's vectors of phrases, sentences, full texts and the word graph through its text projection,
            as the public code of LG-VQ and VQCT does; by default as in the store that is there, or if the encoder has a
            projection.
        float16: Store vectors as float16, half the size; readers still give float32.
        each_caption: Keep the captions of an image apart: training reads one of them, drawn at random, at each step,
            and evaluation the first. Long texts are not read. By default as in the store that is there, else captions
            are joined.
        jobs: Number of processes that split texts; by default one per processor.
        shard: Encode only shard i of n, given as i/n, into the store OUT-i-of-n.
        merge: Join the shards OUT-1-of-n to OUT-n-of-n into OUT.
        json: Also write the counts to this file.
    """
    with console.bar("Building the text store") as bar, _stop_cleanly():
        store = api.build_text_store(
            folder, encoder=encoder, splitter=splitter, out=out, full_text=full_text, word_graph=word_graph,
            min_count=min_count, word_vectors=word_vectors, dtype=dtype, projection=projection, float16=float16,
            each_caption=each_caption, device=device, jobs=jobs, shard=shard, merge=merge, progress=bar,
        )  # fmt: skip
    if console.is_first_process():
        print_store(store, stats, json)


@contextmanager
def _stop_cleanly() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into one line."""

    def stop() -> None:
        raise KeyboardInterrupt

    try:
        with stop_on_signal(stop):
            yield
    except KeyboardInterrupt:
        raise TavqError("Stopped. Finished work is kept; run the same command to resume.") from None


def print_store(store: "api.TextStore", samples: bool, json: Path | None = None) -> None:
    """Print what a store holds, with `samples` also examples, and write it to the file `json`."""
    found = api.read_statistics(store)
    with console.saved_as_json(json, _as_json(store, found)):
        _print_statistics(store, found, samples)


def _as_json(store: "api.TextStore", found: "api.StoreStatistics") -> dict[str, Any]:
    facts = asdict(found) | {"text_store": str(store.folder)}
    if store.has_word_graph:
        graph = store.word_graph()
        sizes = {"adjectives": len(graph.adjectives), "nouns": len(graph.nouns), "edges": len(graph.edges)}
        facts["word_graph"] = sizes
    return facts


def _print_statistics(store: "api.TextStore", found: "api.StoreStatistics", samples: bool) -> None:
    rows = [
        [
            *(name, level.units, level.distinct, level.fraction_distinct, level.per_image),
            *(*level.quantiles, level.images_without, level.in_one_image),
        ]
        for name, level in found.levels.items()
    ]
    columns = ["granularity", "units", "distinct", "fraction distinct", "per image", "5 %", "median", "95 %"]
    console.print_table("Text store", [*columns, "images without", "seen once"], rows)
    if samples:
        _print_samples(found)
    if found.faults:
        console.print_table(
            "Left out, cut, or read in parts",
            ["reason", "images"],
            [[why, count] for why, count in found.faults.items()],
        )
        for key, reason in store.faults()[:SHOWN]:
            console.say(f"{describe_key(key)}: {reason}")
    apart = f" ({found.texts:,} captions, kept apart; the table counts captions)" if store.each_caption else ""
    console.say(f"The texts of {found.images:,} images{apart} are in {store.folder}.")


def _print_samples(found: "api.StoreStatistics") -> None:
    for name, level in found.levels.items():
        common = ", ".join(f"{_short(unit)} {count:,}" for unit, count in level.common)
        console.show(f"Most frequent {name}: {common or 'each occurs once'}")
    for key, units in found.samples.items():
        name = describe_key(key)
        console.show(f"\n{name!a}" if not name.isprintable() else f"\n{name}")
        for name, texts in units.items():
            console.show(f"  {name}: {' · '.join(map(_short, texts)) or '-'}")
    console.show()


def _short(unit: str) -> str:
    return textwrap.shorten(unit, LONGEST, placeholder=" …")
