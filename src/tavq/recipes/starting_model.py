"""The settings that a fine-tuning recipe takes from the model that it starts from."""

from collections.abc import Mapping
from typing import Any

from tavq.core.config import build_stored
from tavq.core.errors import UsageError
from tavq.model_folder import find_model, kind_of_images, read_model_config
from tavq.tokenizer_config import TokenizerConfig, with_literal_alignment

START_FROM = "start_from"
"""A recipe with `extends: start_from` takes what it leaves out from the model that `train.start_from` names."""

PARTS = ("net", "codebook", "quantizer")
"""What decides the weights of a tokenizer; aligner and hierarchy are the recipe's own."""


def settings_of_model(settings: Mapping[str, Any], recipe: str) -> dict[str, Any]:
    """The sections `model` and `data` of the model that a recipe starts from: parts, kind and size of its images.

    Args:
        settings: the recipe's own settings, with those of the command line.
        recipe: its name, for errors.

    Raises:
        UsageError: the recipe names no model, there is no such model, or nobody says at which size to train it.
        FileError: the model's config.json is damaged.
    """
    train, data = (settings.get(section) for section in ("train", "data"))
    name = train.get("start_from") if isinstance(train, Mapping) else None
    if not isinstance(name, str):
        raise UsageError(
            f"Recipe {recipe} trains a model further; name it with --train.start_from MODEL: a model folder, as "
            "`tavq import-checkpoint` writes, a run folder or a hub name."
        )
    folder = find_model(name)
    stored = read_model_config(folder)
    model = build_stored(TokenizerConfig, with_literal_alignment(stored["model"]), str(folder / "config.json"))
    images = {"images": kind_of_images(stored), "colours": stored.get("colours"), "size": stored.get("size")}
    known = {key: value for key, value in images.items() if value is not None}
    if "size" not in known and not (isinstance(data, Mapping) and "size" in data):
        raise UsageError(
            f"The model {name!r} does not say which image size it was trained at; add --data.size, a multiple of "
            f"{model.net.factor}."
        )
    dumped = model.model_dump(mode="json")
    return {"model": {part: dumped[part] for part in PARTS}, "data": known}
