"""Settings: frozen pydantic models, YAML, dotted overrides, and errors that say what to change."""

import reprlib
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, ValidationError, model_validator

from tavq.core.errors import RenamedWarning, UsageError, first_line, suggest
from tavq.core.registry import Registry

M = TypeVar("M", bound=BaseModel)
V = TypeVar("V")

MAX_DEPTH = 8  # more than any recipe needs
MAX_VALUES = 10_000  # the same; with YAML's aliases a few lines can expand to billions of values

_short = reprlib.Repr()  # shortens values in errors; a hostile one may have megabytes
_short.maxlevel, _short.maxstring, _short.maxother = 3, 80, 80


class Config(BaseModel):
    """Base of all settings: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    RENAMED: ClassVar[Mapping[str, str]] = {}
    """Old names of settings and their current names; old names are accepted with a RenamedWarning."""

    @model_validator(mode="before")
    @classmethod
    def _accept_old_names(cls, settings: Any) -> Any:
        if not isinstance(settings, Mapping) or not cls.RENAMED:
            return settings
        return rename_settings(settings, cls.RENAMED)


def rename_settings(settings: Mapping[str, Any], renamed: Mapping[str, str], warn: bool = True) -> dict[str, Any]:
    """Replace every old name of `renamed` (old to new) in a copy of `settings`.

    Where both names are given the old one wins, as a flag that overrides a recipe may still use it. Without `warn` old
    names pass in silence, for files that this package wrote itself.
    """
    result = dict(settings)
    for old, new in renamed.items():
        if old not in result:
            continue
        value = result.pop(old)
        if warn:
            warnings.warn(f"The setting {old!r} is now called {new!r}; use the new name.", RenamedWarning, stacklevel=2)
        below = result.get(new)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        result[new] = {**below, **value} if both else value  # type: ignore[dict-item]
    return result


def require_resolved(value: V | None, setting: str) -> V:
    """A setting that `resolve_config` fills in from the data; UsageError where it was not."""
    if value is None:
        raise UsageError(f"The setting {setting!r} has no value; training fills it in from the data.")
    return value


class NamedConfig(Config):
    """Settings of one registered class; `name` says which class."""

    name: str


def config_of(registry: Registry[Any]) -> Any:
    """The type of a setting that selects a class of `registry` by `name` and holds the Config of that class.

    `codebook: config_of(codebooks)` accepts `{name: learned, entries: 1024}`.
    """

    def resolve(value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping):
            return value
        if "name" not in value:
            raise ValueError(f"the {registry.kind} needs a 'name'; known: {', '.join(registry)}")
        config = _registered(registry, value["name"]).Config
        try:
            return config.model_validate(value)
        except ValidationError as error:
            raise _Refused(config, error) from error

    return Annotated[SerializeAsAny[NamedConfig], BeforeValidator(resolve)]


class _Refused(ValueError):
    """Settings that the Config of a registered class refused; as a ValueError, so that pydantic adds their path."""

    def __init__(self, model: type[BaseModel], error: ValidationError) -> None:
        super().__init__(str(error))
        self.model, self.error = model, error


def _registered(registry: Registry[Any], name: Any) -> Any:
    try:
        return registry[name]
    except UsageError as error:
        raise ValueError(str(error).removesuffix(".")) from error


def read_yaml(text: str, source: str) -> dict[str, Any]:
    """Parse a YAML mapping; `source` names the text in errors. Only plain YAML values are built, never objects."""
    try:
        value = _UniqueKeys(text).get_single_data()
    except Exception as error:  # for `!!bool x` and the like PyYAML raises KeyError, AttributeError or IndexError
        raise UsageError(f"{source} is not valid YAML: {_explain_yaml(error, text)}.") from error
    if not isinstance(value, dict):
        raise UsageError(f"{source} must hold settings (name: value), got {type(value).__name__}.")
    wrong = next((name for name in value if not isinstance(name, str)), "")
    if wrong != "":
        raise UsageError(f"{source} has a setting named {wrong!r}; names must be text.")
    _check_depth(value, source)
    return value


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a mapping with one key twice, of which YAML's own loader drops the first with all that is below it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} occurs twice", key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


def _explain_yaml(error: Exception, text: str) -> str:
    """Where a text is no YAML, and why."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"line {line} has the character U+{error.character:04X}, which is not allowed"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return first_line(error)
    reason = error.problem or error.context or "it cannot be read"
    hint = "; indent with spaces, not with tabs" if "'\\t'" in reason else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {reason}{hint}"


def _check_depth(value: Any, source: str) -> None:
    for count, depth in enumerate(_depths(value, 0)):
        if depth > MAX_DEPTH:
            raise UsageError(f"{source} nests deeper than {MAX_DEPTH} levels, which no settings need.")
        if count == MAX_VALUES:
            raise UsageError(f"{source} has more than {MAX_VALUES:,} values, which no settings need.")


def _depths(value: Any, depth: int) -> Iterator[int]:
    """Yield the depth of each value in nested lists and mappings, parents first."""
    yield depth
    children = value.values() if isinstance(value, Mapping) else value
    if isinstance(value, Mapping | list | tuple | set):
        for child in children:
            yield from _depths(child, depth + 1)


def write_yaml(value: Mapping[str, Any]) -> str:
    """Format plain settings as YAML, with keys in their order."""
    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True)


def parse_overrides(tokens: Sequence[str]) -> dict[str, Any]:
    """Parse `["--train.steps", "40", "--net.width=64"]` to `{"train.steps": 40, "net.width": 64}`.

    Values are parsed as YAML: `null`, `true`, `[1, 2]`; and so is `1e-4`, which YAML takes for text.
    """
    overrides: dict[str, Any] = {}
    position = 0
    while position < len(tokens):
        token = tokens[position]
        key, equals, text = token.removeprefix("--").partition("=")
        if not token.startswith("--") or "." not in key:
            raise UsageError(f"Unexpected argument {token!r}; settings are given as --SECTION.KEY VALUE.")
        position += 1
        if not equals:
            if position == len(tokens):
                raise UsageError(f"The setting --{key} needs a value.")
            text = tokens[position]
            position += 1
        overrides[key] = _scalar(text, key)
    return overrides


def _scalar(text: str, key: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except Exception as error:  # as in read_yaml
        raise UsageError(f"--{key} {text!r} is not a value: {first_line(error)}.") from error
    if isinstance(value, str):  # in YAML 1.1 a number like 1e-4, without a dot, is text
        try:
            return float(value)
        except ValueError:
            return value
    return value


def apply_overrides(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Set dotted keys in a copy of nested `settings`; creates sections that are missing or null.

    A new `name` in a section selects another class, so the settings of the old one are dropped. For this, names are set
    first, in whatever order the keys come.
    """
    result: dict[str, Any] = dict(settings)
    for dotted, value in sorted(overrides.items(), key=lambda item: not item[0].endswith(".name")):
        *path, last = dotted.split(".")
        section = result
        for key in path:
            inner = section.get(key)
            if isinstance(inner, str) and path[-1] == key:
                inner = {"name": inner}
            section[key] = dict(inner) if isinstance(inner, Mapping) else {}
            section = section[key]
        if last == "name" and section.get("name", value) != value:
            section.clear()
        section[last] = value
    return result


def build(model: type[M], settings: Mapping[str, Any], source: str) -> M:
    """Validate `settings` as a `model`; raises a UsageError with one line for each wrong key or value."""
    _check_depth(settings, source)
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise UsageError(f"{source}: " + "\n".join(_explain(model, error))) from error


def build_stored(model: type[M], settings: Mapping[str, Any], source: str) -> M:
    """As `build`, for settings that this package wrote itself: old names are accepted without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RenamedWarning)
        return build(model, settings, source)


def _explain(model: type[BaseModel], error: ValidationError, above: Sequence[Any] = ()) -> Iterator[str]:
    """Yield one line for each wrong key or value; `above` is the path of the model in the settings."""
    for issue in error.errors(include_url=False):
        inner = (issue.get("ctx") or {}).get("error")
        path = [*above, *issue["loc"]]
        if isinstance(inner, _Refused):
            yield from _explain(inner.model, inner.error, path)
        else:
            yield _line(model, issue, ".".join(str(part) for part in path), inner)


def _line(model: Any, issue: Any, dotted: str, inner: Exception | None) -> str:
    if issue["type"] == "extra_forbidden":
        known = _fields_at(model, issue)
        listed = f"; known: {', '.join(sorted(known))}" if known else ""
        return f"Unknown setting {_short.repr(dotted)}{listed}.{suggest(str(issue['loc'][-1]), known)}"
    if issue["type"] == "missing":
        return f"The setting {dotted!r} is missing and has no default."
    what = f"The setting {dotted!r} = {_short.repr(issue['input'])} is" if dotted else "The settings are"
    reason = str(inner or issue["msg"].lower())
    return f"{what} not accepted: {reason}{'' if reason.endswith('?') else '.'}"


def _fields_at(model: type[BaseModel], issue: Any) -> list[str]:
    """The keys that are accepted next to the unknown one."""
    current: Any = model
    for part in issue["loc"][:-1]:
        field = getattr(current, "model_fields", {}).get(part)
        current = _model_in(field.annotation) if field else None
    return list(getattr(current, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        models = (_model_in(part) for part in get_args(annotation))
        return next(filter(None, models), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def flatten_settings(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings as dotted keys with their values; an empty mapping counts as a value."""
    if isinstance(settings, Mapping) and settings:
        for key, value in settings.items():
            yield from flatten_settings(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, settings
