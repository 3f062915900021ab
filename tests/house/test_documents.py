"""What the pages say is so: commands parse, names exist, links lead somewhere."""

import ast
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cyclopts import App

import tavq
from tavq.cli import app

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> Iterator[str]:
    for found, block in FENCE.findall(page.read_text()):
        if found == language:
            yield block


def shell_lines(page: Path) -> Iterator[str]:
    for language in ("console", "bash", "sh"):
        for block in blocks(page, language):
            for line in block.replace("\\\n", " ").splitlines():
                yield line.removeprefix("$ ").strip()


def mentions(page: Path) -> Iterator[str]:
    """`tavq …` in running text."""
    text = FENCE.sub("", page.read_text())
    yield from re.findall(r"`(tavq [^`]+)`", text)


def check_words(command: str) -> None:
    """The command exists and so do its flags; the rest may be placeholders."""
    words = re.sub(r"[\[\]()]", "", command).split()[1:]
    part: App = app
    while words and not words[0].startswith("-") and any(name in set(part) for name in words[0].split("|")):
        for name in words[0].split("|"):
            assert name in set(part), f"{command!r}: there is no command {name!r}"
        part = part[words[0].split("|")[0]]
        words = words[1:]
    if part.default_command is None:
        assert words == [], f"{command!r}: there is no command {words[0]!r}"
        return
    known = {name for argument in part.assemble_argument_collection() for name in argument.names}
    for word in words:
        flag = word.split("=")[0]
        if flag.startswith("--") and "." not in flag and flag not in ("--help", "--version"):
            assert flag in known, f"{command!r}: there is no {flag}; known: {known}"


def test_commands_on_the_pages_parse(documents: list[Path]) -> None:
    parsed = 0
    for page in documents:
        for line in shell_lines(page):
            if line.startswith("tavq "):
                app.parse_args(shlex.split(line, comments=True)[1:], exit_on_error=False, print_error=False)
                parsed += 1
    assert parsed >= 8


def test_commands_in_running_text_exist(documents: list[Path]) -> None:
    found = [(page.name, command) for page in documents for command in mentions(page)]
    assert len(found) >= 10
    for _, command in found:
        check_words(command)


def test_tables_have_headings(documents: list[Path]) -> None:
    """Rows after an empty line belong to no table, and are shown as text."""
    tables = [table for page in documents for table in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE)]
    assert len(tables) >= 20
    assert [table for table in tables if not re.match(r".*\n\|(\s*:?-+:?\s*\|)+\n", table)] == []


@pytest.mark.parametrize("command", ["tavq trian RUN", "tavq train RECIPE --dat DIR", "tavq data chek DIR"])
def test_a_wrong_command_would_be_seen(command: str) -> None:
    with pytest.raises(AssertionError):
        check_words(command)


def test_recipes_on_the_pages_exist(documents: list[Path]) -> None:
    from tavq import recipes

    for page in documents:
        for line in shell_lines(page):
            words = shlex.split(line, comments=True)
            if words[:2] == ["tavq", "train"] and not words[2].endswith(".yaml"):
                assert words[2] in [*recipes.names(), *recipes.names(recipes.FINETUNING)], line


def test_settings_on_the_pages_exist(documents: list[Path]) -> None:
    from tavq import recipes
    from tavq.core.config import parse_overrides

    for page in documents:
        written = re.findall(r"`(--(?:model|data|train)\.[\w.]+ [^`]+)`", page.read_text())
        for line in [*written, *shell_lines(page)]:
            words = shlex.split(line, comments=True)
            flags = [word for word in words if re.match(r"--(?:model|data|train)\.", word)]
            pairs = [part for flag in flags for part in (flag, words[words.index(flag) + 1])]
            load: Any = recipes.load_task if "task" in words else recipes.load
            load("unconditional-tiny" if "task" in words else "ta-vqgan-tiny", parse_overrides(pairs))


def test_python_on_the_pages_names_what_there_is(documents: list[Path]) -> None:
    found = 0
    for page in documents:
        for block in blocks(page, "python"):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and node.module == "tavq":
                    for alias in node.names:
                        assert alias.name in tavq.__all__, f"{page.name}: {alias.name}"
                        found += 1
    assert found >= 1


TINY = {
    "model.net.channels": 8, "model.net.multipliers": [1, 1, 2], "model.codebook.entries": 16,
    "model.codebook.width": 8, "model.align.iterations": 5, "data.size": 32, "train.steps": 3, "train.batch": 4,
    "train.adversarial.start": 2, "train.adversarial.discriminator.channels": 8,
}  # fmt: skip
"""Settings that make the README's tokenizer train in seconds; in place of its own."""

TINY_TASKS: dict[str, dict[str, Any]] = {
    "unconditional-tiny": {"task.width": 32, "task.layers": 1, "train.steps": 2, "train.batch": 4},
    "captioning-tiny": {"task.language.width": 32, "task.language.layers": 1, "train.steps": 2, "train.batch": 4},
}


def test_the_readme_s_python_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, train_task, make_scenes = tavq.train, tavq.train_task, tavq.make_scenes
    monkeypatch.chdir(tmp_path)
    replace(monkeypatch, "make_scenes", lambda out, **more: make_scenes(out, **more | {"images": 24, "size": 32}))
    replace(monkeypatch, "train", lambda recipe, **more: train(recipe, **more | {"settings": TINY}))
    replace(
        monkeypatch, "train_task", lambda recipe, **more: train_task(recipe, **more | {"settings": TINY_TASKS[recipe]})
    )
    short, long = blocks(root / "README.md", "python")
    names: dict[str, Any] = {}
    exec(compile(long, "README.md", "exec"), names)
    assert names["result"]["psnr"].value > 0
    assert names["tokens"].indices.shape == (len(names["files"]), 8, 8)
    assert names["images"].shape == (16, 3, 32, 32)
    assert [Path(caption.image_id) for caption in names["captions"]] == names["files"][:3]
    assert len(names["found"].images) == 10
    assert names["page"] == Path("run/report.html")
    assert names["page"].is_file()
    names = {"images": torch.rand(2, 3, 32, 32) * 2 - 1}
    exec(compile(short, "README.md", "exec"), names)
    assert names["indices"].shape == (2, 8, 8)
    assert names["images"].shape == (2, 3, 32, 32)


def replace(monkeypatch: pytest.MonkeyPatch, name: str, function: Callable[..., Any]) -> None:
    """Put a function in place of one of the package's, whose names are looked up on first use."""
    monkeypatch.setitem(tavq.__dict__, name, function)


def test_python_on_the_pages_calls_what_there_is(documents: list[Path]) -> None:
    for page in documents:
        for block in blocks(page, "python"):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tavq":
                    assert node.attr in tavq.__all__, f"{page.name}: tavq.{node.attr}"


def test_make_targets_on_the_pages_exist(documents: list[Path], root: Path) -> None:
    targets = set(re.findall(r"^(\w+):", (root / "Makefile").read_text(), re.MULTILINE))
    for page in documents:
        for line in shell_lines(page):
            if line.startswith("make "):
                assert line.split()[1] in targets, line


def test_links_lead_to_files(documents: list[Path]) -> None:
    for page in documents:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", FENCE.sub("", page.read_text())):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_changelog_knows_this_version(root: Path) -> None:
    assert re.search(rf"^## {re.escape(tavq.__version__)}\b", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert f'version = "{tavq.__version__}"' in (root / "pyproject.toml").read_text()
