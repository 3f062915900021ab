"""config.json of a model folder: a changed setting is found, whichever it is; folders of older versions still load."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tavq.core.config import build
from tavq.core.errors import FileError, TavqError
from tavq.model_folder import read_config, write_config
from tavq.tasks.model_folder import TaskConfig, load_task, save_task
from tavq.tokenizer import Tokenizer, TokenizerConfig

NET = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": False}
LAYOUT = {"height": 4, "width": 4, "sizes": [240]}
SETTINGS: dict[str, Any] = {
    "net": NET,
    "codebook": {"name": "lattice", "levels": [8, 6, 5]},
    "quantizer": {"name": "scalar"},
    "align": None,
}


def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(build(TokenizerConfig, SETTINGS, "test")).eval()


def save_tokenizer(folder: Path) -> None:
    tokenizer().save_pretrained(folder, metadata={"size": 32, "colours": {10: [1, 2, 3], 9: [4, 5, 6]}})


def save_prior(folder: Path) -> None:
    task = {"name": "prior", "width": 16, "layers": 1, "heads": 2}
    config = build(TaskConfig, {"task": task, "layout": LAYOUT}, "test")
    save_task(folder, config, config.make(), tokenizer(), None, "", {"size": 8})


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "tokenizer": (save_tokenizer, Tokenizer.from_pretrained),
    "task": (save_prior, load_task),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Callable[[Path], Any]]:
    save, load = KINDS[request.param]
    folder = tmp_path_factory.mktemp("models") / "model"
    save(folder)
    load(folder)
    return folder, load


def changes(value: Any) -> Iterator[Any]:
    """The value with each of its parts changed once: a number by one, a text by a letter, a mapping by a key less."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value + 1
    elif isinstance(value, str):
        yield value[:-1] + ("0" if value[-1:] != "0" else "1")
    elif isinstance(value, dict):
        for key, part in value.items():
            yield {name: other for name, other in value.items() if name != key}
            yield from ({**value, key: changed} for changed in changes(part))
    elif isinstance(value, list):
        yield [*value, 0]
        for place, part in enumerate(value):
            yield from ([*value[:place], changed, *value[place + 1 :]] for changed in changes(part))
            yield [*value[place:], *value[:place]] if place else value[:-1]


def test_every_changed_value_is_refused(kind: tuple[Path, Callable[[Path], Any]], tmp_path: Path) -> None:
    folder, load = kind
    stored = json.loads((folder / "config.json").read_text())
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    count = 0
    for changed in changes(stored):
        if changed == stored or "seal" not in changed:
            continue
        (copy / "config.json").write_text(json.dumps(changed))
        with pytest.raises(FileError, match=r"config\.json was altered: its settings do not fit its seal"):
            load(copy)
        count += 1
    assert count > 40


def test_order_and_spaces_of_a_config_do_not_matter(kind: tuple[Path, Callable[[Path], Any]], tmp_path: Path) -> None:
    folder, load = kind
    stored = json.loads((folder / "config.json").read_text())
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    (copy / "config.json").write_text(json.dumps(dict(reversed(stored.items())), sort_keys=False))
    load(copy)


def test_a_folder_of_an_older_version_is_read(kind: tuple[Path, Callable[[Path], Any]], tmp_path: Path) -> None:
    folder, load = kind
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    stored = json.loads((copy / "config.json").read_text())
    seal = stored.pop("seal")
    (copy / "config.json").write_text(json.dumps(stored))
    load(copy)
    write_config(copy, read_config(copy))
    assert json.loads((copy / "config.json").read_text())["seal"] == seal


@pytest.mark.parametrize("levels", [[7, 6, 5], [6, 8, 5], [5, 6, 8], [8, 6, 3]])
def test_other_levels_do_not_fit_the_weights_of_an_older_folder(tmp_path: Path, levels: list[int]) -> None:
    save_tokenizer(tmp_path / "model")
    stored = read_config(tmp_path / "model")
    stored["model"]["codebook"]["levels"] = levels
    (tmp_path / "model" / "config.json").write_text(json.dumps(stored))
    with pytest.raises(FileError, match=r"does not fit its config\.json: codebook\.middle is \[4\.0, 3\.0, 2\.0\]"):
        Tokenizer.from_pretrained(tmp_path / "model")


def test_any_damaged_bytes_of_a_config_are_refused(kind: tuple[Path, Callable[[Path], Any]], tmp_path: Path) -> None:
    """All but a change in the name of the seal itself, or of a space."""
    folder, load = kind
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    data = (copy / "config.json").read_bytes()
    whole = json.loads(data)
    for place in range(0, len(data), 5):
        (copy / "config.json").write_bytes(data[:place] + bytes([data[place] ^ 2]) + data[place + 1 :])
        try:
            load(copy)
        except TavqError:
            continue
        found = json.loads((copy / "config.json").read_bytes())
        assert {key: found.get(key) for key in whole if key != "seal"} == {
            k: v for k, v in whole.items() if k != "seal"
        }
