"""What goes into an offline page, and the page itself."""

import base64
import re
from collections.abc import Sequence

import numpy as np

from tavq.core.errors import FileError, UsageError
from tavq.explore.bundle import Choice
from tavq.explore.explorer import Explorer
from tavq.explore.model import ExploredModel
from tavq.explore.page_files import INDEX, read_static
from tavq.explore.pages.images import image_units
from tavq.explore.pages.links import address

BUNDLE = "bundle"
"""The id of the script element that holds the bundle."""

CHOSEN = re.compile(
    r"m/(?P<model>[^/]+)/(?:image/(?P<image>[0-9]{1,9})|(?P<level>low|middle|deep)/"
    r"(?:code/(?P<code>[0-9]{1,9})|unit/(?P<granularity>words|phrases|sentences)/(?P<unit>[0-9]{1,9})))"
)
"""What follows #/ in the address of a code, a text or an image."""

_RELATIVE, _BARE = re.compile(rb'(from\s+|import\s+)"\./'), rb'\1"tavq/'


def choose_part(explorer: Explorer, codes: int, words: int, images: int) -> Choice:
    """The most used codes of each model, the most frequent words and evenly spaced images.

    Args:
        explorer: what there is.
        codes: number of codes of each model's deep level.
        words: number of words.
        images: number of images.
    """
    pages = _no_pages()
    readable = np.flatnonzero(explorer.first.readable)
    spaced = np.unique(np.linspace(0, len(readable) - 1, min(images, len(readable))).astype(int))
    for model in explorer.models:
        deep = f"/models/{model.id}/levels/deep"
        used = np.argsort(-model.levels["deep"].columns.count, kind="stable")[:codes]
        pages["codes"] += [address(f"{deep}/codes/{code}") for code in used.tolist()]
        pages["units"] += [address(f"{deep}/units/words/{unit}") for unit in range(len(model.units["words"]))[:words]]
        chosen = readable[spaced].tolist()
        pages["images"] += [address(f"/models/{model.id}/images/{image}") for image in chosen]
        pages["heat maps"] += [page for image in chosen for page in _heat_maps(explorer, model, image)]
    return Choice(pages, _lists(explorer))


def choose_pages(explorer: Explorer, addresses: Sequence[str]) -> Choice:
    """The codes, texts and images at addresses of the explorer's page, such as "#/m/run/deep/code/7".

    Raises:
        UsageError: an address is of something else, or of nothing.
    """
    pages = _no_pages()
    for given in addresses:
        found = CHOSEN.fullmatch(given.rpartition("#/")[2].partition("?")[0])
        if found is None:
            example = f"#/m/{explorer.first.id}/deep/code/7"
            raise UsageError(f"{given!r} is not the address of a code, a text or an image, such as {example}.")
        model, level = explorer.model(found["model"]), found["level"]
        if found["image"] is not None:
            image = explorer.images.number(found["image"]) or 0
            pages["images"].append(address(f"/models/{model.id}/images/{image}"))
            pages["heat maps"] += _heat_maps(explorer, model, image)
        elif found["code"] is not None:
            model.check_code(level, int(found["code"]))
            pages["codes"].append(address(f"/models/{model.id}/levels/{level}/codes/{int(found['code'])}"))
        else:
            granularity, unit = found["granularity"], int(found["unit"])
            model.level(level)
            model.unit(granularity, unit)
            pages["units"].append(address(f"/models/{model.id}/levels/{level}/units/{granularity}/{unit}"))
    return Choice(pages, _lists(explorer))


def _no_pages() -> dict[str, list[str]]:
    return {"codes": [], "units": [], "images": [], "heat maps": []}


def _lists(explorer: Explorer) -> list[str]:
    """The first page and the lists, which every offline page has."""
    deep = [f"/models/{model.id}/levels/deep/{name}" for model in explorer.models for name in ("codes", "map")]
    return [address(path) for path in ("/overview", "/images", "/units/words", *deep)]


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
