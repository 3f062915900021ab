"""The explorer's page: its files for the server, and one file that works offline."""

import base64
import json
import re
from functools import cache
from importlib import resources
from typing import Any

STATIC = resources.files("tavq.explore") / "static"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}

LIBRARY = "vendor/htm-preact.js"
_IMPORT = re.compile(r'(from\s+|import\s+)"\./([\w./-]+\.js)"')
_OFFLINE_POLICY = "default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; img-src data:"


@cache
def read_static(name: str) -> str | None:
    """A file of the page by its name, such as `app.js`; None if the page has no such file."""
    return dict(_static_files()).get(name)


@cache
def _static_files() -> tuple[tuple[str, str], ...]:
    own = {item.name: item for item in STATIC.iterdir() if item.name.endswith(tuple(TYPES))}
    own[LIBRARY] = STATIC / LIBRARY
    return tuple((name, item.read_text(encoding="utf-8")) for name, item in own.items())


def offline_page(bundle: dict[str, Any]) -> str:
    """One HTML file with the page, its modules and a bundle of answers, which asks no server for anything.

    Args:
        bundle: `tavq.explore.answers.edits.Bundle` as JSON.
    """
    modules = {name: text for name, text in _static_files() if name.endswith(".js")}
    # Modules of a file cannot import each other by path, so that a map names each one's text as a data URI.
    imports = {f"tavq/{name}": _data_uri(_IMPORT.sub(r'\1"tavq/\2"', text)) for name, text in modules.items()}
    text = json.dumps(bundle, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    page = read_static("index.html") or ""
    style = f"<style>{read_static('style.css')}</style>"
    start = (
        f'<meta http-equiv="Content-Security-Policy" content="{_OFFLINE_POLICY}">\n  {style}\n'
        f'  <script type="importmap">{json.dumps({"imports": imports})}</script>\n'
        f'  <script type="application/json" id="bundle">{text}</script>\n'
        '  <script type="module">import "tavq/app.js";</script>'
    )
    page = page.replace('<script type="module" src="/static/app.js"></script>', "")
    return page.replace('<link rel="stylesheet" href="/static/style.css">', start)


def _data_uri(module: str) -> str:
    return f"data:text/javascript;base64,{base64.b64encode(module.encode()).decode()}"
