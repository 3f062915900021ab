"""Splitting, encoding and reading long text as `tavq text` does, compared with the simple way; and peak memory."""

import itertools
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import compare, report

from tavq.core.files import read_json, write_json
from tavq.interfaces import GRANULARITIES
from tavq.text.building import build_store
from tavq.text.encoders import TextEncoder, load_encoder
from tavq.text.granularity import split
from tavq.text.tagging import load_tagger

WORDS_LONG, WORDS_SHORT = 198, 60
CAPTIONS = 8
BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}


# --- generated texts --------------------------------------------------------------------------------------------


def vocabulary() -> tuple[list[str], list[str]]:
    """3,000 adjectives and 6,000 nouns of the tagger's lexicon."""
    lexicon = load_tagger().lexicon
    found: dict[str, list[str]] = {"JJ": [], "NN": []}
    for word, tag in sorted(lexicon.items()):
        if tag in found and word.isascii() and word.isalpha() and word.islower() and len(word) > 3:
            found[tag].append(word)
    draw = random.Random(0)
    return draw.sample(found["JJ"], 3000), draw.sample(found["NN"], 6000)


def captions(count: int, words: int, seed: int = 0) -> Iterator[str]:
    """Texts of about `words` words that hardly repeat a sentence or phrase: the worst case for a store."""
    adjectives, nouns = vocabulary()
    draw = random.Random(seed)
    for _ in range(count):
        sentences = (
            f"The {draw.choice(adjectives)} {draw.choice(nouns)} stands near a {draw.choice(adjectives)} "
            f"{draw.choice(nouns)} with {draw.choice(nouns)}."
            for _ in range(words // 11)
        )
        yield " ".join(sentences)


# --- speed ------------------------------------------------------------------------------------------------------


def bert_base(dtype: torch.dtype) -> TextEncoder:
    """An encoder of BERT-base's size with random weights and MiniLM's tokenizer, which is BERT's."""
    from transformers import BertConfig, BertModel

    small = load_encoder("minilm")
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=30522, **BERT_BASE)).eval().to(dtype)
    return TextEncoder(model, small.tokenizer, "bert-base-sized", "0" * 64)


def encoding(rounds: int) -> dict[str, Any]:
    """Encode the units of 8 captions of 198 words: one at a time, and as a store does."""
    texts = list(captions(CAPTIONS, WORDS_LONG))
    units = [unit for text in texts for name in GRANULARITIES[1:] for unit in split(text)[name]]
    distinct = list(dict.fromkeys(units))
    plain, rounded = bert_base(torch.float32), bert_base(torch.bfloat16)

    def one_at_a_time() -> None:
        for unit in units:
            plain.encode_units([unit])

    rows = compare(
        {
            "one unit at a time": one_at_a_time,
            "distinct units by length, float32": lambda: plain.encode_units(distinct),
            "distinct units by length, bfloat16": lambda: rounded.encode_units(distinct),
        },
        rounds,
    )
    cosine = torch.cosine_similarity(plain.encode_units(distinct), rounded.encode_units(distinct)).min().item()
    rows["one unit at a time"]["note"] = f"{len(units)} units, {len(distinct)} distinct"
    rows["distinct units by length, bfloat16"]["note"] = f"smallest cosine to float32 {cosine:.5f}"
    return rows


def splitting(rounds: int) -> dict[str, Any]:
    """Split captions of 60 words on one core."""
    texts = list(captions(2000, WORDS_SHORT))
    words = sum(len(text.split()) for text in texts) / len(texts)

    def pattern() -> None:
        for text in texts:
            split(text)

    rows = compare({"2,000 captions": pattern}, rounds)
    rate = 2000 / rows["2,000 captions"]["milliseconds"] * 1000
    rows["2,000 captions"]["note"] = f"{rate:,.0f} per second, {words:.0f} words each"
    return rows


def reading(rounds: int) -> dict[str, Any]:
    """Read the vectors of 20,000 images from a store, in random order."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = ((f"images/{n:08d}.jpg", text) for n, text in enumerate(captions(20_000, WORDS_SHORT)))
        store = build_store(pairs, ByteCounts(384), "pattern", Path(folder) / "text")
        keys = list(store.keys)
        random.Random(0).shuffle(keys)

        def read() -> None:
            for key in keys:
                store.vectors(key)

        rows = compare({"20,000 images": read}, rounds)
    rows["20,000 images"]["note"] = f"{20_000 / rows['20,000 images']['milliseconds'] * 1000:,.0f} images per second"
    return rows


# --- memory -----------------------------------------------------------------------------------------------------


class ByteCounts(TextEncoder):
    """Vectors from the letters of a text, without a model, whose memory does not depend on the number of texts."""

    def __init__(self, width: int) -> None:
        self.name, self.width, self.sha256, self.precision = "numbers", width, "0" * 64, "float32"

    def encode_units(self, texts: Sequence[str]) -> torch.Tensor:
        """Counts of bytes modulo the width."""
        rows = np.zeros((len(texts), self.width), np.float32)
        for row, text in zip(rows, texts, strict=True):
            letters = np.frombuffer(text.encode(), np.uint8).astype(np.int64) % self.width
            np.add.at(row, letters, 1)
        return torch.from_numpy(rows)

    encode_words = encode_units


def own_memory() -> int:
    """Bytes of this process's own memory, without pages of mapped files, which the system can reclaim."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon")


def build_generated(count: int, jobs: int, out: Path) -> None:
    """Build a store of generated captions and write its peak memory and the memory before it."""
    list(captions(1, WORDS_SHORT))
    split("A red car.")
    before, most, ended = own_memory(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.05):
            most = max(most, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        pairs = ((f"images/{n:08d}.jpg", text) for n, text in enumerate(captions(count, WORDS_SHORT)))
        store = build_store(pairs, ByteCounts(8), "pattern", Path(folder) / "text", jobs=jobs)
        contents = {"units": dict(store.manifest.units), "bytes": store.manifest.bytes}
    ended.set()
    watcher.join()
    took = time.perf_counter() - start
    write_json(out, {"captions": count, "begun_with": before, "most": most, "seconds": took, **contents})


def memory(sizes: Sequence[int], jobs: int) -> dict[str, Any]:
    """The peak memory of building stores of these sizes, each in a process of its own; ratios are to the first."""
    rows: dict[str, Any] = {}
    first = None
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "memory.json"
            subprocess.run([sys.executable, __file__, "generated", str(size), str(jobs), str(out)], check=True)
            found = read_json(out)
        first = first or found["most"]
        ratio = first / found["most"]
        units = ", ".join(f"{count:,} {name}" for name, count in found["units"].items())
        rows[f"{size:,} captions"] = {
            "milliseconds": found["seconds"] * 1000,
            "ratio": ratio,
            "ratio_least": ratio,
            "ratio_greatest": ratio,
            "megabytes": found["most"] / 1e6,
            "note": f"{found['most'] / 1e6:,.0f} MB peak, {found['begun_with'] / 1e6:,.0f} before; {units}",
        }
    return rows


def measure(rounds: int, largest: int = 100_000, jobs: int = 2) -> dict[str, dict[str, Any]]:
    """All cases; `largest` is the largest number of captions whose memory is measured."""
    sizes = list(itertools.takewhile(lambda size: size <= largest, (10_000 * 10**n for n in itertools.count())))
    return {
        "8 captions of 198 words, BERT-base's size": encoding(rounds),
        "splitting captions of 60 words": splitting(rounds),
        "reading": reading(rounds),
        "memory of building (times less than the first; not of CPU time)": memory(sizes, jobs),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["generated"]:
        build_generated(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        report("text", measure, largest=100_000, jobs=2)
