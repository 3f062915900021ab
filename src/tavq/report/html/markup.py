"""HTML that is safe against injection: every string is escaped unless `tag` made it.

Captions, file names and settings are untrusted. They enter a page as plain `str`, and only `tag` makes `Markup`, so
sections need not escape anything.
"""

import base64
import hashlib
import html
from typing import Any

VOID = frozenset({"br", "hr", "img", "meta"})


class Markup(str):
    """A string that is HTML already and is not escaped."""

    __slots__ = ()


Child = Any
"""A Markup, any other value (escaped), None (nothing), or a list of children."""


def render(child: Child) -> Markup:
    """Render a child as HTML."""
    if child is None:
        return Markup("")
    if isinstance(child, Markup):
        return child
    if isinstance(child, list | tuple):
        return Markup("".join(render(part) for part in child))
    return Markup(html.escape(str(child), quote=True))


def tag(name: str, /, *children: Child, **attributes: Any) -> Markup:
    """Build `<name attributes>children</name>`.

    `class_` is written as class and `_` in attribute names as `-`; attributes that are None are omitted.
    """
    parts = [
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    ]
    opening = f"<{name}{''.join(parts)}>"
    return Markup(opening if name in VOID else f"{opening}{render(children)}</{name}>")


def document(title: str, style: str, *body: Child) -> str:
    """A complete page that loads nothing and runs nothing: images from data URIs, one style sheet, no script.

    The content security policy allows the style sheet by its hash, so a browser ignores an injected style.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", tag("main", *body)), lang="en") + "\n"
