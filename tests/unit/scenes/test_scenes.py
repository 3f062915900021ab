"""The embedded data set: the same bytes for the same seed, and texts that are true of the pixels."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset, check_dataset
from tavq.scenes import CLASSES, KINDS, LABELS, Rendering, Scene, describe, label_vector, render, sample_scene
from tavq.scenes.colours import nearest_colour
from tavq.scenes.nouns import NUMBERS
from tavq.scenes.writer import choose_split, write_scenes

SIZE = 96
SEED = 3
MANY = {kind.many: name for name, kind in KINDS.items()}


def seen(index: int) -> tuple[Scene, Rendering, dict[str, Any]]:
    scene = sample_scene(SEED, index)
    rendering = render(scene, SIZE)
    return scene, rendering, describe(scene, rendering)


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Scene, Rendering, dict[str, Any]]]:
    return [seen(index) for index in range(120)]


def middles(rendering: Rendering) -> dict[int, float]:
    """Middle of each thing's visible box, found in the pixels alone."""
    found = {}
    for place in np.unique(rendering.instances[rendering.instances >= 0]):
        columns = np.nonzero(rendering.instances == place)[1]
        found[int(place)] = (columns.min() + columns.max() + 1) / 2 / SIZE
    return found


def by_kind(scene: Scene, record: dict[str, Any]) -> Counter[str]:
    return Counter(item["name"] for item in record["objects"])


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_images_and_workers(tmp_path: Path) -> None:
    write_scenes(tmp_path / "a", 35, 32, 1)
    write_scenes(tmp_path / "b", 35, 32, 1, workers=2)
    write_scenes(tmp_path / "few", 5, 32, 1)
    write_scenes(tmp_path / "other", 5, 32, 2)
    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(names) == 2 * 35 + 2
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    lines = (tmp_path / "a" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["split"] for line in lines] == [choose_split(index) for index in range(35)]
    assert (tmp_path / "few" / "metadata.jsonl").read_text().splitlines() == lines[:5]
    assert (tmp_path / "other" / "metadata.jsonl").read_text().splitlines()[0] != lines[0]


def test_is_a_folder_data_set_without_faults_and_with_every_split(tmp_path: Path) -> None:
    write_scenes(tmp_path / "d", 20, 48, 5)
    assert check_dataset(tmp_path / "d") == []
    assert [len(FolderDataset(tmp_path / "d", split)) for split in ("train", "val", "test")] == [16, 2, 2]
    record = FolderDataset(tmp_path / "d", "test")[0]
    assert record.long_text
    assert record.captions
    assert record.objects
    assert record.questions
    assert record.segmentation


@pytest.mark.parametrize(("images", "size"), [(0, 64), (-1, 64), (3, 15), (3, 2049)])
def test_numbers_out_of_range_are_refused(tmp_path: Path, images: int, size: int) -> None:
    with pytest.raises(UsageError):
        write_scenes(tmp_path / "d", images, size, 0)


def test_existing_files_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="already exists and is not empty"):
        write_scenes(tmp_path, 1, 32, 0)


def test_shows_two_dozen_kinds_and_every_label_vector_marks_what_is_there() -> None:
    kinds: set[str] = set()
    for index in range(300):
        scene = sample_scene(SEED, index)
        own = {thing.kind for thing in scene.things}
        marked = {label for label, on in zip(LABELS, label_vector(scene), strict=True) if on}
        assert {label.removeprefix("kind:") for label in marked if label.startswith("kind:")} == own
        kinds |= own
    assert len(kinds) >= 24


def test_a_named_colour_is_the_colour_that_is_seen_by_day(
    scenes: list[tuple[Scene, Rendering, dict[str, Any]]],
) -> None:
    right = total = 0
    for scene, rendering, _ in scenes:
        if scene.light != "day" or scene.weather == "fog":
            continue
        for place, thing in enumerate(scene.things):
            pixels = rendering.image[rendering.body == place]
            if thing.pattern == "plain" and len(pixels) >= 40:
                total += 1
                right += nearest_colour(tuple(np.median(pixels.astype(float), axis=0))) == thing.colour
    assert total > 60
    assert right / total >= 0.97


def test_boxes_are_tight_around_visible_pixels(scenes: list[tuple[Scene, Rendering, dict[str, Any]]]) -> None:
    for scene, rendering, record in scenes:
        boxes = []
        for place, thing in enumerate(scene.things):
            ys, xs = np.nonzero(rendering.instances == place)
            if len(xs):
                boxes.append((thing.kind, [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]))
        for item in record["objects"]:
            assert (item["name"], item["box"]) in boxes


def test_segmentation_names_the_thing_on_top(scenes: list[tuple[Scene, Rendering, dict[str, Any]]]) -> None:
    for scene, rendering, _ in scenes[:40]:
        assert rendering.segmentation.max() < len(CLASSES)
        for place, thing in enumerate(scene.things):
            shown = rendering.segmentation[rendering.instances == place]
            assert set(np.unique(shown)) <= {CLASSES.index(thing.kind)}


def test_long_texts_have_five_to_ten_sentences_and_do_not_repeat_themselves(
    scenes: list[tuple[Scene, Rendering, dict[str, Any]]],
) -> None:
    every: list[str] = []
    for _, _, record in scenes:
        sentences = re.split(r"(?<=\.) ", record["long_text"])
        assert 5 <= len(sentences) <= 10, record["long_text"]
        assert len(set(sentences)) == len(sentences), record["long_text"]
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  |\.\.|\bNone\b", record["long_text"]), record["long_text"]
        assert 1 <= len(record["captions"]) <= 3
        assert all(len(caption.split()) >= 3 for caption in record["captions"])
        every += sentences
    assert len(set(every)) / len(every) > 0.4


def test_left_and_right_in_texts_hold_in_the_pixels(scenes: list[tuple[Scene, Rendering, dict[str, Any]]]) -> None:
    checked = 0
    for scene, rendering, record in scenes:
        middle = {scene.things[place].kind: x for place, x in middles(rendering).items()}
        for a, side, b in re.findall(r"[Tt]he (\w+) is to the (left|right) of the (\w+)", record["long_text"]):
            assert (middle[a] < middle[b]) == (side == "left"), record["long_text"]
            checked += 1
    assert checked > 15


def test_counts_in_texts_and_answers_hold(scenes: list[tuple[Scene, Rendering, dict[str, Any]]]) -> None:
    checked = 0
    for scene, _, record in scenes:
        counts = by_kind(scene, record)
        claims = re.findall(
            r"(?:In all there are )?(\w+) (\w+) can be seen|In all there are (\w+) (\w+)", record["long_text"]
        )
        for a, b, c, d in claims:
            assert NUMBERS.index((a or c).lower()) == counts[MANY[b or d]]
            checked += 1
        for question in record["questions"]:
            assert question["type"] in ("object", "number", "color", "location")
            assert re.fullmatch(r"[a-z]+", question["answer"])
            if question["type"] == "number":
                many = question["question"].split()[2]
                assert NUMBERS.index(question["answer"]) == counts[MANY[many]]
                checked += 1
    assert checked > 100


def test_questions_of_all_four_types_are_asked(scenes: list[tuple[Scene, Rendering, dict[str, Any]]]) -> None:
    types = Counter(question["type"] for _, _, record in scenes for question in record["questions"])
    assert min(types[name] for name in ("object", "number", "color", "location")) > 60


def holds(phrase: str, scene: Scene, middle: dict[int, float], place: int) -> bool:
    """Reads a referring phrase without the code that wrote it, and says whether it fits a thing."""
    thing = scene.things[place]
    same = sorted((x, other) for other, x in middle.items() if scene.things[other].kind == thing.kind)
    x = middle[place]
    words = phrase.split()
    if thing.kind not in words:
        return False
    if "leftmost" in words:
        return same[0][1] == place
    if "rightmost" in words:
        return same[-1][1] == place
    if "between" in words:
        return [other for _, other in same].index(place) == 1
    head = phrase.split(" on the ")[0].split(" in the middle")[0]
    colours = [word for word in head.split() if word in ("red", "orange", "yellow", "green", "blue", "purple", "pink",
                                                         "brown", "black", "white", "gray")]  # fmt: skip
    if colours and colours[0] != thing.colour:
        return False
    where = re.search(r"on the (\w+)$", phrase)
    if where and where[1] in ("left", "right"):
        return x < 0.4 if where[1] == "left" else x > 0.6
    if phrase.endswith("in the middle"):
        return 0.34 < x < 0.66
    if where:
        return thing.support >= 0 and scene.things[thing.support].kind == where[1]
    return True


def test_a_referring_phrase_fits_one_thing_only(scenes: list[tuple[Scene, Rendering, dict[str, Any]]]) -> None:
    total = 0
    for scene, rendering, record in scenes:
        middle = middles(rendering)
        boxes = {}
        for place in middle:
            ys, xs = np.nonzero(rendering.instances == place)
            boxes[int(xs.min()), int(ys.min()), scene.things[place].kind] = place
        for item in record["objects"]:
            own = boxes[item["box"][0], item["box"][1], item["name"]]
            for phrase in item["phrases"]:
                total += 1
                if "striped" in phrase or "spotted" in phrase or "checkered" in phrase:
                    continue  # patterns are not read here
                fits = [place for place in middle if holds(phrase, scene, middle, place)]
                assert fits == [own], (phrase, scene.index)
    assert total > 400


def test_most_things_can_be_referred_to(scenes: list[tuple[Scene, Rendering, dict[str, Any]]]) -> None:
    objects = [item for _, _, record in scenes for item in record["objects"]]
    assert sum(bool(item["phrases"]) for item in objects) / len(objects) > 0.85


def test_texts_do_not_depend_on_the_image_size() -> None:
    scene = sample_scene(SEED, 7)
    small, large = describe(scene, render(scene, 48)), describe(scene, render(scene, 160))
    for key in ("captions", "long_text", "questions"):
        assert small[key] == large[key]
    assert [item["phrases"] for item in small["objects"]] == [item["phrases"] for item in large["objects"]]
