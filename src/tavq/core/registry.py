"""Registries: names that settings can use, each bound to one class in one file of a package."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from tavq.core.errors import UsageError, unknown_name

T = TypeVar("T", bound=type)


class Registry(Generic[T]):
    """The classes of a package by name.

    The first use imports every module of `package`. So settings, the command line and the contract tests know a class
    in a new file without an edit elsewhere. Names are looked up only here: a setting can never name a module or a path.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._classes: dict[str, T] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that registers a class under `name`."""

        def bind(cls: T) -> T:
            other = self._classes.get(name)
            assert other is None or other.__qualname__ == cls.__qualname__, f"{name!r} is registered twice"
            self._classes[name] = cls
            cls.name = name  # type: ignore[attr-defined]
            return cls

        return bind

    def _import_siblings(self) -> None:
        if self._complete:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        self._complete = True

    def __getitem__(self, name: Any) -> T:
        if name not in self:
            raise UsageError(unknown_name(self.kind, str(name), self._classes))
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        self._import_siblings()
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        self._import_siblings()
        return len(self._classes)

    def __contains__(self, name: Any) -> bool:
        self._import_siblings()
        return isinstance(name, str) and name in self._classes
