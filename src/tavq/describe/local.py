"""A vision-language model in this process: LLaVA and similar models, from a folder or by hub name."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tavq.core.devices import select_device
from tavq.core.errors import FileError, TavqError, UsageError, first_line
from tavq.core.files import read_bytes, read_json, sha256_bytes
from tavq.core.pretrained import download_from_hub, quiet_transformers
from tavq.describe.answers import (
    TEMPERATURE,
    Answer,
    Describer,
    DescriptionResult,
    OnResults,
    RetryState,
    SamplingParams,
)
from tavq.describe.images import load_resized
from tavq.describe.original_llava import is_original_llava, load_original_llava

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FILES = ["*.json", "*.txt", "*.jinja", "tokenizer.model", "*.safetensors"]
TORCH_FILES = "pytorch_model*.bin"
LLAVA_PROMPT = "USER: <image>\n{prompt} ASSISTANT:"
SHARE4V = (
    "a LLaVA-format conversion (model_type 'llava', such as gokul-mbzuai/sharegpt4v-7b-hf), "
    "another LLaVA (llava-hf/llava-1.5-7b-hf), or a server that supports it with --endpoint"
)

PendingImage = tuple[RetryState, Image.Image]


class LocalModel(Describer):
    """Describes images in batches; while the model generates, a thread loads the next images.

    Args:
        model: of transformers, as `load_model` gives it.
        processor: of the model.
        prompt: the instruction to the model.
        folder: the data set.
        batch_size: images at a time.
        max_tokens: upper limit of an answer.
        longest_side: larger images are downscaled to this many pixels.
    """

    def __init__(
        self, model: Any, processor: Any, prompt: str, folder: Path, batch_size: int, max_tokens: int, longest_side: int
    ) -> None:
        self.model = model
        self.processor = processor
        self.prompt = format_prompt(processor, prompt)
        self.folder = folder
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.longest_side = longest_side
        eos = model.generation_config.eos_token_id
        self.eos_ids = {*(eos if isinstance(eos, list) else [eos])} - {None}

    def run(self, pending: Iterator[str], on_results: OnResults, should_stop: Callable[[], bool]) -> None:
        """Pass the results of each batch to `on_results`; ends within a token once `should_stop()` is true."""
        with ThreadPoolExecutor(1) as reader:
            next_batch = reader.submit(self._load_batch, pending)
            while not should_stop():
                images, failed = next_batch.result()
                if not images and not failed:
                    return
                next_batch = reader.submit(self._load_batch, pending)
                on_results([*failed, *self._describe(images, should_stop)])

    def _load_batch(self, pending: Iterator[str]) -> tuple[list[PendingImage], list[DescriptionResult]]:
        """The next images, and the results of those that cannot be read."""
        images: list[PendingImage] = []
        failed: list[DescriptionResult] = []
        for name in islice(pending, self.batch_size):
            try:
                image = load_resized(self.folder, name, self.longest_side)
            except TavqError as error:
                failed.append(DescriptionResult(name, fault=str(error)))
            else:
                images.append((RetryState(name, self.max_tokens), image))
        return images, failed

    def _describe(self, images: Sequence[PendingImage], should_stop: Callable[[], bool]) -> Iterator[DescriptionResult]:
        while images:
            retries: list[PendingImage] = []
            for params, group in _group_by_params(images):
                answers = self._answer([image for _, image in group], params, should_stop)
                if should_stop():
                    return
                for (state, image), answer in zip(group, answers, strict=True):
                    result = state.judge(answer) if isinstance(answer, Answer) else state.give_up(answer)
                    if result is None:
                        retries.append((state, image))
                    else:
                        yield result
            images = retries

    def _answer(
        self, images: Sequence[Image.Image], params: SamplingParams, should_stop: Callable[[], bool]
    ) -> list[Answer | str]:
        """The answer for each image, or why the processor rejects it."""
        try:
            inputs = self.processor(
                images=list(images), text=[self.prompt] * len(images), padding=True, return_tensors="pt"
            )
        except Exception as error:  # each processor has its own ways to reject a shape
            if len(images) > 1:
                return [answer for image in images for answer in self._answer([image], params, should_stop)]
            return [f"the model does not accept the image ({first_line(error)})"]
        with self._explain_memory_errors():
            return [*self._generate(inputs, params, should_stop)]

    @torch.inference_mode()
    def _generate(self, inputs: Any, params: SamplingParams, should_stop: Callable[[], bool]) -> Iterator[Answer]:
        inputs = inputs.to(self.model.device, self.model.dtype)
        sampling: dict[str, Any] = {"do_sample": False}
        if params.seed is not None:
            torch.manual_seed(params.seed)
            sampling = {"do_sample": True, "temperature": TEMPERATURE, "top_p": 1.0, "top_k": 0}
        sequences = self.model.generate(
            **inputs,
            **sampling,
            max_new_tokens=params.max_tokens,
            pad_token_id=self.processor.tokenizer.pad_token_id,
            stopping_criteria=[lambda ids, scores: torch.full((len(ids),), should_stop(), device=ids.device)],
        )[:, inputs["input_ids"].shape[1] :].tolist()
        for tokens in sequences:
            text = self.processor.tokenizer.decode(tokens, skip_special_tokens=True)
            yield Answer(text, complete=len(tokens) < params.max_tokens or not self.eos_ids.isdisjoint(tokens))

    @contextlib.contextmanager
    def _explain_memory_errors(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:  # out of memory is a RuntimeError in torch, on the CPU too
            if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "memory" not in str(error):
                raise
            remedy = f"--batch {self.batch_size // 2}" if self.batch_size > 1 else "--dtype bfloat16 or a smaller model"
            raise UsageError(
                f"{self.model.device} ran out of memory with --batch {self.batch_size}; try {remedy}. Finished "
                "descriptions are kept."
            ) from error


def _group_by_params(images: Sequence[PendingImage]) -> Iterator[tuple[SamplingParams, list[PendingImage]]]:
    """Group images by their sampling parameters; a sampled image is alone, so that its seed decides its answer."""

    def key(image: PendingImage) -> tuple[int, int]:
        params = image[0].params
        return params.seed or 0, params.max_tokens

    for (seed, max_tokens), group in groupby(sorted(images, key=key), key):
        members = list(group)
        batches = [[member] for member in members] if seed else [members]
        for batch in batches:
            yield SamplingParams(max_tokens, seed or None), batch


def format_prompt(processor: Any, prompt: str) -> str:
    """The model's input: the prompt in its own chat template, or in LLaVA's if it has none."""
    if getattr(processor, "chat_template", None) is None:
        return LLAVA_PROMPT.format(prompt=prompt)
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    return str(processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True))


def model_key(folder: Path) -> str:
    """The name that identifies a model folder in the descriptions: `llava@1a2b3c4d`.

    The hash covers config.json and the names and sizes of the weights, which are too large to be read for it.
    """
    _check_folder(folder)
    weights = sorted((path.name, path.stat().st_size) for path in folder.glob("*.safetensors"))
    identity = read_bytes(folder / "config.json") + json.dumps(weights).encode()
    return f"{folder.resolve().name}@{sha256_bytes(identity)[:8]}"


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"{folder} is not a model folder: it has no config.json. Use one with config.json and *.safetensors, or a "
            "hub name like llava-hf/llava-1.5-7b-hf."
        )


def load_model(name_or_path: str, device: str = "auto", dtype: str = "auto") -> tuple[Any, Any]:
    """Load model and processor from a folder or a hub name; safetensors only, and no code from the model.

    Models of the original LLaVA layout may also have torch's files, if these hold tensors alone.

    `device` auto is the GPU if there is one; `dtype` auto is bfloat16 on a GPU and float32 on the CPU.

    Raises UsageError if there is no such model or it is of another kind, FileError if the folder is broken.
    """
    target = select_device(device)
    precision = DTYPES.get(dtype, torch.bfloat16 if target.type == "cuda" else torch.float32)
    folder = Path(name_or_path) if Path(name_or_path).is_dir() else _download(name_or_path)
    _check_folder(folder)
    if not Path(name_or_path).is_dir() and _is_original(folder):
        folder = _with_weights(name_or_path, folder)
    with quiet_transformers():
        model, processor = _load(folder, precision)
    try:
        model = model.to(target).eval()
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"{name_or_path} does not fit into the memory of {target}; try --dtype bfloat16, a smaller model, or a "
            "server with several GPUs (--endpoint)."
        ) from error
    _fill_processor_defaults(processor, model.config)
    return model, processor


def _download(name: str) -> Path:
    if name.count("/") > 1 or name[:1] in (".", "/", "~"):
        raise UsageError(f"There is no model folder {name!r}; use a folder or a hub name.")
    return download_from_hub(name, "model", FILES)


def _is_original(folder: Path) -> bool:
    stored = read_json(folder / "config.json")
    return isinstance(stored, dict) and is_original_llava(stored)


def _find_tower(name: str) -> Path:
    return Path(name) if Path(name).is_dir() else _with_weights(name, _download(name))


def _with_weights(name: str, folder: Path) -> Path:
    """The folder of a hub name of the original layout, which may have no safetensors but torch's files."""
    return folder if any(folder.glob("*.safetensors")) else download_from_hub(name, "model", [*FILES, TORCH_FILES])


def _load(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        if _is_original(folder):
            return load_original_llava(folder, dtype, _find_tower)
        _check_type(folder)
        config = AutoConfig.from_pretrained(folder, **local)
        processor = AutoProcessor.from_pretrained(folder, **local)
        kind: Any = AutoModelForImageTextToText
        model, report = kind.from_pretrained(
            folder, config=config, use_safetensors=True, dtype=dtype, output_loading_info=True, **local
        )
    except ImportError as error:
        raise UsageError(
            f"{folder} needs a package that is not installed ({first_line(error)}); use another model, or a server "
            "(--endpoint)."
        ) from error
    except TavqError:
        raise
    except Exception as error:  # transformers lets the errors of all its parsers through
        raise FileError(f"{folder} is not a complete vision-language model: {first_line(error)}") from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise UsageError(f"{folder} has no processor for images and text; use a vision-language model.")
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would fill them with random numbers
        raise FileError(f"{folder} is not complete: its weights lack {len(missing)} tensors ({missing[0]}, …).")
    return model, processor


def _check_type(folder: Path) -> None:
    config = read_json(folder / "config.json")
    config = config if isinstance(config, dict) else {}
    kind = config.get("model_type")
    if kind == "share4v" or "LlavaLlamaForCausalLM" in (config.get("architectures") or ()):
        raise UsageError(
            f"{folder} holds weights of the type {kind!r}, which transformers does not load; use {SHARE4V}."
        )


def _fill_processor_defaults(processor: Any, config: Any) -> None:
    """Set what older folders leave out: how many tokens an image takes, and how shorter texts are padded."""
    vision = getattr(config, "vision_config", None)
    if getattr(processor, "patch_size", 0) is None and vision is not None:
        processor.patch_size = vision.patch_size
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        processor.num_additional_image_tokens = int(vision.model_type.startswith("clip"))
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
