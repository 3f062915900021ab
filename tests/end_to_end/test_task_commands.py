"""Every task that draws, by command: trained, resumed, measured, asked, and asked wrongly."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence
from processes import run_alone_and_as_two

from tavq.model_folder import read_config, write_config
from tavq.tasks.animation import LAST_MILLISECONDS, MILLISECONDS

Tavq = Callable[..., Any]

SMALL = "--task.layers 1 --task.heads 2 --task.width 16 --train.steps 4 --train.batch 4 --train.log_every 1 "
SMALL += "--train.checkpoint_every 2 --train.sample_every 4"
TASKS = ("unconditional", "completion", "text-to-image", "semantic")


@pytest.fixture(scope="module")
def place(tavq: Tavq, tmp_path_factory: pytest.TempPathFactory, small: list[str]) -> Path:
    """Scenes with their text store, a tokenizer of them and one of their maps, and a run of every task."""
    place = tmp_path_factory.mktemp("tasks")
    data = place / "data"
    commands: list[tuple[Any, ...]] = [
        ("data", "scenes", data, "--images", 20, "--size", 32),
        ("text", data),
        ("train", "vqgan-tiny", "--data", data, "--out", place / "images", *small),
        ("train", "vqgan-tiny", "--data", data, "--out", place / "maps", *small, "--data.images", "segmentation"),
        ("train", "ta-vqgan-tiny", "--data", data, "--out", place / "aligned", *small, "--model.align.iterations", 5),
    ]
    for task in TASKS:
        more = ("--segmentation-tokenizer", place / "maps") if task == "semantic" else ()
        commands.append(train(place, task, *more))
    for command in commands:
        done = tavq(*command)
        assert done.code == 0, done.err
    aligned = read_config(place / "aligned/model")
    encoder = {**aligned["text"]["encoder"], "name": "other", "sha256": "0" * 64}
    for name, changes in (("larger", {"size": 48}), ("stranger", {"text": {**aligned["text"], "encoder": encoder}})):
        shutil.copytree(place / "aligned/model", place / name)
        write_config(place / name, aligned | changes)
    for name in ("swapped", "headless"):
        shutil.copytree(place / "unconditional/model", place / name / "model")
        shutil.rmtree(place / name / "model/tokenizer")
    shutil.copytree(place / "maps/model", place / "swapped/model/tokenizer")
    return place


def train(place: Path, task: str, *more: Any, out: Path | None = None) -> tuple[Any, ...]:
    return (
        *("task", "train", f"{task}-tiny", "--tokenizer", place / "images", "--data", place / "data"),
        *("--out", out or place / task, *SMALL.split(), *more),
    )


def first(folder: Path) -> Path:
    return min(folder.iterdir())


def images(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}


@pytest.mark.parametrize("task", TASKS)
def test_a_resumed_run_is_bit_for_bit_the_same(task: str, tavq: Tavq, place: Path) -> None:
    weights = (place / task / "model/model.safetensors").read_bytes()
    shutil.rmtree(place / task / "checkpoints/00000004")
    more = ("--segmentation-tokenizer", place / "maps") if task == "semantic" else ()
    done = tavq(*train(place, task, *more, "--resume"))
    assert done.code == 0, done.err
    assert (place / task / "model/model.safetensors").read_bytes() == weights
    steps = [json.loads(line)["step"] for line in (place / task / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("task", "asked", "count"),
    [
        ("unconditional", (), 3),
        ("completion", ("--steps", 2), 3),
        ("text-to-image", ("--prompt", "A red barn.", "--prompt", "A blue car.", "--steps", 3), 6),
        ("semantic", ("--segmentation", "MAP"), 3),
    ],
)
def test_a_seed_generates_the_same_images(
    task: str, asked: tuple[Any, ...], count: int, tavq: Tavq, place: Path, tmp_path: Path
) -> None:
    given = [first(place / "data/segmentation") if part == "MAP" else part for part in asked]
    drawn = []
    for out, seed in (("a", 1), ("again", 1), ("other", 2)):
        done = tavq("generate", place / task, "--count", 3, *given, "--seed", seed, "--out", tmp_path / out)
        assert done.code == 0, done.err
        drawn.append(images(tmp_path / out))
    assert len(drawn[0]) == count + 1
    assert {image.shape for name, image in drawn[0].items() if name != "grid"} == {(32, 32, 3)}
    assert all(np.array_equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    assert not np.array_equal(drawn[0]["grid"], drawn[2]["grid"])
    if count == 6:
        assert sorted(drawn[0]) == ["1-1", "1-2", "1-3", "2-1", "2-2", "2-3", "grid"]


def test_maps_in_their_own_colours(tavq: Tavq, place: Path, small: list[str], tmp_path: Path) -> None:
    maps, data = tmp_path / "maps", ("--data", place / "data")
    present = sorted({int(c) for path in (place / "data/segmentation").iterdir() for c in np.unique(Image.open(path))})
    own = {number: [number, 255 - number, 7] for number in present}
    colours = ("--data.images", "segmentation", "--data.colours", json.dumps(own))
    commands: list[tuple[Any, ...]] = [
        ("train", "vqgan-tiny", *data, "--out", maps, *small, *colours),
        train(place, "semantic", "--segmentation-tokenizer", maps, out=tmp_path / "run"),
        ("task", "evaluate", tmp_path / "run", *data),
    ]
    for command in commands:
        done = tavq(*command)
        assert done.code == 0, done.err
    for config in (maps / "model/config.json", tmp_path / "run/model/segmentation_tokenizer/config.json"):
        assert json.loads(config.read_text())["colours"] == {str(number): colour for number, colour in own.items()}
    unnamed = tmp_path / "unnamed.png"
    Image.new("L", (32, 32), 99).save(unnamed)
    done = tavq("generate", tmp_path / "run", "--segmentation", unnamed)
    assert done.code == 1
    assert re.search(r"unnamed\.png: data\.colours has no colour for class 99", done.err)
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_measured(task: str, tavq: Tavq, place: Path) -> None:
    done = tavq("task", "evaluate", place / task, "--data", place / "data", "--json", place / f"{task}.json")
    assert done.code == 0, done.err
    found = json.loads((place / f"{task}.json").read_text())
    assert found == json.loads((place / task / "evaluation.json").read_text())
    assert found["images"] == 2
    metrics = found["metrics"]
    assert metrics["codes/fd_scenes"]["value"] is not None
    assert any(key.startswith("loss/") and metric["value"] > 0 for key, metric in metrics.items())
    assert ("completed/centre/psnr" in metrics) == (task == "completion")
    assert ("completed/bottom/psnr" in metrics) == (task == "unconditional")
    assert ("nearest/completed/bottom/fd_scenes" in metrics) == (task == "unconditional")
    assert ("completed/right/fd_scenes" in metrics) == (task == "completion")
    assert found["training_images"] == 16
    assert metrics["untrained/fd_scenes"]["value"] is not None
    assert ("nearest/fd_scenes" in metrics) == (task in ("text-to-image", "semantic"))
    assert ("data_copying_scenes" in metrics) == (task in ("unconditional", "completion"))
    ours = {f"completed/centre/{name}" for name in ("psnr", "ssim")}
    theirs = {"nearest/completed/centre/distance_scenes", "continued/completed/centre/psnr"}
    with_interval = {key for key, metric in metrics.items() if metric["interval"] is not None}
    assert (ours | theirs <= with_interval) == (task == "completion")


def test_two_processes_measure_what_one_does(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    """A short last batch is mixed with the images before it, which another process has."""
    asked = ("--tokenizer", place / "images", "--data", place / "data", "--out", place / "vqa", "--train.steps", 1)
    assert tavq("task", "train", "vqa-tiny", *asked).code == 0
    run_alone_and_as_two(Path(__file__).with_name("one_task_evaluation.py"), tmp_path, place)
    for task in ("text-to-image", "unconditional", "vqa"):
        one, *two = (json.loads((tmp_path / f"{task}-{name}.json").read_text()) for name in ("1-0", "2-0", "2-1"))
        for found in two:
            assert list(found) == list(one)
            for name, metric in one.items():
                if "fd_" in name:  # sums of features have another order
                    assert found[name]["value"] == pytest.approx(metric["value"], rel=1e-9, abs=1e-9), name
                else:
                    assert found[name] == metric, name


def test_generated_images_are_ranked_against_their_texts(tavq: Tavq, place: Path) -> None:
    asked = ("task", "evaluate", place / "text-to-image", "--data", place / "data", "--aligned", place / "aligned")
    done = tavq(*asked, "--json", place / "faithful.json")
    assert done.code == 0, done.err
    found = json.loads((place / "faithful.json").read_text())
    metrics = found["metrics"]
    for prefix in ("images/", "", "nearest/", "untrained/", "codes/", "shuffled/"):
        first, fifth = (metrics[f"{prefix}text_recall@{k}"] for k in (1, 5))
        assert 0 <= first["value"] <= fifth["value"] == 1 or prefix != "images/"
        assert first["interval"] is not None
    assert found["aligned"] == json.loads((place / "aligned/model/config.json").read_text())["sha256"]
    assert "text_recall@1" in done.out


def test_completion_keeps_the_visible_part(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    image = first(place / "data/images")
    original = np.asarray(Image.open(image).convert("RGB"))
    for task, mask in (("completion", "0,0,16,32"), ("unconditional", "bottom")):
        done = tavq("complete", place / task, image, "--mask", mask, "--count", 2, "--out", tmp_path / task)
        assert done.code == 0, done.err
        found = images(tmp_path / task)
        known = (slice(None), slice(16, None)) if task == "completion" else (slice(None, 16),)
        assert np.array_equal(found["original"], original)
        for name in ("completed-1", "completed-2"):
            assert np.array_equal(found[name][known], original[known])
            assert not np.array_equal(found[name], original)


@pytest.mark.parametrize(
    ("task", "asked", "frames"),
    [
        ("unconditional", ("--count", 18), 9),  # 8 rows of positions, in two batches
        ("completion", ("--count", 2, "--steps", 4), 5),
        ("completion", ("IMAGE", "--mask", "right", "--count", 2, "--steps", 4), 5),
        ("text-to-image", ("--count", 1, "--prompt", "A red barn."), 32),
    ],
)
def test_an_animation_ends_with_the_grid(
    task: str, asked: tuple[Any, ...], frames: int, tavq: Tavq, place: Path, tmp_path: Path
) -> None:
    command = "complete" if "IMAGE" in asked else "generate"
    given = [first(place / "data/images") if part == "IMAGE" else part for part in asked]
    done = tavq(command, place / task, *given, "--animate", "--out", tmp_path / "a")
    assert done.code == 0, done.err
    plain = tavq(command, place / task, *given, "--out", tmp_path / "b")
    assert plain.code == 0
    assert not (tmp_path / "b/grid.gif").exists()
    grid = np.asarray(Image.open(tmp_path / "a/grid.png"))
    assert np.array_equal(grid, np.asarray(Image.open(tmp_path / "b/grid.png")))
    with Image.open(tmp_path / "a/grid.gif") as image:
        pages, shown = [], 0
        for page in ImageSequence.Iterator(image):  # those alike lie in the file as one
            pages.append(np.asarray(page.convert("RGB")).astype(int))
            shown += page.info["duration"]
    assert shown == (frames - 1) * MILLISECONDS + LAST_MILLISECONDS
    assert np.abs(pages[-1] - grid).mean() < 6  # 256 colours
    hidden = (np.abs(pages[0] - 128) < 4).all(2).mean()
    assert hidden > (0.3 if command == "complete" else 0.75)


@pytest.mark.parametrize(
    ("task", "asked", "shape"),
    [
        ("unconditional", ("--height", 48), (48, 32)),
        ("completion", ("--height", 40, "--width", 64, "--steps", 2, "--animate"), (40, 64)),
        ("semantic", ("--segmentation", "MAP", "--width", 36), (32, 36)),
        ("text-to-image", ("--prompt", "A red barn.", "--width", 32), (32, 32)),
    ],
)
def test_larger_images(
    task: str, asked: tuple[Any, ...], shape: tuple[int, int], tavq: Tavq, place: Path, tmp_path: Path
) -> None:
    given = [first(place / "data/segmentation") if part == "MAP" else part for part in asked]
    done = tavq("generate", place / task, "--count", 2, *given, "--out", tmp_path / "a")
    assert done.code == 0, done.err
    found = images(tmp_path / "a")
    assert found["1"].shape == found["2"].shape == (*shape, 3)
    assert not np.array_equal(found["1"], found["2"])
    assert (tmp_path / "a/grid.gif").is_file() == ("--animate" in asked)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("generate text-to-image", r"generates from text; add --prompt"),
        ("generate text-to-image --prompt=", r"Caption 1 is empty"),
        ("generate unconditional --prompt barn", r"'prior' of this model does not read text; leave out --prompt"),
        ("generate semantic", r"generates from segmentation; add --segmentation"),
        ("generate semantic --segmentation nowhere.png", r"nowhere\.png"),
        ("generate images", r"holds a tokenizer; train a task on it first: tavq task train"),
        ("generate nowhere", r"There is no model at 'nowhere'"),
        ("generate unconditional --steps 3", r"'prior' does not use --steps; leave it out"),
        ("generate completion --guidance 3", r"'masked' does not use --guidance; leave it out"),
        ("generate unconditional --out data", r"data holds .*, which tavq did not generate and would delete"),
        ("generate unconditional --out aligned", r"aligned holds .*, which tavq did not generate and would delete"),
        (
            "generate swapped",
            r"swapped/model/tokenizer .* is not the tokenizer .* put that one back",
        ),
        ("generate headless", r"headless/model lacks tokenizer/, the tokenizer that the task was trained on"),
        ("task train unconditional-tiny --tokenizer completion --data data --out x", r"holds a task, not a tokenizer"),
        ("generate unconditional --top-p 2", r"--top-p"),
        ("generate unconditional --height 34", r"--height 34 must be a multiple of 4"),
        ("generate unconditional --width 28", r"--width 28 must be at least 32"),
        (
            "generate completion --height 4000 --width 4000",
            r"1,000 x 1,000 positions of 1 is too large",
        ),
        ("generate unconditional --height 0", r"--height"),
        (
            "generate text-to-image --prompt barn --width 64",
            r"only generates images of 8 x 8 positions",
        ),
        ("complete unconditional IMAGE --height 64", r"Unknown option: .*--height"),
        ("complete unconditional IMAGE --mask left", r"can only complete the end of an image"),
        ("complete completion IMAGE --mask middle", r"Unknown mask 'middle'"),
        ("complete text-to-image IMAGE", r"cannot complete images"),
        ("complete completion nowhere.png", r"nowhere\.png"),
        (
            "task train drawing --tokenizer images --data data --out x",
            r"Unknown recipe 'drawing'; known: .*completion",
        ),
        (
            "task train semantic-tiny --tokenizer images --data data --out x",
            r"needs a tokenizer of segmentation maps",
        ),
        ("task train unconditional-tiny --tokenizer nowhere --data data --out x", r"There is no model at 'nowhere'"),
        ("task evaluate unconditional --data nowhere", r"There is no folder nowhere"),
        (
            "task evaluate unconditional --data data --aligned aligned",
            r"'prior' of this model does not generate from text; remove --aligned",
        ),
        ("task evaluate text-to-image --data data --aligned images", r"images has no aligner"),
        ("task evaluate text-to-image --data data --aligned larger", r"images of 48 px and this task generates 32 px"),
        (
            "task evaluate text-to-image --data data --aligned stranger",
            r"by the encoder 'other' .* was made by 'minilm'",
        ),
    ],
)
def test_a_wrong_call_is_one_line(
    command: str, message: str, tavq: Tavq, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    image = str(first(place / "data/images").relative_to(place))
    done = tavq(*[image if part == "IMAGE" else part for part in command.split()])
    assert done.code in (1, 2)
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    assert re.search(message, lines[0]), done.err
    assert not (place / "x").exists() or not (place / "x/recipe.yaml").exists()


def test_a_temperature_near_zero_takes_the_most_likely_tokens(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    for task, more in (("unconditional", ()), ("text-to-image", ("--prompt", "A red barn.", "--steps", 2))):
        done = tavq("generate", place / task, "--count", 1, *more, "--temperature", "1e-40", "--out", tmp_path / task)
        assert done.code == 0, done.err


def test_a_map_of_other_proportions_is_reported(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((90, 37), np.uint8)).save(tmp_path / "map.png")
    done = tavq(
        "generate", place / "semantic", "--count", 1, "--segmentation", tmp_path / "map.png", "--out", tmp_path / "a"
    )
    assert done.code == 0, done.err
    assert "is 37 x 90 pixels; its centre is cropped and resized to 32 x 32" in done.err


def test_generated_images_replace_older_ones(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    for count in (3, 2):
        done = tavq("generate", place / "unconditional", "--count", count, "--out", tmp_path / "a")
        assert done.code == 0, done.err
    assert sorted(images(tmp_path / "a")) == ["1", "2", "grid"]
