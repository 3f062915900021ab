"""How a thing is named: articles, numbers, and noun phrases with colour, pattern and parts."""

from tavq.scenes.facts import Fact

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


def article(words: str) -> str:
    """The words with "a" or "an" before them."""
    return f"{'an' if words[0].lower() in _VOWELS else 'a'} {words}"


def listed(items: list[str]) -> str:
    """a, b and c."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def surface(fact: Fact) -> str:
    """Colour and pattern of the part that carries them: "red", "blue and white striped", "red brick"."""
    thing = fact.thing
    if thing.pattern == "plain":
        return thing.colour
    word = _PATTERNS[thing.pattern]
    both = f"{thing.colour} and {thing.second}" if thing.second else thing.colour
    return f"{both} {word}"


def bare(fact: Fact, many: bool = False) -> str:
    """The name of its kind."""
    return fact.kind.many if many else fact.thing.kind


def named(fact: Fact, look: str, many: bool = False) -> str:
    """The name with words for its looks: "red ball", "man in a red shirt", "lamp with a red shade"."""
    name = bare(fact, many)
    if not look:
        return name
    if not fact.kind.coloured:
        return f"{look} {name}"
    link = "in" if fact.kind.group == "person" else "with"
    worn = f"{look} {fact.kind.coloured}"
    if many:
        return f"{name} {link} {worn}{'es' if worn.endswith('s') else 's'}"
    return f"{name} {link} {article(worn)}"


def full(fact: Fact, many: bool = False) -> str:
    """The name with size, colour and pattern."""
    size = {"small": "small ", "large": "large "}.get(fact.thing.size, "") if not many else ""
    return f"{size}{named(fact, surface(fact), many)}"


def definite(fact: Fact, look: str) -> str:
    """The name with "the", for a thing that was spoken of: "the man in the red shirt"."""
    words = f"the {named(fact, look)}"
    return (
        words.replace(" in a ", " in the ")
        .replace(" in an ", " in the ")
        .replace(" with a ", " with the ")
        .replace(" with an ", " with the ")
    )


def details(fact: Fact) -> list[str]:
    """Its parts, with their colours: "a gray roof", "two windows"."""
    own = [
        article(f"{colour} {part}") if part != "trousers" else f"{colour} trousers" for part, colour in fact.thing.parts
    ]
    return [*own, *fact.kind.features]
