"""What goes into an offline page, and the page itself."""

import base64
import re

import numpy as np

from tavq.core.errors import FileError
from tavq.explore.bundle import Choice
from tavq.explore.explorer import Explorer
from tavq.explore.model import ExploredModel
from tavq.explore.page_files import INDEX, read_static
from tavq.explore.pages.images import image_units
from tavq.explore.pages.links import address

BUNDLE = "bundle"
"""The id of the script element that holds the bundle."""

_RELATIVE, _BARE = re.compile(rb'(from\s+|import\s+)"\./'), rb'\1"tavq/'


def choose_part(explorer: Explorer, codes: int, words: int, images: int) -> Choice:
    """The most used codes of each model, the most frequent words and evenly spaced images.

    Args:
        explorer: what there is.
        codes: number of codes of each model's deep level.
        words: number of words.
        images: number of images.
    """
    base = [address("/overview"), address("/images"), address("/units/words")]
    pages: dict[str, list[str]] = {"codes": [], "units": [], "images": [], "heat maps": []}
    readable = np.flatnonzero(explorer.first.readable)
    spaced = np.unique(np.linspace(0, len(readable) - 1, min(images, len(readable))).astype(int))
    for model in explorer.models:
        deep = f"/models/{model.id}/levels/deep"
        base += [address(f"{deep}/codes"), address(f"{deep}/map")]
        used = np.argsort(-model.levels["deep"].columns.count, kind="stable")[:codes]
        pages["codes"] += [address(f"{deep}/codes/{code}") for code in used.tolist()]
        pages["units"] += [address(f"{deep}/units/words/{unit}") for unit in range(len(model.units["words"]))[:words]]
        chosen = readable[spaced].tolist()
        pages["images"] += [address(f"/models/{model.id}/images/{image}") for image in chosen]
        pages["heat maps"] += [page for image in chosen for page in _heat_maps(explorer, model, image)]
    return Choice(pages, base)


def _heat_maps(explorer: Explorer, model: ExploredModel, image: int) -> list[str]:
    """Where the deep codes of an image carry each of its words, by the statistics."""
    words = [link.unit for link in image_units(explorer, model, str(image)).get("words", []) if link.unit is not None]
    path = f"/models/{model.id}/levels/deep/images/{image}/heat"
    return [address(path, granularity="words", unit=unit) for unit in words]


def make_page(bundle: str) -> str:
    """The explorer's page with its files and a bundle inside, so that it opens without a server.

    Args:
        bundle: JSON in ASCII; it cannot end the script element that holds it.
    """
    static = read_static()
    if INDEX not in static:
        raise FileError("This installation lacks the explorer's page; install tavq again, or export to a .json file.")
    page = static[INDEX].decode()
    page = re.sub(r'<link rel="stylesheet" href="/static/([^"]+)"\s*/?>', lambda m: _style(static, m[1]), page)
    page = re.sub(r'<script type="module" src="/static/([^"]+)"></script>', lambda m: _module(static, m[1]), page)
    held = bundle.replace("<", "\\u003c").replace("&", "\\u0026")
    script = f'<script type="application/json" id="{BUNDLE}">{held}</script>'
    return page.replace("</head>", f"{script}</head>", 1)


def _style(static: dict[str, bytes], name: str) -> str:
    return f"<style>{static[name].decode()}</style>"


def _module(static: dict[str, bytes], name: str) -> str:
    """A module with all modules of the page as data URIs in an import map.

    A data URI has no path, so that "./x.js" means nothing in it; the map names each module tavq/x.js instead.
    """
    modules = sorted(path for path in static if path.endswith(".js"))
    imports = ",".join(f'"tavq/{path}":"{_uri(_RELATIVE.sub(_BARE, static[path]))}"' for path in modules)
    start = f'<script type="module">import "tavq/{name}"</script>'
    return f'<script type="importmap">{{"imports":{{{imports}}}}}</script>{start}'


def _uri(data: bytes) -> str:
    return f"data:text/javascript;base64,{base64.b64encode(data).decode()}"
