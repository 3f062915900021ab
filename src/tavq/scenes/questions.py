"""Questions of COCO-QA's four types, each with exactly one true one-word answer."""

import random
from collections.abc import Iterator

from tavq.scenes.nouns import NUMBERS
from tavq.scenes.visibility import SceneView, VisibleThing

PLAIN = ("plain", "brick", "wooden")
ASKED = {
    "animal": "animal",
    "vehicle": "vehicle",
    "building": "building",
    "toy": "toy",
    "furniture": "piece of furniture",
}


def make_questions(view: SceneView, rng: random.Random, max_count: int = 8) -> list[dict[str, str]]:
    """Up to `max_count` questions, at most three of each type."""
    questions: list[dict[str, str]] = []
    for kind, generate in (("object", _objects), ("number", _numbers), ("color", _colours), ("location", _locations)):
        found = [{"question": question, "answer": answer, "type": kind} for question, answer in generate(view)]
        questions += rng.sample(found, min(3, len(found)))
    chosen = rng.sample(range(len(questions)), min(max_count, len(questions)))
    return [questions[index] for index in sorted(chosen)]


def _objects(view: SceneView) -> Iterator[tuple[str, str]]:
    for group, name in ASKED.items():
        members = [item for item in view.items if item.kind.group == group]
        hidden = any(item.kind.group == group for item in view.items if item.thing.kind in view.doubtful)
        if len({item.thing.kind for item in members}) == 1 and not hidden and not view.doubtful:
            yield f"what {name} is in the picture", members[0].thing.kind
    for base in view.items:
        carried = [item for item in view.items if item.thing.support == base.index]
        if len(carried) == 1 and view.counts[base.thing.kind] == 1 and not view.doubtful:
            yield f"what is on the {base.thing.kind}", carried[0].thing.kind
    above = [item for item in view.items if item.thing.zone == "sky"]
    if above and len({item.thing.kind for item in above}) == 1 and not view.doubtful:
        yield "what is up in the sky", above[0].thing.kind


def _numbers(view: SceneView) -> Iterator[tuple[str, str]]:
    for kind, count in view.counts.items():
        many = view.of_kind(kind)[0].kind.many
        yield f"how many {many} are there in the picture", NUMBERS[count]


def _colours(view: SceneView) -> Iterator[tuple[str, str]]:
    for kind, count in view.counts.items():
        item = view.of_kind(kind)[0]
        if count == 1 and item.thing.pattern in PLAIN:
            part = item.kind.coloured
            yield f"what is the color of the {part + ' of the ' if part else ''}{kind}", item.thing.colour
        for part, colour in item.thing.parts if count == 1 else ():
            if part in ("roof", "door", "scarf", "sail", "pot", "trousers"):
                verb = "are" if part == "trousers" else "is"
                yield f"what color {verb} the {part} of the {kind}", colour


def _locations(view: SceneView) -> Iterator[tuple[str, str]]:
    for kind, count in view.counts.items():
        item = view.of_kind(kind)[0]
        answer = _where(view, item)
        if count == 1 and answer:
            yield f"where is the {kind}", answer


def _where(view: SceneView, item: VisibleThing) -> str:
    if item.thing.zone == "on":
        base = view.find(item.thing.support)
        return base.thing.kind if base is not None else ""
    if item.thing.zone in ("sky", "wall", "water"):
        return item.thing.zone
    return view.scene.place.place
