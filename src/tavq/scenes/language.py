"""Short captions and long texts that are true of an image, in varied wording."""

import random
from collections import defaultdict

from tavq.scenes.nouns import (
    NUMBERS,
    definite_name,
    describe_surface,
    details,
    full_name,
    join_words,
    kind_name,
    name_with_look,
    with_article,
)
from tavq.scenes.phrases import APART, has_clear_side
from tavq.scenes.visibility import SceneView, VisibleThing

SENTENCES = (5, 10)
"""Minimum and maximum number of sentences of a long text."""

_FAR = {
    "hills": "rolling hills",
    "mountains": "gray mountains",
    "peaks": "mountains with snow on their peaks",
    "forest": "a dark line of trees",
    "tall forest": "a dense forest",
    "buildings": "a row of city buildings",
    "field": "golden fields",
    "water": "the blue sea",
}
_SKY = {
    "clear": "a clear sky",
    "cloudy": "a cloudy sky",
    "rain": "dark rain clouds",
    "snow": "a pale sky full of snowflakes",
    "fog": "thick fog",
}
_WEATHER = {
    "clear": ("The weather is fine.", "The air is clear.", "There is hardly a cloud in the sky."),
    "cloudy": ("Clouds cover much of the sky.", "The sky is cloudy.", "White clouds drift above."),
    "rain": ("It is raining.", "Rain falls over everything.", "Streaks of rain cross the picture."),
    "snow": ("It is snowing.", "White snowflakes fall everywhere.", "Snow is coming down."),
    "fog": ("Fog makes the distance pale.", "A gray haze lies over the place.", "It is foggy."),
}
_LIGHT = {
    "day": ("It is daytime.", "The scene is lit by daylight."),
    "dawn": ("It is early morning.", "The soft pink light of dawn fills the sky."),
    "sunset": ("The sun is setting.", "The sky glows orange in the evening."),
    "night": ("It is night.", "The sky is dark, for it is night."),
    "lamplight": ("The room is lit by warm lamplight.", "Warm evening light fills the room."),
}
_POSE = {
    "standing": ("stands", "stand"),
    "sitting": ("sits", "sit"),
    "lying": ("lies", "lie"),
    "waving": ("waves", "wave"),
    "flying": ("flies", "fly"),
    "floating": ("floats", "float"),
    "hanging": ("hangs", "hang"),
    "swimming": ("swims", "swim"),
    "sailing": ("sails", "sail"),
}
_GROUND = {
    "grass": "green grass",
    "sand": "yellow sand",
    "dune": "yellow sand",
    "snow": "white snow",
    "pavement": "gray pavement",
}


class TextWriter:
    """Writes about one image; `rng` chooses the wording, and every claim comes from `view`."""

    def __init__(self, view: SceneView, rng: random.Random) -> None:
        self.view, self.rng = view, rng
        self.scene = view.scene
        groups: dict[tuple[str, str], list[VisibleThing]] = defaultdict(list)
        for item in view.items:
            groups[item.thing.kind, describe_surface(item)].append(item)
        self.groups = list(groups.values())

    # --- short ----------------------------------------------------------------------------------------------------

    def captions(self) -> list[str]:
        """One to three short captions."""
        rng, where = self.rng, self.scene.place.where
        groups = sorted(self.groups, key=lambda group: -max(map(_area, group)))
        if not groups:
            return [f"An empty {self.scene.setting}." if self.scene.place.indoor else f"A quiet view {where}."]
        first = self._count_phrase(groups[0])
        found = [f"{first} {where}."]
        if len(groups) > 1:
            second = self._count_phrase(groups[1])
            found.append(rng.choice((f"{first} and {second} {where}.", f"There is {first} near {second} {where}.")))
            if len(groups[0]) > 1:
                found[-1] = f"{first} and {second} {where}."
        if not self.scene.place.indoor:
            found.append(
                f"{first} under {_SKY[self.scene.weather]}{' at night' if self.scene.light == 'night' else ''}."
            )
        rng.shuffle(found)
        return [_sentence(caption) for caption in found]

    def _count_phrase(self, group: list[VisibleThing], rich: bool = False) -> str:
        if len(group) == 1:
            return with_article(full_name(group[0]) if rich else name_with_look(group[0], group[0].thing.colour))
        words = full_name(group[0], True) if rich else name_with_look(group[0], group[0].thing.colour, True)
        return f"{NUMBERS[len(group)]} {words}"

    # --- long -----------------------------------------------------------------------------------------------------

    def long_text(self) -> str:
        """Five to ten sentences on place, weather, light, background and every visible thing."""
        opening, background, extra = self._opening(), self._background(), self._atmosphere()
        things = [sentence for group in self._ordered_groups() for sentence in self._describe_group(group)]
        relations = self._relations()
        self.rng.shuffle(relations)
        counts = self._counts()
        head = [opening, *(background if self.rng.random() < 0.6 else [])]
        tail = [] if len(head) > 1 else background
        body = head + things[: SENTENCES[1] - len(head) - len(tail) - 2] + relations[:1]
        spare = [*relations[1:], *counts, *extra, *self._fill_up()]
        ending = [*tail, *extra[:1]]
        fill = [sentence for sentence in spare if sentence not in ending]
        while fill and len(body) + len(ending) < min(SENTENCES[1], max(SENTENCES[0], len(things) + 4)):
            body.append(fill.pop(0))
        return " ".join(_sentence(sentence) for sentence in [*body, *ending][: SENTENCES[1]])

    def _ordered_groups(self) -> list[list[VisibleThing]]:
        """The groups in a natural order: large ones first, or from left to right."""
        if self.rng.random() < 0.5:
            return sorted(self.groups, key=lambda group: group[0].x)
        return sorted(self.groups, key=lambda group: -max(item.thing.height * item.thing.width for item in group))

    def _opening(self) -> str:
        rng, place = self.rng, self.scene.place
        adjective = f"{rng.choice(place.adjective)} " if place.adjective and rng.random() < 0.6 else ""
        when = {"night": " at night", "dawn": " at dawn", "sunset": " at sunset"}.get(self.scene.light, "")
        if place.name == "mountains":
            return rng.choice(
                (f"this is a view of the mountains{when}", f"the picture was made in the mountains{when}")
            )
        name = {"snowfield": "snowy field", "forest": "forest clearing", "lake": "lake shore"}.get(
            place.name, place.name
        )
        outdoors = "landscape" if place.name != "street" else "city view"
        kind = "room" if place.indoor else outdoors
        options = [
            f"the picture shows {with_article(adjective + name)}{when}",
            f"this is {with_article(adjective + name)}{when}",
            f"we look at {with_article(adjective + name)}{when}",
        ]
        if self.groups:
            options.append(f"this {kind} shows {self._count_phrase(rng.choice(self.groups))} {place.where}{when}")
        return rng.choice(options)

    def _background(self) -> list[str]:
        rng, drop, place = self.rng, self.scene.backdrop, self.scene.place
        if place.indoor:
            return self._room()
        ground = _GROUND.get(drop.ground, drop.ground)
        lines = []
        if drop.far in _FAR:
            far = _FAR[drop.far]
            verb = "stretches" if drop.far in ("forest", "tall forest", "buildings", "water") else "rise"
            verb = "lie" if drop.far == "field" else verb
            lines.append(
                rng.choice((f"in the background {verb} {far}", f"behind it all {verb} {far}", f"far away {verb} {far}"))
            )
        if drop.path:
            lines.append(rng.choice((f"a path winds through the {ground}", f"a sandy path crosses the {ground}")))
        elif drop.ground in _GROUND:
            lines.append(rng.choice((f"the ground is covered with {ground}", f"{ground} fills the foreground")))
        return lines[: rng.choice((1, 2, 2))]

    def _room(self) -> list[str]:
        rng, drop = self.rng, self.scene.backdrop
        paper = {"striped": "striped wallpaper", "dotted": "dotted wallpaper"}.get(drop.paper, "")
        wall = f"{drop.wall} wall" if not paper else f"wall with {drop.wall} {paper}"
        floor = {"wooden": "brown wooden floor", "tiles": f"{drop.floor} tiled floor", "carpet": f"{drop.floor} carpet"}
        ground = floor[drop.ground]
        lines = [
            rng.choice(
                (
                    f"the room has {with_article(wall)} and {with_article(ground)}",
                    f"behind everything is {with_article(wall)}",
                )
            )
        ]
        if "and" not in lines[0].split("wall")[-1]:
            lines.append(f"{with_article(ground)} covers the ground")
        if drop.rug:
            lines.append(f"{with_article(drop.rug)} rug lies on the floor")
        if drop.window:
            side = "left" if drop.window < 0.5 else "right"
            lines.append(rng.choice((f"there is a window on the {side}", f"a window opens in the wall on the {side}")))
        return lines

    def _atmosphere(self) -> list[str]:
        rng, scene = self.rng, self.scene
        lines = [rng.choice(_LIGHT[scene.light])]
        if scene.weather in _WEATHER:
            if not (scene.weather == "clear" and scene.light != "day"):
                lines.append(rng.choice(_WEATHER[scene.weather]))
            rng.shuffle(lines)
        return lines

    def _describe_group(self, group: list[VisibleThing]) -> list[str]:
        """One or two sentences on a group of things with the same look."""
        rng, one = self.rng, group[0]
        subject = self._count_phrase(group, rich=True)
        poses = {item.thing.pose for item in group}
        verbs = _POSE[one.thing.pose] if len(poses) == 1 else ("is", "are")
        if len(poses) > 1 or (one.kind.group in ("vehicle", "thing", "plant") and one.thing.pose == "standing"):
            verbs = rng.choice((("is", "are"), ("stands", "stand"))) if len(poses) == 1 else ("is", "are")
        verb = verbs[0] if len(group) == 1 else verbs[1]
        spot = self._locate(group)
        if not spot:
            lead = f"there {'is' if len(group) == 1 else 'are'} {subject} in the picture"
        elif rng.random() < 0.5 and spot.startswith(("on the left", "on the right", "in the middle")):
            lead = f"{spot} {verb} {subject}"
        else:
            lead = f"{subject} {verb} {spot}"
        parts = details(one)
        if not parts or len(group) > 1 or rng.random() < 0.35:
            return [lead]
        chosen = join_words(rng.sample(parts, min(len(parts), rng.choice((1, 2)))))
        if rng.random() < 0.5 and not one.kind.coloured and lead.startswith(subject):
            return [lead.replace(subject, f"{subject} with {chosen}", 1)]
        pronoun = {"man": "he", "woman": "she"}.get(one.thing.kind, "it")
        if self.view.counts[one.thing.kind] != 1:
            return [lead, f"{pronoun} has {chosen}"]
        return [lead, rng.choice((f"{pronoun} has {chosen}", f"the {kind_name(one)} has {chosen}"))]

    def _locate(self, group: list[VisibleThing]) -> str:
        """Where a group is, in words that are true of all its things."""
        one = group[0]
        bases = {item.thing.support for item in group}
        if one.thing.zone == "on" and len(bases) == 1 and (base := self.view.find(one.thing.support)) is not None:
            return f"on the {kind_name(base)}"
        sides = {item.side for item in group}
        zones = {item.thing.zone for item in group}
        if len(zones) == 1 and one.thing.zone in ("sky", "water", "wall"):
            where = {"sky": "in the sky", "water": "on the water", "wall": "on the wall"}[one.thing.zone]
            return where if self.rng.random() < 0.6 or len(sides) > 1 or not has_clear_side(one) else self._side(one)
        if len(sides) == 1 and all(has_clear_side(item) for item in group):
            return self._side(one)
        return f"on {self.scene.place.ground}" if zones == {"ground"} else ""

    def _side(self, item: VisibleThing) -> str:
        depth = ""
        if item.thing.zone == "ground" and not self.scene.place.indoor:
            if item.thing.y > 0.86:
                depth = " in the foreground"
            elif item.thing.y < 0.6:
                depth = " in the distance"
        return f"in the middle{depth}" if item.side == "middle" else f"on the {item.side}{depth}"

    def _unique_items(self) -> list[VisibleThing]:
        return [item for item in self.view.items if self.view.counts[item.thing.kind] == 1]

    def _relations(self) -> list[str]:
        """Sentences on the spatial relation of two things, each the only one of its kind."""
        lines = []
        single = self._unique_items()
        for index, one in enumerate(single):
            for other in single[index + 1 :]:
                a, b = f"the {kind_name(one)}", f"the {kind_name(other)}"
                carried = other.thing.support == one.index or one.thing.support == other.index
                if carried:
                    top, base = (other, one) if other.thing.support == one.index else (one, other)
                    lines.append(f"the {kind_name(top)} is on top of the {kind_name(base)}")
                elif one.box[2] + APART < other.box[0]:
                    lines.append(self.rng.choice((f"{a} is to the left of {b}", f"{b} is to the right of {a}")))
                elif other.box[2] + APART < one.box[0]:
                    lines.append(self.rng.choice((f"{a} is to the right of {b}", f"{b} is to the left of {a}")))
                elif one.thing.zone == other.thing.zone == "ground" and other.thing.y - one.thing.y > 0.08:
                    lines.append(self.rng.choice((f"{b} is in front of {a}", f"{a} is behind {b}")))
                elif one.thing.zone in ("sky", "wall") and other.thing.zone == "ground" and one.box[3] < other.box[1]:
                    lines.append(f"{a} is above {b}")
        return lines

    def _counts(self) -> list[str]:
        return [
            self.rng.choice((f"in all there are {NUMBERS[count]} {many}", f"{NUMBERS[count]} {many} can be seen"))
            for kind, count in self.view.counts.items()
            if count > 1 and (many := self.view.of_kind(kind)[0].kind.many)
        ]

    def _fill_up(self) -> list[str]:
        """Simple true sentences, for images that show little."""
        lines = []
        for item in self._unique_items():
            if item.thing.pattern == "plain" and not item.kind.coloured:
                lines.append(f"the {kind_name(item)} is {item.thing.colour}")
            elif item.kind.coloured:
                lines.append(f"{definite_name(item, '')}'s {item.kind.coloured} is {item.thing.colour}")
            if parts := details(item):
                lines.append(f"one can see {join_words(parts)} of the {kind_name(item)}" if len(parts) < 2 else "")
        lines += self._background()
        ending = "nothing else stands out" if self.groups else "there is nothing in it"
        place = "room" if self.scene.place.indoor else "place"
        return [line for line in lines if line] + [ending, f"the whole picture shows one {place}"]


def _area(item: VisibleThing) -> float:
    left, top, right, bottom = item.box
    return (right - left) * (bottom - top)


def _sentence(words: str) -> str:
    text = words[0].upper() + words[1:]
    return text if text.endswith(".") else f"{text}."
