"""Names of a package that are imported on first use, so that importing the package stays cheap."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_attributes(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package (PEP 562) whose names are defined in other modules.

    Type checkers do not see these names; the package imports them under TYPE_CHECKING too.

    Args:
        package: the package's `__name__`.
        homes: the module that defines each name.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return get
