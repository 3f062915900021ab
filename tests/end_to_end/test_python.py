"""`import tavq`: each command has a function that does the same and returns the result."""

import ast
import inspect
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tavq as package
from tavq import api
from tavq.cli import COMMANDS, app
from tavq.core.errors import UsageError

Tavq = Callable[..., Any]

FUNCTIONS = {
    "data scenes": "make_scenes",
    "data check": "check_dataset",
    "data import": "import_dataset",
    "data export": "export_dataset",
    "describe": "describe_images",
    "text": "build_text_store",
    "train": "train",
    "evaluate": "evaluate",
    "encode": "encode_folder",
    "decode": "decode_tokens",
    "import-checkpoint": "import_checkpoint",
    "leaderboard": "leaderboard",
    "export": "export_model",
    "push": "push_model",
    "task train": "train_task",
    "task evaluate": "evaluate_task",
    "generate": "generate",
    "complete": "complete",
    "caption": "caption",
    "ask": "ask",
    "ground": "ground",
    "fill": "fill",
    "search": "search_index",
    "search index": "build_index",
    "metrics images": "score_images",
    "metrics captions": "score_captions",
    "metrics vqa": "score_answers",
    "metrics grounding": "score_boxes",
    "metrics convert": "convert_weights",
    "recipes": "list_recipes",
    "report": "write_report",
    "compare": "compare",
    "study": "run_study",
    "explore": "open_explorer",
}
"""The function of each command."""

COMMANDS_ALONE = {"demo", "doctor", "bench"}
"""Commands about this machine or the embedded data set, which programs have no use for."""


def imports_for_type_checkers(module: Any) -> dict[str, str]:
    """The names that a package imports under TYPE_CHECKING, with their modules."""
    found = {}
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for line in node.body:
                assert isinstance(line, ast.ImportFrom)
                found |= {alias.asname: str(line.module) for alias in line.names}
    return found


@pytest.mark.parametrize("module", [package, api], ids=lambda module: module.__name__)
def test_type_checkers_see_the_names_that_are_imported_on_first_use(module: Any) -> None:
    assert imports_for_type_checkers(module) == module._HOMES
    for name in module._HOMES:
        assert getattr(module, name) is not None


def test_every_command_has_a_function() -> None:
    assert {path.split()[0] for path in FUNCTIONS} == set(COMMANDS) - COMMANDS_ALONE
    for name in FUNCTIONS.values():
        assert name in package.__all__
        parts = (getattr(package, name).__doc__ or "").split("\n\n")
        assert parts[0].endswith("."), name


@pytest.mark.parametrize("path", FUNCTIONS)
def test_a_function_has_the_defaults_of_its_command(path: str) -> None:
    command = app
    for word in path.split():
        command = command[word]
    assert command.default_command is not None
    flags = inspect.signature(command.default_command).parameters
    arguments = inspect.signature(getattr(package, FUNCTIONS[path])).parameters
    optional = [name for name, flag in flags.items() if flag.default not in (inspect.Parameter.empty, ())]
    for name in set(optional) & arguments.keys():
        assert str(flags[name].default) == str(arguments[name].default), name


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS.values()) - {"list_recipes", "check_dataset"}))
def test_a_function_documents_its_arguments_and_result(name: str) -> None:
    function = getattr(package, name)
    text = function.__doc__
    assert "Returns:" in text
    assert "Raises:" in text
    for argument in function.__annotations__:
        assert argument == "return" or f"        {argument}: " in text, f"{name}: {argument}"


def test_types_are_shipped() -> None:
    assert Path(package.__file__).with_name("py.typed").is_file()


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("tavq", {"torch", "numpy", "pydantic"}),
        ("tavq.api.tokenizers", {"torch.distributed.checkpoint", "torch.distributed.tensor", "sympy", "triton"}),
    ],
)
def test_importing_loads_nothing_heavy_that_is_not_used(module: str, heavy: set[str]) -> None:
    script = f"import sys, {module}; print(*sorted(sys.modules))"
    source = str(Path(package.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": source}, capture_output=True, text=True)
    assert "tavq.core.version" in done.stdout, done.stderr
    assert not set(done.stdout.split()) & heavy


def test_data(tavq: Tavq, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    folder = package.make_scenes(
        str(tmp_path / "scenes"),
        images=3,
        size=32,
        seed=4,
        progress=lambda done, total, note: steps.append((done, total)),
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert tavq("data", "scenes", tmp_path / "same", "--images", 3, "--size", 32, "--seed", 4).code == 0
    assert (folder / "metadata.jsonl").read_bytes() == (tmp_path / "same/metadata.jsonl").read_bytes()
    assert package.check_dataset(folder) == []
    summary = package.export_dataset(folder, tmp_path / "shards", to="webdataset")
    assert sum(summary.images.values()) == 3
    again = package.import_dataset("webdataset", tmp_path / "shards", tmp_path / "again")
    assert again.images == summary.images


def test_a_tokenizer(tavq: Tavq, home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = package.evaluate(str(home / "plain"), data=str(home / "data"), features=())
    assert (
        tavq("evaluate", home / "plain", "--data", home / "data", "--empty-features", "--json", tmp_path / "a").code
        == 0
    )
    assert result["psnr"].value == json.loads((tmp_path / "a").read_text())["metrics"]["psnr"]["value"]
    tokens = package.encode_folder(home / "plain", home / "data", out=tmp_path / "python")
    assert tavq("encode", home / "plain", home / "data", "--out", tmp_path / "command").code == 0
    for file in ("python", "command"):
        found = package.Tokens.load(tmp_path / file)
        assert torch.equal(found.indices, tokens.indices)
        assert (found.keys, found.entries, found.model) == (tokens.keys, tokens.entries, tokens.model)
    files = package.decode_tokens(home / "plain", tokens, out=tmp_path / "images")
    assert [path.relative_to(tmp_path / "images").with_suffix("").as_posix() for path in files] == [
        Path(key).with_suffix("").as_posix() for key in tokens.keys
    ]
    assert all(path.is_file() for path in files)
    assert package.write_report(home / "plain") == home / "plain/report.html"
    page = package.compare([home / "plain", home / "aligned"], out=tmp_path / "both.html")
    assert page.is_file()
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", ""), "functions print nothing"


def test_training_gives_what_the_command_gives(
    tavq: Tavq, home: Path, small: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = api.parse_overrides(small)
    notes: list[str] = []
    data = tmp_path / "data"
    shutil.copytree(home / "data", data, ignore=shutil.ignore_patterns("text"))
    with caplog.at_level(logging.INFO, "tavq"):
        run = package.train(
            "ta-vqgan-tiny",
            data=data,
            out=tmp_path / "run",
            settings=settings | {"model.align.iterations": 5},
            progress=lambda done, total, note: notes.append(note),
        )
    assert [note for note in notes if not note.startswith("loss 0.")] == []
    assert len(notes) == 3
    assert "has no text store yet" in caplog.text
    expected = home / "aligned/model/model.safetensors"
    assert (run / "model/model.safetensors").read_bytes() == expected.read_bytes()


def test_tasks(home: Path, tmp_path: Path) -> None:
    tiny = {"task.width": 32, "task.layers": 1, "train.steps": 2, "train.batch": 4}
    prior = package.train_task(
        "unconditional-tiny", tokenizer=home / "plain", data=home / "data", out=tmp_path / "prior", settings=tiny
    )
    model = package.load_task(prior)
    images = package.generate(model, count=2, seed=3).images
    again = package.generate(prior, count=2, seed=3, out=tmp_path / "generated")
    assert torch.equal(images, again.images)
    assert sorted(path.name for path in (tmp_path / "generated").iterdir()) == ["1.png", "2.png", "grid.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "generated/grid.png")), again.grid())
    file = home / "data/images/1.png"
    completed = package.complete(model, file, mask="bottom", count=2, seed=1)
    same = package.complete(model, Image.open(file), mask="bottom", count=2, seed=1)
    assert torch.equal(completed.images, same.images)
    assert torch.equal(completed.images[:, :, :16], completed.original[:, :16].expand(2, -1, -1, -1))
    result = package.evaluate_task(prior, data=home / "data", features=(), limit=2)
    assert result.details["split"] == "test"
    with pytest.raises(
        UsageError, match=r"This is a model of the task 'prior', which is used by: complete or generate"
    ):
        package.ask(model, file, "what is it")


def test_a_typed_caption_with_a_gap(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny = {"task.width": 32, "task.layers": 1, "train.steps": 2, "train.batch": 4}
    run = package.train_task(
        "masked-words-tiny", tokenizer=home / "plain", data=home / "data", out=tmp_path / "words", settings=tiny
    )
    model, image = package.load_task(run), home / "data/images/1.png"
    [words] = package.fill(model, image, "A ___ zzyzx square.", count=2)
    assert len(words) == 2
    assert words[0].probability >= words[1].probability
    assert "zzyzx" in caplog.text
    assert [words] == package.fill(run, Image.open(image), "A ___ zzyzx square.", count=2)


def test_search(home: Path, tmp_path: Path) -> None:
    index = package.build_index(home / "aligned", data=home / "data", out=tmp_path / "index")
    assert index.manifest.images == 16
    found = package.search_index(tmp_path / "index", image=home / "data/images/3.png", count=3)
    assert found.images[0].file_name == "images/3.png"
    assert len(found.texts) == 3
    by_text = package.search_index(tmp_path / "index", text="a red barn", count=2)
    assert len(by_text.images) == 2
    assert not by_text.texts
