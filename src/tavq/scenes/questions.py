"""Questions of COCO-QA's four types with one-word answers, each true and open to one answer only."""

import random
from collections.abc import Iterator

from tavq.scenes.facts import Fact, Facts
from tavq.scenes.nouns import NUMBERS

PLAIN = ("plain", "brick", "wooden")
ASKED = {
    "animal": "animal",
    "vehicle": "vehicle",
    "building": "building",
    "toy": "toy",
    "furniture": "piece of furniture",
}


def ask(facts: Facts, rng: random.Random, most: int = 8) -> list[dict[str, str]]:
    """Up to `most` questions, no more than three of a type."""
    everything: list[dict[str, str]] = []
    for kind, made in (("object", _objects), ("number", _numbers), ("color", _colours), ("location", _locations)):
        found = [{"question": question, "answer": answer, "type": kind} for question, answer in made(facts)]
        everything += rng.sample(found, min(3, len(found)))
    return [everything[place] for place in sorted(rng.sample(range(len(everything)), min(most, len(everything))))]


def _objects(facts: Facts) -> Iterator[tuple[str, str]]:
    for group, name in ASKED.items():
        members = [fact for fact in facts.seen if fact.kind.group == group]
        hidden = any(fact.kind.group == group for fact in facts.seen if fact.thing.kind in facts.doubtful)
        if len({fact.thing.kind for fact in members}) == 1 and not hidden and not facts.doubtful:
            yield f"what {name} is in the picture", members[0].thing.kind
    for base in facts.seen:
        carried = [fact for fact in facts.seen if fact.thing.support == base.place]
        if len(carried) == 1 and facts.counts[base.thing.kind] == 1 and not facts.doubtful:
            yield f"what is on the {base.thing.kind}", carried[0].thing.kind
    above = [fact for fact in facts.seen if fact.thing.zone == "sky"]
    if above and len({fact.thing.kind for fact in above}) == 1 and not facts.doubtful:
        yield "what is up in the sky", above[0].thing.kind


def _numbers(facts: Facts) -> Iterator[tuple[str, str]]:
    for kind, count in facts.counts.items():
        many = facts.of(kind)[0].kind.many
        yield f"how many {many} are there in the picture", NUMBERS[count]


def _colours(facts: Facts) -> Iterator[tuple[str, str]]:
    for kind, count in facts.counts.items():
        fact = facts.of(kind)[0]
        if count == 1 and fact.thing.pattern in PLAIN:
            part = fact.kind.coloured
            yield f"what is the color of the {part + ' of the ' if part else ''}{kind}", fact.thing.colour
        for part, colour in fact.thing.parts if count == 1 else ():
            if part in ("roof", "door", "scarf", "sail", "pot", "trousers"):
                verb = "are" if part == "trousers" else "is"
                yield f"what color {verb} the {part} of the {kind}", colour


def _locations(facts: Facts) -> Iterator[tuple[str, str]]:
    for kind, count in facts.counts.items():
        fact = facts.of(kind)[0]
        answer = _where(facts, fact)
        if count == 1 and answer:
            yield f"where is the {kind}", answer


def _where(facts: Facts, fact: Fact) -> str:
    if fact.thing.zone == "on":
        base = facts.by_place(fact.thing.support)
        return base.thing.kind if base is not None else ""
    if fact.thing.zone in ("sky", "wall", "water"):
        return fact.thing.zone
    return facts.scene.place.place
