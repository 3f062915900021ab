"""A chosen part of the explorer as one value: answers and images by their addresses, for a page without a server."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tavq.core.files import parse_json
from tavq.core.version import __version__
from tavq.explore.answers.edits import Bundle
from tavq.explore.pixels import as_uri

MAX_BYTES = 20_000_000
"""Of a page; what does not fit is left out."""

PAGE_BYTES = 1_500_000
"""Kept free for the page itself."""

Fetch = Callable[[str], tuple[str, bytes]]
"""Answers a GET request with the type of its content and its bytes."""


@dataclass
class Choice:
    """What to put into a bundle: addresses of pages, the most important first, by what they are."""

    pages: Mapping[str, Sequence[str]]
    base: Sequence[str] = field(default_factory=tuple)
    """Addresses that are always there, such as the overview."""


def make_bundle(choice: Choice, fetch: Fetch, budget: int = MAX_BYTES - PAGE_BYTES) -> Bundle:
    """Fetch pages with the images that they name until the budget is used up; kinds of pages take turns.

    Args:
        choice: the pages.
        fetch: answers a GET request.
        budget: bytes of the JSON text.
    """
    answers: dict[str, Any] = {}
    images: dict[str, str] = {}
    left_out = dict.fromkeys(choice.pages, 0)
    used = 0
    for kind, page in [*(("", page) for page in choice.base), *_in_turns(choice.pages)]:
        added = _fetch_page(page, fetch, images)
        size = sum(len(json.dumps(part)) for part in added)
        if kind and used + size > budget:
            left_out[kind] += 1
            continue
        used += size
        answers |= added[0]
        images |= added[1]
    return Bundle(tavq=__version__, answers=answers, images=images, left_out=left_out)


def _in_turns(pages: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    longest = max(map(len, pages.values()), default=0)
    for position in range(longest):
        for kind, own in pages.items():
            if position < len(own):
                yield kind, own[position]


def _fetch_page(page: str, fetch: Fetch, known: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    _, body = fetch(page)
    answer = parse_json(body.decode(), page)
    images = {}
    for address in sorted(set(_image_addresses(answer)) - known.keys()):
        kind, data = fetch(address)
        if kind.startswith("image/"):
            images[address] = as_uri(data, kind.partition("/")[2])
    return {page: answer}, images


def _image_addresses(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for part in value.values():
            yield from _image_addresses(part)
    elif isinstance(value, list):
        for part in value:
            yield from _image_addresses(part)
    elif isinstance(value, str) and value.startswith("/api/") and value.partition("?")[0].endswith((".png", ".webp")):
        yield value
