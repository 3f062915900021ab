"""Which packages are installed, and what each extra is for. Loads none of them, so that it works without torch too."""

import importlib.util
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from tavq.core.version import __version__
from tavq.doctor.finding import Finding

NEEDED = (
    "torch", "numpy", "safetensors", "pydantic", "pyyaml", "cyclopts", "rich", "pillow", "jaxtyping", "textblob",
    "nltk", "syntok", "transformers", "tokenizers", "huggingface_hub",
)  # fmt: skip
"""Distributions that tavq depends on."""

EXTRAS: dict[str, tuple[str, str]] = {
    "bench": ("geomloss", "bench"),
    "explore": ("fastapi", "explore"),
    "hf": ("datasets", "data import huggingface"),
    "onnx": ("onnxruntime", "export --to onnx"),
    "remote": ("aiohttp", "data at s3://, gs:// and https://"),
    "tensorboard": ("tensorboard", "train --log-to tensorboard"),
    "triton": ("triton", "kernels for NVIDIA GPUs"),
    "umap": ("umap-learn", "a second map of the entries in explore"),
    "wandb": ("wandb", "train --log-to wandb"),
}
"""Extras by name: the distribution that shows that it is installed, and what it is for."""


def check_packages() -> Iterator[Finding]:
    """Versions of tavq, Python and what tavq depends on."""
    python, system = platform.python_version(), f"{platform.system()} {platform.machine()}"
    yield Finding("installed", "tavq", f"{__version__} on Python {python}, {system}", {
        "tavq": __version__, "python": python, "system": system,
    })  # fmt: skip
    found = {name: find_version(name) for name in NEEDED}
    missing = [name for name, number in found.items() if number is None]
    main = ", ".join(f"{name} {found[name]}" for name in ("torch", "transformers", "numpy") if found[name])
    if missing:
        fix = f"Install the missing packages: {sys.executable.rpartition('/')[2]} -m pip install {' '.join(missing)}"
        yield Finding("installed", "packages", f"missing: {', '.join(missing)}", {**found}, "broken", fix)
    else:
        yield Finding("installed", "packages", f"{main}, and {len(found) - 3} more", {**found})


def check_extras() -> Iterator[Finding]:
    """Which extras are installed, and what the others would add."""
    for extra, (distribution, use) in EXTRAS.items():
        number = find_version(distribution)
        values = {"version": number, "for": use}
        if number is None:
            yield Finding("installed", f"tavq[{extra}]", f"not installed; for {use}", values, "missing")
        else:
            yield Finding("installed", f"tavq[{extra}]", f"{distribution} {number}; {use}", values)


def find_version(distribution: str) -> str | None:
    """The version of an installed distribution; None without it."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def is_importable(module: str) -> bool:
    """Whether a module could be imported."""
    return importlib.util.find_spec(module) is not None
