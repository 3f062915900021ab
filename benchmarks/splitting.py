"""The splitter `pattern` compared with TextBlob and its corpora (`corpora`) on long captions: units, overlap, time.

FOLDER holds the annotations of ImageInWords as `iiw_*.jsonl` and captions of three vision-language models as
`pope_vlm_captions_*.jsonl`; NLTK_DATA must point to what `python -m textblob.download_corpora` fetches.

Run: OMP_NUM_THREADS=1 python benchmarks/splitting.py FOLDER [--texts 300] [--json splitting.json]
"""

import argparse
import json
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from timing import seconds

from tavq.core.files import write_json
from tavq.text.granularity import Units, split

GRANULARITIES = ("words", "phrases", "sentences")
KINDS = {
    "people (IIW, DCI, DOCCI)": (("iiw_*.jsonl", "IIW"), ("iiw_DOCCI_*.jsonl", "DOCCI")),
    "PaLI-5B after IIW": (("iiw_*.jsonl", "IIW-P5B"),),
    "LLaVA": (("pope_vlm_*.jsonl", "llava"),),
    "MiniGPT-4": (("pope_vlm_*.jsonl", "minigpt-4"),),
    "mPLUG-Owl": (("pope_vlm_*.jsonl", "mplug"),),
}
BLOCK = 20
"""Texts that a splitter takes before the other's turn, so that a busy machine slows both equally."""


def read(folder: Path, sources: tuple[tuple[str, str], ...], count: int) -> list[str]:
    """A sample of `count` texts of one kind, with a fixed seed."""
    texts = [
        text
        for pattern, field in sources
        for path in sorted(folder.glob(pattern))
        for line in path.read_text("utf-8").splitlines()
        if (text := json.loads(line).get(field))
    ]
    return random.Random(0).sample(texts, min(count, len(texts)))


def ends(units: Units) -> Iterator[int]:
    """The number of characters, without white space, up to the end of each sentence."""
    end = 0
    for sentence in units.sentences:
        end += len("".join(sentence.split()))
        yield end


def comparable(units: Units, granularity: str) -> set[Any]:
    """Units in a form that two splitters share: they treat clitics and final dots differently."""
    if granularity == "sentences":
        return {*ends(units)}
    return {unit.replace(" 's", "'s").replace(" ’s", "’s").rstrip(".") for unit in units[granularity]}


def compare(texts: list[str]) -> dict[str, Any]:
    """Mean units per text of both splitters, the overlap of `pattern` with `corpora`, and milliseconds per text."""
    found: dict[str, list[Units]] = {"pattern": [], "corpora": []}
    spent = dict.fromkeys(found, 0.0)
    for start in range(0, len(texts), BLOCK):
        for name, units in found.items():
            block = texts[start : start + BLOCK]
            spent[name] += seconds(
                lambda name=name, units=units, block=block: units.extend(split(t, name) for t in block)
            )
    words = sum(len(text.split()) for text in texts)
    row: dict[str, Any] = {"texts": len(texts), "tokens": words / len(texts)}
    for granularity in GRANULARITIES:
        ours = [comparable(units, granularity) for units in found["pattern"]]
        theirs = [comparable(units, granularity) for units in found["corpora"]]
        common = sum(len(a & b) for a, b in zip(ours, theirs, strict=True))
        own, other = sum(map(len, ours)), sum(map(len, theirs))
        row[granularity] = {
            "pattern": own / len(texts),
            "corpora": other / len(texts),
            "precision": common / own,
            "recall": common / other,
        }
    return row | {f"{name}_ms": 1000 * spent[name] / len(texts) for name in spent}


def table(cases: dict[str, dict[str, Any]]) -> Table:
    view = Table("text", "", "pattern", "corpora", "precision", "recall", title="Units per text", title_justify="left")
    for kind, row in cases.items():
        for granularity in GRANULARITIES:
            cells = row[granularity]
            label = f"{kind}, {row['tokens']:.0f} words" if granularity == "words" else ""
            counts = [f"{cells[name]:.1f}" for name in ("pattern", "corpora")]
            overlap = [f"{100 * cells[name]:.1f} %" for name in ("precision", "recall")]
            view.add_row(label, granularity, *counts, *overlap)
        view.add_row("", "CPU ms", *(f"{row[f'{name}_ms']:.2f}" for name in ("pattern", "corpora")), end_section=True)
    return view


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--texts", type=int, default=300, help="texts of each kind (default 300)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ResourceWarning)  # NLTK's corpus readers
    for name in ("pattern", "corpora"):
        split("A red car.", name)  # the first text loads the splitter's models
    cases = {}
    for kind, sources in KINDS.items():
        cases[kind] = compare(read(options.folder, sources, options.texts))
    Console().print(table(cases))
    if options.json:
        write_json(options.json, {"texts": options.texts, "cases": cases})


if __name__ == "__main__":
    main()
