"""Referring phrases: descriptions that single one thing out of all that show."""

from collections.abc import Callable, Iterator

from tavq.scenes.facts import Fact, Facts
from tavq.scenes.nouns import definite, surface

Holds = Callable[[Fact], bool]

APART = 0.06
"""Least difference in place, as a share of the side, for one thing to be left of another."""


def candidates(facts: Facts, fact: Fact) -> Iterator[tuple[str, Holds]]:
    """Phrases for a thing, plain before long, each with what it claims."""
    kind, colour, look, side = fact.thing.kind, fact.thing.colour, surface(fact), fact.side

    def same(other: Fact) -> bool:
        return other.thing.kind == kind

    def coloured(other: Fact) -> bool:
        return same(other) and other.thing.colour == colour

    def patterned(other: Fact) -> bool:
        return same(other) and surface(other) == look

    where = "in the middle" if side == "middle" else f"on the {side}"
    yield definite(fact, colour), coloured
    yield f"the {kind}", same
    if fact.thing.support >= 0 and (base := facts.by_place(fact.thing.support)) is not None:
        yield f"the {kind} on the {base.thing.kind}", lambda o: same(o) and _on(facts, o) == base.thing.kind
        yield (
            f"{definite(fact, colour)} on the {base.thing.kind}",
            lambda o: coloured(o) and _on(facts, o) == base.thing.kind,
        )
    if look != colour:
        yield definite(fact, look), patterned
    if clearly(fact):
        # one whose side could be argued about counts as standing there too, so that the phrase cannot mean it
        yield f"the {kind} {where}", lambda o: same(o) and (o.side == side or not clearly(o))
        yield f"{definite(fact, colour)} {where}", lambda o: coloured(o) and (o.side == side or not clearly(o))
    row = facts.of(kind)
    if len(row) > 1:
        if fact is row[0] and row[1].x - fact.x > APART:
            yield f"the leftmost {kind}", lambda o: o is row[0]
        if fact is row[-1] and fact.x - row[-2].x > APART:
            yield f"the rightmost {kind}", lambda o: o is row[-1]
        if len(row) == 3 and fact is row[1] and min(row[2].x - fact.x, fact.x - row[0].x) > APART:
            yield f"the {kind} between the two other {fact.kind.many}", lambda o: o is row[1]


def clearly(fact: Fact) -> bool:
    """True when no one would argue about its side."""
    return abs(fact.x - 0.37) > 0.03 and abs(fact.x - 0.63) > 0.03


def _on(facts: Facts, fact: Fact) -> str:
    base = facts.by_place(fact.thing.support) if fact.thing.support >= 0 else None
    return base.thing.kind if base is not None else ""


def referring(facts: Facts, fact: Fact, most: int = 2) -> list[str]:
    """Up to `most` phrases that hold for this thing and for no other that shows; none for a kind in doubt."""
    if fact.thing.kind in facts.doubtful:
        return []
    found = [
        phrase
        for phrase, holds in candidates(facts, fact)
        if [other.place for other in facts.seen if holds(other)] == [fact.place]
    ]
    return found[:most]
