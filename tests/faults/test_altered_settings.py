"""Settings and records that somebody altered: a model is loaded or refused in one line, never a traceback."""

import json
import resource
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from tavq.core import files
from tavq.core.config import build
from tavq.core.errors import FileError, TavqError
from tavq.tasks.base import tasks
from tavq.tasks.model_folder import CONDITION_TOKENIZER, TOKENIZER, load_task
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training.log import RunLog
from tavq.training.log_lines import read_log
from tavq.training.provenance import read_provenance
from tavq.training.run_folder import RunFolder

MODELS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "unit/tasks/format_1.json").read_text(encoding="utf-8")
)
"""Settings and shapes of weights of one small network of each task."""

ODD = [None, -1, 0, 10**12, 1.5, "x", [3], {"name": "x"}]
"""What a value is replaced by: each by two of these in turn."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value is in nested JSON: each mapping, list and leaf."""
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        yield from places(below, (*path, key))


def altered(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at one place; without the place where `new` is `...`."""
    copy = deepcopy(value)
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return copy


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of a task."""
    folder = tmp_path_factory.mktemp(request.param)
    stored = MODELS[request.param]
    net = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": False}
    settings = {"net": net, "codebook": {"name": "learned", "entries": 3, "width": 4}}
    names = [TOKENIZER] if stored["model"]["given"] is None else [TOKENIZER, CONDITION_TOKENIZER]
    for name in names:
        Tokenizer(build(TokenizerConfig, settings, "test")).save_pretrained(folder / name)
    weights = {name: torch.zeros(shape, dtype=torch.int64 if name == "seen" else torch.float32)
               for name, shape in stored["weights"].items()}  # fmt: skip
    files.write_tensors(folder / "model.safetensors", weights)
    hashes = {name: files.read_json(folder / name / "config.json")["sha256"] for name in names}
    record = {"format": 1, "kind": "task", "model": stored["model"], "tokenizers": hashes, "files": {}, "step": 7}
    record |= {"sha256": files.sha256(folder / "model.safetensors"), "size": 32}
    files.write_json(folder / "config.json", record)
    return folder


def test_a_task_with_any_setting_altered(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = files.read_json(model / "config.json")
    monkeypatch.setattr(tasks[record["model"]["task"]["name"]], "read_files", lambda self, folder: None)
    tried = loaded = 0
    for index, path in enumerate(places(record)):
        for new in (..., *(ODD[(index + step) % len(ODD)] for step in (0, 3))):
            (model / "config.json").write_text(json.dumps(altered(record, path, new)))
            tried += 1
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    load_task(model).size
                loaded += 1
            except TavqError as error:
                assert "\n\n" not in str(error)  # noqa: PT017
            except Exception as error:
                raise AssertionError(f"{path} = {new!r}") from error
    files.write_json(model / "config.json", record)
    load_task(model)
    assert 0 < loaded < tried / 2


TOKENIZERS: dict[str, dict[str, Any]] = {
    "ta": {"codebook": {"name": "learned", "entries": 3, "width": 4}, "align": {"name": "ta"}, "text_width": 6},
    "lattice": {"codebook": {"name": "lattice", "levels": [3, 3]}, "quantizer": {"name": "scalar"}},
    "residual": {"codebook": {"name": "learned", "entries": 3, "width": 4}, "quantizer": {"name": "residual"}},
}
HOSTILE = [..., *ODD, "os.system", [[[[3]]]], [10**12] * 3, {"name": "learned", "entries": 10**12, "width": 10**12}]
MAX_GROWTH = 300_000  # kB


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_with_any_setting_altered(name: str, tmp_path: Path) -> None:
    """Its seal is left out, as versions before had none: it is not what refuses the settings."""
    net = {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False}
    settings = {"net": net, **TOKENIZERS[name]}
    Tokenizer(build(TokenizerConfig, settings, "test")).save_pretrained(tmp_path, metadata={"size": 32})
    record = files.read_json(tmp_path / "config.json")
    del record["seal"]
    before, tried, loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0, 0
    for index, path in enumerate(places(record)):
        for new in (HOSTILE[(index + step) % len(HOSTILE)] for step in (0, 4, 9)):
            (tmp_path / "config.json").write_text(json.dumps(altered(record, path, new)))
            tried += 1
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    Tokenizer.from_pretrained(tmp_path)
                loaded += 1
            except TavqError as error:
                assert "\n\n" not in str(error)  # noqa: PT017
            except Exception as error:
                raise AssertionError(f"{path} = {new!r}") from error
    assert 0 < loaded < tried / 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH


NO_LOGS = {
    "a list": "[1]",
    "a number": "3",
    "null": "null",
    "a text as step": '{"step": "x"}',
    "a list as step": '{"step": [1]}',
    "NaN": '{"step": 1, "loss": NaN}',
    "infinity": '{"step": 1, "deep": {"a": [-Infinity]}}',
    "a step that is NaN": '{"step": NaN}',
    "a truth as step": '{"step": true}',
}


@pytest.mark.parametrize("line", NO_LOGS.values(), ids=NO_LOGS)
def test_an_altered_log_is_named_and_kept(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    for read in (lambda: RunLog(path, 4), lambda: read_log(path), RunFolder(tmp_path).read_log):
        with pytest.raises(FileError, match=r"log\.jsonl line 2 was altered"):
            read()
    assert line in path.read_text()


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"', '{"a": NaN}', '{"a": [Infinity]}', "{", "", "\0"])
def test_an_altered_provenance_is_named_and_kept(tmp_path: Path, text: str) -> None:
    (tmp_path / "provenance.json").write_text(text)
    run = RunFolder(tmp_path)
    for read in (lambda: read_provenance(tmp_path), lambda: run.record_speed(3, 1.0), run.schedule_changes):
        with pytest.raises(FileError, match=r"provenance\.json"):
            read()
    assert (tmp_path / "provenance.json").read_text() == text
