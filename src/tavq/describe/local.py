"""A vision-language model in this process: LLaVA and its like, from a folder or by hub name."""

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
from tavq.describe.answers import TEMPERATURE, Answer, Ask, Attempts, Describer, Outcome
from tavq.describe.images import load

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FILES = ["*.json", "*.txt", "*.jinja", "tokenizer.model", "*.safetensors"]
LLAVA_PROMPT = "USER: <image>\n{prompt} ASSISTANT:"
SHARE4V = (
    "a LLaVA-format conversion (model_type 'llava', such as gokul-mbzuai/sharegpt4v-7b-hf), "
    "another LLaVA (llava-hf/llava-1.5-7b-hf), or a server that knows it with --endpoint"
)

Waiting = tuple[Attempts, Image.Image]


class LocalModel(Describer):
    """Describes images in batches; while the model writes, a thread reads the next ones."""

    def __init__(
        self, model: Any, processor: Any, prompt: str, folder: Path, batch: int, tokens: int, longest_side: int
    ) -> None:
        self.model = model
        self.processor = processor
        self.text = question(processor, prompt)
        self.folder = folder
        self.batch = batch
        self.tokens = tokens
        self.longest_side = longest_side
        ends = model.generation_config.eos_token_id
        self.ends = {*(ends if isinstance(ends, list) else [ends])} - {None}

    def run(self, pending: Iterator[str], done: Callable[[Sequence[Outcome]], None], stop: Callable[[], bool]) -> None:
        """Hands the outcomes of each batch to `done`; ends within a token after `stop` says so."""
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._read, pending)
            while not stop():
                waiting, failed = ahead.result()
                if not waiting and not failed:
                    return
                ahead = reader.submit(self._read, pending)
                done([*failed, *self._describe(waiting, stop)])

    def _read(self, pending: Iterator[str]) -> tuple[list[Waiting], list[Outcome]]:
        waiting: list[Waiting] = []
        failed: list[Outcome] = []
        for name in islice(pending, self.batch):
            try:
                waiting.append((Attempts(name, self.tokens), load(self.folder, name, self.longest_side)))
            except TavqError as error:
                failed.append(Outcome(name, fault=str(error)))
        return waiting, failed

    def _describe(self, waiting: Sequence[Waiting], stop: Callable[[], bool]) -> Iterator[Outcome]:
        while waiting:
            left: list[Waiting] = []
            for ask, group in _together(waiting):
                answers = self._answers([image for _, image in group], ask, stop)
                if stop():
                    return
                for (attempts, image), answer in zip(group, answers, strict=True):
                    outcome = attempts.judge(answer) if isinstance(answer, Answer) else attempts.end(answer)
                    if outcome is None:
                        left.append((attempts, image))
                    else:
                        yield outcome
            waiting = left

    def _answers(self, images: Sequence[Image.Image], ask: Ask, stop: Callable[[], bool]) -> list[Answer | str]:
        """An answer to each image, or why the processor does not take it."""
        try:
            inputs = self.processor(
                images=list(images), text=[self.text] * len(images), padding=True, return_tensors="pt"
            )
        except Exception as error:  # each processor has its own ways to refuse a shape
            if len(images) > 1:
                return [answer for image in images for answer in self._answers([image], ask, stop)]
            return [f"the model does not take the image ({first_line(error)})"]
        with self._memory_explained():
            return [*self._generate(inputs, ask, stop)]

    @torch.inference_mode()
    def _generate(self, inputs: Any, ask: Ask, stop: Callable[[], bool]) -> Iterator[Answer]:
        inputs = inputs.to(self.model.device, self.model.dtype)
        how: dict[str, Any] = {"do_sample": False}
        if ask.seed is not None:
            torch.manual_seed(ask.seed)
            how = {"do_sample": True, "temperature": TEMPERATURE, "top_p": 1.0, "top_k": 0}
        tokens = self.model.generate(
            **inputs,
            **how,
            max_new_tokens=ask.tokens,
            pad_token_id=self.processor.tokenizer.pad_token_id,
            stopping_criteria=[lambda ids, scores: torch.full((len(ids),), stop(), device=ids.device)],
        )[:, inputs["input_ids"].shape[1] :].tolist()
        for row in tokens:
            text = self.processor.tokenizer.decode(row, skip_special_tokens=True)
            yield Answer(text, whole=len(row) < ask.tokens or not self.ends.isdisjoint(row))

    @contextlib.contextmanager
    def _memory_explained(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:  # torch's own kind is a RuntimeError, and so is the CPU's
            if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "memory" not in str(error):
                raise
            smaller = f"--batch {self.batch // 2}" if self.batch > 1 else "--dtype bfloat16 or a smaller model"
            raise UsageError(
                f"{self.model.device} ran out of memory with --batch {self.batch}; try {smaller}. Nothing is lost."
            ) from error


def _together(waiting: Sequence[Waiting]) -> Iterator[tuple[Ask, list[Waiting]]]:
    """Those that are asked in the same way; a sampled one alone, so that its seed gives one answer in any company."""

    def key(one: Waiting) -> tuple[int, int]:
        return one[0].ask.seed or 0, one[0].ask.tokens

    for (seed, tokens), group in groupby(sorted(waiting, key=key), key):
        members = list(group)
        for part in [[one] for one in members] if seed else [members]:
            yield Ask(tokens, seed or None), part


def question(processor: Any, prompt: str) -> str:
    """What the model is given to go on from: its own chat template, or LLaVA's form where it has none."""
    if getattr(processor, "chat_template", None) is None:
        return LLAVA_PROMPT.format(prompt=prompt)
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    return str(processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True))


def model_key(folder: Path) -> str:
    """The name by which the descriptions of a model folder are told from others': `llava@1a2b3c4d`.

    The hash is of its config.json and of the names and sizes of its weights, which are too large to be read for it.
    """
    _check_folder(folder)
    weights = sorted((path.name, path.stat().st_size) for path in folder.glob("*.safetensors"))
    told = read_bytes(folder / "config.json") + json.dumps(weights).encode()
    return f"{folder.resolve().name}@{sha256_bytes(told)[:8]}"


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"{folder} is no model folder, it has no config.json; give one with config.json and *.safetensors, or a "
            "hub name such as llava-hf/llava-1.5-7b-hf."
        )


def load_model(name_or_path: str, device: str = "auto", dtype: str = "auto") -> tuple[Any, Any]:
    """Model and processor from a folder or a hub name, for `LocalModel`; safetensors only, and no code of theirs.

    `device` auto is the GPU where there is one; `dtype` auto is bfloat16 there and float32 elsewhere.

    Raises UsageError for what cannot be had or is no such model, FileError for a folder that is broken.
    """
    place = select_device(device)
    number = DTYPES.get(dtype, torch.bfloat16 if place.type == "cuda" else torch.float32)
    folder = Path(name_or_path) if Path(name_or_path).is_dir() else _download(name_or_path)
    _check_folder(folder)
    with quiet_transformers():
        model, processor = _load(folder, number)
    try:
        model = model.to(place).eval()
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"{name_or_path} does not fit into the memory of {place}; try --dtype bfloat16, a smaller model, or a "
            "server with several GPUs (--endpoint)."
        ) from error
    _complete(processor, model.config)
    return model, processor


def _download(name: str) -> Path:
    if name.count("/") > 1 or name[:1] in (".", "/", "~"):
        raise UsageError(f"There is no model folder {name!r}; give a folder or a hub name.")
    return download_from_hub(name, "model", FILES)


def _load(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    _check_type(folder)
    try:
        config = AutoConfig.from_pretrained(folder, **local)
        processor = AutoProcessor.from_pretrained(folder, **local)
        kind: Any = AutoModelForImageTextToText
        model, report = kind.from_pretrained(
            folder, config=config, use_safetensors=True, dtype=dtype, output_loading_info=True, **local
        )
    except ImportError as error:
        raise UsageError(
            f"{folder} needs a package that is not here ({first_line(error)}); use another model, or a server that "
            "has it with --endpoint."
        ) from error
    except Exception as error:  # transformers raises whatever its parsers meet in a broken folder
        raise FileError(f"{folder} is not a whole vision-language model: {first_line(error)}") from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise UsageError(f"{folder} has no processor of images and text; is it a vision-language model?")
    lacking = sorted(report["missing_keys"])
    if lacking:  # transformers would fill them with random numbers
        raise FileError(f"{folder} is not whole: its weights lack {len(lacking)} tensors ({lacking[0]}, …).")
    return model, processor


def _check_type(folder: Path) -> None:
    config = read_json(folder / "config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind == "share4v" or (
        isinstance(config, dict) and "LlavaLlamaForCausalLM" in (config.get("architectures") or ())
    ):
        raise UsageError(
            f"{folder} holds weights of the type {kind!r}, which transformers does not load; use {SHARE4V}."
        )


def _complete(processor: Any, config: Any) -> None:
    """What older folders leave out: how many tokens an image takes, and how shorter texts are padded."""
    vision = getattr(config, "vision_config", None)
    if getattr(processor, "patch_size", 0) is None and vision is not None:
        processor.patch_size = vision.patch_size
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        processor.num_additional_image_tokens = int(vision.model_type.startswith("clip"))
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
