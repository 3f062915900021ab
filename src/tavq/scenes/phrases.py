"""Referring expressions: phrases that fit exactly one visible thing."""

from collections.abc import Callable, Iterator

from tavq.scenes.nouns import definite_name, describe_surface
from tavq.scenes.visibility import SceneView, VisibleThing

Claim = Callable[[VisibleThing], bool]
"""Whether a phrase fits a thing."""

APART = 0.06
"""Minimum distance, as a fraction of the side, for one thing to be left of another."""


def propose_phrases(view: SceneView, item: VisibleThing) -> Iterator[tuple[str, Claim]]:
    """Yield phrases for a thing, simple ones first, each with its claim."""
    kind, colour, look, side = item.thing.kind, item.thing.colour, describe_surface(item), item.side

    def same(other: VisibleThing) -> bool:
        return other.thing.kind == kind

    def coloured(other: VisibleThing) -> bool:
        return same(other) and other.thing.colour == colour

    def patterned(other: VisibleThing) -> bool:
        return same(other) and describe_surface(other) == look

    where = "in the middle" if side == "middle" else f"on the {side}"
    yield definite_name(item, colour), coloured
    yield f"the {kind}", same
    if item.thing.support >= 0 and (base := view.find(item.thing.support)) is not None:
        yield f"the {kind} on the {base.thing.kind}", lambda o: same(o) and _on(view, o) == base.thing.kind
        yield (
            f"{definite_name(item, colour)} on the {base.thing.kind}",
            lambda o: coloured(o) and _on(view, o) == base.thing.kind,
        )
    if look != colour:
        yield definite_name(item, look), patterned
    if has_clear_side(item):
        # A thing whose side is ambiguous counts as being on this side too, so that no phrase relies on it.
        yield f"the {kind} {where}", lambda o: same(o) and (o.side == side or not has_clear_side(o))
        yield (
            f"{definite_name(item, colour)} {where}",
            lambda o: coloured(o) and (o.side == side or not has_clear_side(o)),
        )
    row = view.of_kind(kind)  # from left to right
    if len(row) > 1:
        if item is row[0] and row[1].x - item.x > APART:
            yield f"the leftmost {kind}", lambda o: o is row[0]
        if item is row[-1] and item.x - row[-2].x > APART:
            yield f"the rightmost {kind}", lambda o: o is row[-1]
        if len(row) == 3 and item is row[1] and min(row[2].x - item.x, item.x - row[0].x) > APART:
            yield f"the {kind} between the two other {item.kind.many}", lambda o: o is row[1]


def has_clear_side(item: VisibleThing) -> bool:
    """Whether the thing is unambiguously left, right or in the middle."""
    return abs(item.x - 0.37) > 0.03 and abs(item.x - 0.63) > 0.03


def _on(view: SceneView, item: VisibleThing) -> str:
    base = view.find(item.thing.support) if item.thing.support >= 0 else None
    return base.thing.kind if base is not None else ""


def referring_phrases(view: SceneView, item: VisibleThing, max_count: int = 2) -> list[str]:
    """Up to `max_count` phrases that fit this thing and no other visible one; none for a doubtful kind."""
    if item.thing.kind in view.doubtful:
        return []
    found = []
    for phrase, claim in propose_phrases(view, item):
        if [other.index for other in view.items if claim(other)] == [item.index]:
            found.append(phrase)
    return found[:max_count]
