"""The original layout of LLaVA-1.5, which ShareGPT4V has too, read into the LLaVA class of transformers.

Source of the layout: haotian-liu/LLaVA, `llava/model/llava_arch.py` and `multimodal_encoder/clip_encoder.py`; the
language model's tensors have its own names, the projector is `model.mm_projector.{0,2}`, and the vision tower is a CLIP
model that `mm_vision_tower` names, in a folder or repository of its own unless its tensors are among the others.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tavq.core.conversion import load_checkpoint
from tavq.core.errors import FileError, UsageError
from tavq.core.files import read_json, read_tensors

TYPES = ("share4v", "llava", "llava_llama")
IMAGE = "<image>"
PROJECTORS = ("mlp2x_gelu",)
OWN_TOWER = "model.vision_tower.vision_tower."
DROPPED = ("rotary_emb.inv_freq", "embeddings.position_ids")
"""Endings of tensors that follow from the settings, which older versions saved."""

REMEDY = "publish its weights as safetensors, or as tensors alone, to use it here."


def is_original_llava(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of the original layout: transformers' own has the settings of the parts apart."""
    return config.get("model_type") in TYPES and "text_config" not in config and "mm_vision_tower" in config


def load_original_llava(folder: Path, dtype: torch.dtype, find_tower: Callable[[str], Path]) -> tuple[Any, Any]:
    """The model and its processor; runs no code of the folder.

    Args:
        folder: with config.json, a tokenizer, and weights as safetensors or as torch's files of tensors alone.
        dtype: of the weights.
        find_tower: gives the folder of a vision tower by the name in `mm_vision_tower`.

    Raises:
        UsageError: its projector or tower is of a kind that transformers' LLaVA does not have.
        FileError: a tensor is missing, unknown or of another shape, or a file is damaged.
    """
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    config = read_json(folder / "config.json")
    _check_settings(config, folder)
    named = str(config["mm_vision_tower"])
    beside = folder / named
    tower = beside if beside.is_dir() else find_tower(named)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokenizer.add_tokens([IMAGE], special_tokens=True)
    settings = _make_config(config, read_json(tower / "config.json"), tokenizer, folder)
    with torch.device("meta"):
        shapes = LlavaForConditionalGeneration(settings).state_dict()
    tensors = _read_weights(shapes, folder, tower, dtype)
    model: Any = LlavaForConditionalGeneration.from_pretrained(None, config=settings, state_dict=tensors, dtype=dtype)
    model.generation_config.suppress_tokens = [settings.image_token_index]  # its row is not trained
    model.generation_config.eos_token_id = config.get("eos_token_id", tokenizer.eos_token_id)
    return model, _make_processor(tower, tokenizer, settings, config.get("image_aspect_ratio"))


def _check_settings(config: Mapping[str, Any], folder: Path) -> None:
    facts = {
        "mm_projector_type": (config.get("mm_projector_type"), PROJECTORS),
        "mm_vision_select_feature": (config.get("mm_vision_select_feature", "patch"), ("patch",)),
        "mm_use_im_start_end": (bool(config.get("mm_use_im_start_end")), (False,)),
    }
    for name, (value, accepted) in facts.items():
        if value not in accepted:
            raise UsageError(f"{folder} has {name} {value!r}; only {' or '.join(map(repr, accepted))} can be loaded.")


def _make_config(config: Mapping[str, Any], tower: Mapping[str, Any], tokenizer: Any, folder: Path) -> Any:
    """The settings of transformers' LLaVA; its vocabulary has the image token after all others."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision: Any = CLIPVisionConfig(**tower.get("vision_config", tower))
    known = LlamaConfig().to_dict()
    language = {name: value for name, value in config.items() if name in known and name != "model_type"}
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    language["vocab_size"] = max(int(config["vocab_size"]), image + 1)
    for name in ("architectures", "dtype", "torch_dtype", "transformers_version"):
        language.pop(name, None)
    if vision.hidden_size != config.get("mm_hidden_size", vision.hidden_size):
        raise FileError(
            f"{folder} was trained with a vision tower {config['mm_hidden_size']} wide, not {vision.hidden_size}."
        )
    return LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**language),
        image_token_index=image,
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=config.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy="default",
    )


# --- weights ----------------------------------------------------------------------------------------------------


def _read_weights(expected: Mapping[str, Tensor], folder: Path, tower: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors by their names in transformers' LLaVA, whose shapes are `expected`."""
    found: dict[str, Tensor] = {}
    unknown: list[str] = []
    vision = "model.vision_tower."
    if any(name.startswith(f"{vision}vision_model.") for name in expected):
        vision += "vision_model."
    for tensors in _read_files(folder):
        for name, value in tensors.items():
            _place(found, unknown, rename(name, vision), name, value, expected, dtype)
    if not any(name.startswith(vision) for name in found):
        for tensors in _read_files(tower):
            for name, value in tensors.items():
                if name.startswith("vision_model."):  # a whole CLIP model has a text tower too
                    _place(found, unknown, rename(OWN_TOWER + name, vision), name, value, expected, dtype)
    missing = sorted(expected.keys() - found.keys())
    for problem, names in (("lacks", missing), ("has unknown", sorted(unknown))):
        if names:
            raise FileError(f"{folder} {problem} tensors ({len(names)}), for example {names[0]}.")
    return found


def rename(name: str, vision: str) -> str | None:
    """The name of a tensor in transformers' LLaVA; None for one that follows from the settings.

    Args:
        name: in the original layout.
        vision: the beginning of the tower's names in transformers' class.
    """
    if name.endswith(DROPPED):
        return None
    if name.startswith(OWN_TOWER):
        return vision + name.removeprefix(OWN_TOWER).removeprefix("vision_model.")
    if match := re.fullmatch(r"model\.mm_projector\.([02])\.(weight|bias)", name):
        return f"model.multi_modal_projector.linear_{1 + int(match[1]) // 2}.{match[2]}"
    return name if name.startswith("lm_head.") else name.replace("model.", "model.language_model.", 1)


def _place(
    found: dict[str, Tensor], unknown: list[str], ours: str | None, name: str, value: Tensor,
    expected: Mapping[str, Tensor], dtype: torch.dtype,
) -> None:  # fmt: skip
    """Put a tensor under its name; matrices of the vocabulary get zeros for the tokens that were added."""
    if ours is None:
        return
    if ours not in expected:
        unknown.append(name)
        return
    shape = tuple(expected[ours].shape)
    if ours.endswith(("embed_tokens.weight", "lm_head.weight")) and value.ndim == 2 and len(value) < shape[0]:
        value = torch.cat([value, value.new_zeros(shape[0] - len(value), value.shape[1])])
    if tuple(value.shape) != shape:
        raise FileError(f"The tensor {name!r} has the shape {list(value.shape)}; expected {list(shape)}.")
    found[ours] = value.to(dtype)


def _read_files(folder: Path) -> Any:
    """The tensors of each file of weights: safetensors, or where there are none torch's files of tensors alone."""
    paths = sorted(folder.glob("*.safetensors"))
    if paths:
        yield from map(read_tensors, paths)
        return
    paths = sorted(folder.glob("pytorch_model*.bin"))
    if not paths:
        raise FileError(f"{folder} has no weights; expected *.safetensors or pytorch_model*.bin.")
    for path in paths:
        tensors = load_checkpoint(path, REMEDY)
        if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
            raise FileError(f"{path} does not hold weights alone; {REMEDY}")
        yield tensors


# --- processor --------------------------------------------------------------------------------------------------


def _make_processor(tower: Path, tokenizer: Any, settings: Any, aspect: str | None) -> Any:
    """The tower's own preprocessing; with `pad` the image is padded to a square in CLIP's mean colour first."""
    from transformers import LlavaProcessor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    side = settings.vision_config.image_size
    path = tower / "preprocessor_config.json"
    stored = read_json(path) if path.is_file() else {}
    kept = {name: stored[name] for name in ("image_mean", "image_std", "resample", "rescale_factor") if name in stored}
    images = LlavaImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, do_pad=aspect == "pad", **kept
    )
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=settings.vision_config.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
    )
