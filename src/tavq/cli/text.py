"""`tavq text`: split and encode the texts of a data set."""

from dataclasses import asdict
from pathlib import Path

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
        json: Also write the counts to this file.
    """
    from tavq.data.folder import FolderDataset
    from tavq.text.encoders import load_encoder
    from tavq.text.store import build_store

    dataset = FolderDataset(folder)
    console.tell_faults(dataset.faults)
    texts = {record.file_name: record.text or "" for record in dataset.records}
    with console.bar("Encoding text", len(texts)) as bar:
        summary = build_store(texts, load_encoder(encoder), splitter, out or folder / "text", whole, progress=bar)
    rows = [
        [name, count, summary.distinct[name], summary.share(name), count / max(summary.pictures, 1)]
        for name, count in summary.units.items()
    ]
    console.table("Text store", ["granularity", "units", "distinct", "share distinct", "a picture"], rows)
    for key, reason in summary.dropped[:SHOWN]:
        console.say(f"No text for {key}: {reason}")
    console.write_json(json, asdict(summary))
    console.say(
        f"The text of {summary.pictures:,} pictures is in {out or folder / 'text'}; {len(summary.dropped):,} have none."
    )
