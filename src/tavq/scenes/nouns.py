"""Noun phrases for things: articles, numbers, colour, pattern and parts."""

from tavq.scenes.visibility import VisibleThing

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_VOWELS = "aeiou"
_PATTERNS = {
    "striped": "striped",
    "dotted": "spotted",
    "checkered": "checkered",
    "spotted": "spotted",
    "brick": "brick",
    "wooden": "wooden",
}


def with_article(words: str) -> str:
    """Put "a" or "an" before the words."""
    return f"{'an' if words[0].lower() in _VOWELS else 'a'} {words}"


def join_words(items: list[str]) -> str:
    """Join as "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def describe_surface(item: VisibleThing) -> str:
    """Colour and pattern: "red", "blue and white striped", "red brick"."""
    thing = item.thing
    if thing.pattern == "plain":
        return thing.colour
    word = _PATTERNS[thing.pattern]
    both = f"{thing.colour} and {thing.second}" if thing.second else thing.colour
    return f"{both} {word}"


def kind_name(item: VisibleThing, many: bool = False) -> str:
    """The name of the thing's kind."""
    return item.kind.many if many else item.thing.kind


def name_with_look(item: VisibleThing, look: str, many: bool = False) -> str:
    """The name with its look: "red ball", "man in a red shirt", "lamp with a red shade"."""
    name = kind_name(item, many)
    if not look:
        return name
    if not item.kind.coloured:
        return f"{look} {name}"
    link = "in" if item.kind.group == "person" else "with"
    worn = f"{look} {item.kind.coloured}"
    if many:
        return f"{name} {link} {worn}{'es' if worn.endswith('s') else 's'}"
    return f"{name} {link} {with_article(worn)}"


def full_name(item: VisibleThing, many: bool = False) -> str:
    """The name with size, colour and pattern."""
    size = "" if many else {"small": "small ", "large": "large "}.get(item.thing.size, "")
    return f"{size}{name_with_look(item, describe_surface(item), many)}"


def definite_name(item: VisibleThing, look: str) -> str:
    """The name with "the", for a thing mentioned before: "the man in the red shirt"."""
    words = f"the {name_with_look(item, look)}"
    return (
        words.replace(" in a ", " in the ")
        .replace(" in an ", " in the ")
        .replace(" with a ", " with the ")
        .replace(" with an ", " with the ")
    )


def details(item: VisibleThing) -> list[str]:
    """The thing's parts with their colours: "a gray roof", "two windows"."""
    own = []
    for part, colour in item.thing.parts:
        words = f"{colour} {part}"
        own.append(words if part == "trousers" else with_article(words))
    return [*own, *item.kind.features]
