"""How fast this machine is at what tavq spends its time on: products of matrices, encoding and decoding images."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tavq import recipes
from tavq.core.cores import count_cores
from tavq.core.devices import default_device
from tavq.core.parallel import one_thread
from tavq.data.images import load_image
from tavq.data.transforms import crop_and_resize
from tavq.doctor.finding import Finding
from tavq.tokenizer import Tokenizer

RECIPE = "vqgan-tiny"
BATCH = 16
SECONDS = 1.0
"""How long each measurement repeats what it measures."""

SIDES = {"cpu": 768}
LARGE_SIDE = 8192
"""Rows and columns of the matrices that are multiplied: on a processor some 10 ms, on a GPU enough to fill it."""

PHOTOGRAPH = (480, 640)
DECODED = 256


def check_products() -> Iterator[Finding]:
    """Operations a second of products of matrices in fp32 and bf16."""
    device = default_device()
    side = SIDES.get(device.type, LARGE_SIDE)
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        matrix = torch.randn(side, side, device=device).to(dtype)
        rates[name] = 2 * side**3 * measure_rate(lambda matrix=matrix: matrix @ matrix, device)  # type: ignore[misc]
    yield judge_products(str(device), rates["fp32"], rates["bf16"])


def judge_products(device: str, fp32: float, bf16: float) -> Finding:
    """Which precision is the faster one on a device.

    Args:
        device: its name.
        fp32: operations a second.
        bf16: operations a second.
    """
    values = {"device": device, "fp32_gflops": round(fp32 / 1e9, 1), "bf16_gflops": round(bf16 / 1e9, 1)}
    text = f"{fp32 / 1e9:,.0f} GFLOP/s in fp32, {bf16 / 1e9:,.0f} in bf16 ({device})"
    if bf16 < fp32:
        advice = "bf16 is slower than fp32 here: leave train.precision at fp32."
        return Finding("fast", "products of matrices", text, values, "odd", advice)
    return Finding("fast", "products of matrices", text, values)


def check_images() -> Iterator[Finding]:
    """Images a second that one process decodes, and that a tiny tokenizer encodes."""
    decoded, encoded = measure_decoding(), measure_encoding()
    about = f"{PHOTOGRAPH[1]} × {PHOTOGRAPH[0]} JPEG to {DECODED} px, one process"
    yield Finding("fast", "decoding", f"{decoded:,.0f} images/s ({about})", {"images_per_second": round(decoded, 1)})
    size = recipes.load(RECIPE).data.size
    text = f"{encoded:,.0f} images/s ({RECIPE}, {size} px, batch {BATCH})"
    yield Finding("fast", "encoding", text, {"images_per_second": round(encoded, 1), "recipe": RECIPE})
    if torch.get_num_threads() > 1 and default_device().type == "cpu":
        with one_thread():
            alone = measure_encoding()
        yield judge_one_thread(encoded, alone, torch.get_num_threads())
    yield judge_workers(decoded, encoded, count_cores(), default_device().type)


def judge_one_thread(encoded: float, alone: float, threads: int) -> Finding:
    """Whether threads help, which wait for each other where cores are shared.

    Args:
        encoded: images a second with all threads.
        alone: images a second with one thread.
        threads: their number.
    """
    values = {"images_per_second": round(alone, 1), "threads": threads}
    text = f"{alone:,.0f} images/s, against {encoded:,.0f} with {threads}"
    if alone > encoded:
        advice = f"One thread is faster than {threads} here: set OMP_NUM_THREADS=1."
        return Finding("fast", "encoding, one thread", text, values, "odd", advice)
    return Finding("fast", "encoding, one thread", text, values)


def judge_workers(decoded: float, encoded: float, cores: float, device: str) -> Finding:
    """How many workers keep a device busy, as far as the tiny tokenizer shows it.

    Args:
        decoded: images a second that one process decodes.
        encoded: images a second that the device encodes.
        cores: that workers can use.
        device: cpu, cuda or mps.
    """
    workers = math.ceil(encoded / decoded)
    if device == "cpu":
        return Finding("fast", "workers", "data.workers 0: decoding and training share the cores", {"workers": 0})
    text = f"data.workers {min(workers, int(cores))} to keep the GPU busy"
    if workers > cores:
        advice = (
            f"Decoding for a model this small needs {workers} cores, and there are {cores:g}: store smaller images."
        )
        return Finding("fast", "workers", text, {"workers": int(cores)}, "odd", advice)
    return Finding("fast", "workers", text, {"workers": workers})


def measure_decoding() -> float:
    """Photographs a second that one process loads, crops and resizes."""
    ramp = np.linspace(0, 255, PHOTOGRAPH[1])[None, :, None] * np.ones((PHOTOGRAPH[0], 1, 3))
    noisy = ramp + np.random.default_rng(0).normal(0, 20, ramp.shape)  # as many coefficients as a photograph has
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photograph.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        return measure_rate(lambda: crop_and_resize(load_image(path), DECODED), torch.device("cpu"))


@torch.no_grad()
def measure_encoding() -> float:
    """Images a second that the tokenizer of a tiny recipe, with random weights, encodes."""
    recipe, device = recipes.load(RECIPE), default_device()
    with torch.random.fork_rng(devices=[]):
        tokenizer = Tokenizer(recipe.model).to(device).eval()
        images = torch.rand(BATCH, 3, recipe.data.size, recipe.data.size, device=device) * 2 - 1
    return BATCH * measure_rate(lambda: tokenizer.encode(images), device)


def measure_rate(call: Callable[[], object], device: torch.device) -> float:
    """How often a second a call is done, after one that is not counted."""
    call()
    _wait(device)
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        call()
        _wait(device)
        calls += 1
    return calls / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
