"""Upload a model folder to the Hugging Face hub."""

import re
from pathlib import Path
from typing import Any

from tavq.api.calls import PathLike
from tavq.core import files
from tavq.core.config import write_yaml
from tavq.core.errors import UsageError
from tavq.core.pretrained import is_hub_name, upload_to_hub
from tavq.model_folder import FILES, find_import, find_model, read_config
from tavq.tasks.model_folder import KIND, load_task
from tavq.tokenizer import Tokenizer

FRONT_MATTER = re.compile(r"\A---\n.*?^---\n", re.DOTALL | re.MULTILINE)


def push_model(
    model: PathLike,
    name: str,
    *,
    licence: str | None = None,
    branch: str | None = None,
    private: bool = False,
    message: str = "Upload a model of tavq",
) -> str:
    """Upload a model folder to the Hugging Face hub in one commit.

    The access token is taken from HF_TOKEN in the environment. The model is loaded first, so that a damaged one is not
    published. Its card gets the head that the hub reads, if it has none.

    Args:
        model: a model folder or a run folder, of a tokenizer or a task.
        name: `OWNER/NAME` on the hub; created if it is missing.
        licence: of the weights, as the hub names it (`apache-2.0`); by default what the import of the model recorded.
        branch: commit to this branch; by default to the main one.
        private: make a new repository private, and accept no public one.
        message: of the commit.

    Returns:
        The commit. `NAME@COMMIT` pins it in every function that takes a hub name.

    Raises:
        UsageError: there is no such model or no token, or the hub refuses.
        FileError: the model is damaged.
    """
    if not Path(model).is_dir():
        raise UsageError(f"There is no folder {str(model)!r} to upload.")
    if not is_hub_name(name) or "@" in name:
        raise UsageError(f"{name[:100]!r} is not a name on the hub; expected OWNER/NAME.")
    folder = find_model(Path(model))
    stored = read_config(folder)
    is_task = isinstance(stored, dict) and stored.get("kind") == KIND
    (load_task if is_task else Tokenizer.from_pretrained)(folder)
    paths = sorted({path for pattern in FILES for path in folder.rglob(pattern) if path.is_file()})
    contents: dict[str, bytes | Path] = {path.relative_to(folder).as_posix(): path for path in paths}
    contents["README.md"] = _card(folder, stored, licence, "image-tokens" if is_task else "image-tokenizer").encode()
    return upload_to_hub(name, contents, message, branch, private)


def _card(folder: Path, stored: dict[str, Any], licence: str | None, tag: str) -> str:
    """README.md with the head that the hub reads; a head that is there stays, unless a licence is given."""
    path = folder / "README.md"
    text = files.read_text(path) if path.is_file() else "# Model of tavq\n"
    if FRONT_MATTER.match(text) and licence is None:
        return text
    head: dict[str, Any] = {"library_name": "tavq", "tags": [tag]}
    if chosen := licence or _imported_licence(stored):
        head["license"] = chosen.lower()
    return f"---\n{write_yaml(head)}---\n\n{FRONT_MATTER.sub('', text).lstrip()}"


def _imported_licence(stored: dict[str, Any]) -> str | None:
    """The licence that an import recorded, if it is a name as the hub has them: "MIT", "mit (as stated on the hub)"."""
    stated = str(find_import(stored).get("licence") or "").partition(" (")[0]
    return stated if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", stated) else None
