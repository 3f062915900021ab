"""A codebook made of words, from the captions to the page that names each code's word."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tavq.tokenizer import Tokenizer

Tavq = Callable[..., Any]

SMALL = "--model.net.channels 8 --model.net.multipliers [1,1,2] --model.codebook.width 4 --model.codebook.dropout 0.5"
SMALL += " --data.size 32 --train.steps 3 --train.batch 4 --train.warmup 1 --train.adversarial.start 2"
SMALL += " --train.adversarial.discriminator.channels 8 --train.checkpoint_every 2"


def test_from_captions_to_a_page_that_names_words(tavq: Tavq, home: Path, tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(home / "data", data)
    command = ("train", "vqct-tiny", "--data", data, "--out", run, *SMALL.split())
    shutil.copytree(data / "text", tmp_path / "mine")  # one that is named is not extended, as DATA/text is
    refused = tavq(*command, "--text", tmp_path / "mine")
    assert refused.code == 2
    assert "has no word graph; build it with: tavq text DIR --word-graph" in refused.err

    before = (data / "text/store.safetensors").stat().st_mtime_ns
    made = tavq("text", data, "--word-graph", "--min-count", 3, "--json", tmp_path / "words.json")
    assert made.code == 0, made.err
    assert (data / "text/store.safetensors").stat().st_mtime_ns == before
    counts = json.loads((tmp_path / "words.json").read_text())["word_graph"]
    assert counts["adjectives"] >= 4
    assert f"{counts['adjectives']} adjectives, {counts['nouns']} nouns and {counts['edges']} edges" in made.err

    assert tavq(*command).code == 0
    tokenizer = Tokenizer.from_pretrained(run)
    words = json.loads((data / "text/wordgraph.json").read_text())
    assert tokenizer.codebook.words == (*words["adjectives"], *words["nouns"])  # type: ignore[union-attr]
    assert tokenizer.codebook.sizes == (counts["adjectives"], counts["nouns"])

    weights = (run / "model/model.safetensors").read_bytes()
    shutil.rmtree(run / "checkpoints/00000003")
    assert tavq(*command, "--resume").code == 0
    assert (run / "model/model.safetensors").read_bytes() == weights

    page = tavq("report", run, "--data", data)
    assert page.code == 0, page.err
    page = (run / "report.html").read_text()
    assert any(f"· {word}</h3>" in page for word in tokenizer.codebook.words)  # type: ignore[union-attr]
    assert "one that its entry was made of" in page


def test_a_missing_store_is_built_with_its_word_graph(tavq: Tavq, home: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(home / "data", data, ignore=shutil.ignore_patterns("text"))
    done = tavq("train", "vqct-tiny", "--data", data, "--out", tmp_path / "run", *SMALL.split())
    assert done.code == 0, done.err
    assert f"building it as with: tavq text {data} --word-graph" in done.err
    assert (data / "text/wordgraph.json").is_file()


def test_a_rebuilt_store_keeps_the_tables_of_the_old_one(tavq: Tavq, home: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(home / "data", data)

    def kinds() -> tuple[bool, bool]:
        manifest = json.loads((data / "text/manifest.json").read_text())
        return manifest["full_text"], (data / "text/wordgraph.json").is_file()

    graph = ("--word-graph", "--min-count", 1)
    assert tavq("text", data, "--full-text", *graph).code == 0
    assert kinds() == (True, True)
    for flags in (graph, ("--full-text", "--min-count", 1), ("--min-count", 1)):
        assert tavq("text", data, *flags).code == 0
        assert kinds() == (True, True), flags


def test_tokens_of_another_model_are_reported_or_refused(tavq: Tavq, home: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.safetensors"
    assert tavq("encode", home / "plain", home / "data", "--out", tokens).code == 0
    assert "another model" not in tavq("decode", home / "plain", tokens, "--out", tmp_path / "own").err
    other = tavq("decode", home / "aligned", tokens, "--out", tmp_path / "other")
    assert other.code == 0
    assert "was made by another model than" in other.err
    larger = tmp_path / "larger"
    settings = (*SMALL.split(), "--model.codebook.entries", 24)
    wanted = [part for part in settings if "dropout" not in str(part)]
    wanted.remove("0.5")
    assert tavq("train", "vqgan-tiny", "--data", home / "data", "--out", larger, *wanted).code == 0
    refused = tavq("decode", larger, tokens, "--out", tmp_path / "refused")
    assert refused.code == 2
    assert "was made by a model with 16 codebook entries" in refused.err
