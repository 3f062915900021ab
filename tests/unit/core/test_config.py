"""Settings: what is refused is refused with its place, what is accepted and a near name."""

import contextlib
from typing import Any, ClassVar, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from tavq.core.config import (
    MAX_VALUES,
    Config,
    NamedConfig,
    apply_overrides,
    build,
    config_of,
    parse_overrides,
    read_yaml,
    write_yaml,
)
from tavq.core.errors import TavqError, UsageError
from tavq.core.registry import Registry

pens: Registry[Any] = Registry("pen", "tavq.core")  # a package without pens of its own


@pens.register("ball")
class Ball:
    name: ClassVar[str]

    class Config(NamedConfig):
        name: Literal["ball"] = "ball"
        colour: str = "blue"
        width: float = Field(0.5, gt=0, le=2)


@pens.register("quill")
class Quill:
    name: ClassVar[str]

    class Config(NamedConfig):
        name: Literal["quill"] = "quill"
        bird: Literal["goose", "swan"]


class Paper(Config):
    width: int = Field(210, ge=1)
    lines: tuple[int, ...] = ()


class Desk(Config):
    pen: config_of(pens) = Field(default_factory=lambda: Ball.Config())
    spare: config_of(pens) | None = None
    paper: Paper = Paper()
    owner: str
    tilt: float = 0.0

    @model_validator(mode="after")
    def _fits(self) -> "Desk":
        if self.paper.width > 1000:
            raise ValueError("the paper does not fit")
        return self


class Room(Config):
    desk: Desk


def refusal(model: type[Config], values: Any, source: str = "S") -> str:
    with pytest.raises(UsageError) as caught:
        build(model, values, source)
    return str(caught.value)


def test_the_values_given_and_the_defaults_of_the_others() -> None:
    desk = build(Desk, {"owner": "Ada", "pen": {"name": "quill", "bird": "swan"}, "paper": {"lines": [1, 2]}}, "S")
    assert desk == Desk(owner="Ada", pen=Quill.Config(bird="swan"), paper=Paper(width=210, lines=(1, 2)))
    assert desk.spare is None
    assert build(Desk, {"owner": "Ada"}, "S").pen == Ball.Config()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ownr": "Ada", "owner": "Ada"}, "S: Unknown setting 'ownr'; known: owner, paper, pen, spare, tilt. "
         "Did you mean 'owner'?"),
        ({"owner": "Ada", "paper": {"widht": 3}}, "S: Unknown setting 'paper.widht'; known: lines, width. "
         "Did you mean 'width'?"),
        ({"owner": "Ada", "pen": {"name": "ball", "color": "red"}}, "S: Unknown setting 'pen.color'; "
         "known: colour, name, width. Did you mean 'colour'?"),
        ({"owner": "Ada", "spare": {"name": "quill", "bird": "goose", "zzz": 1}}, "S: Unknown setting 'spare.zzz'; "
         "known: bird, name."),
        ({}, "S: The setting 'owner' is missing and has no default."),
        ({"owner": "Ada", "pen": "quill"}, "S: The setting 'pen.bird' is missing and has no default."),
        ({"owner": "Ada", "pen": "bal"}, "S: The setting 'pen' = 'bal' is not accepted: Unknown pen 'bal'; "
         "known: ball, quill. Did you mean 'ball'?"),
        ({"owner": "Ada", "pen": {}}, "S: The setting 'pen' = {} is not accepted: the pen needs a 'name'; "
         "known: ball, quill."),
        ({"owner": "Ada", "paper": {"width": 2000}}, "S: The settings are not accepted: the paper does not fit."),
    ],
)  # fmt: skip
def test_an_error_names_the_value_and_what_is_accepted(values: Any, message: str) -> None:
    assert refusal(Desk, values) == message


@pytest.mark.parametrize(
    ("values", "dotted"),
    [
        ({"owner": ["Ada"]}, "'owner' = ['Ada']"),
        ({"owner": "Ada", "paper": 5}, "'paper' = 5"),
        ({"owner": "Ada", "paper": None}, "'paper' = None"),
        ({"owner": "Ada", "paper": {"width": "wide"}}, "'paper.width' = 'wide'"),
        ({"owner": "Ada", "paper": {"width": 0}}, "'paper.width' = 0"),
        ({"owner": "Ada", "paper": {"width": 1.5}}, "'paper.width' = 1.5"),
        ({"owner": "Ada", "paper": {"lines": [1, "x"]}}, "'paper.lines.1' = 'x'"),
        ({"owner": "Ada", "pen": 3}, "'pen' = 3"),
        ({"owner": "Ada", "pen": None}, "'pen' = None"),
        ({"owner": "Ada", "pen": {"name": ["ball"]}}, "'pen' = {'name': ['ball']}"),
        ({"owner": "Ada", "pen": {"name": "ball", "width": 3}}, "'pen.width' = 3"),
        ({"owner": "Ada", "tilt": float("nan")}, "'tilt' = nan"),
        ({"owner": "Ada", "tilt": float("inf")}, "'tilt' = inf"),
        ({"owner": "Ada", 7: 1}, "'7'"),
    ],
)  # fmt: skip
def test_a_wrong_type_or_range_names_setting_and_value(values: Any, dotted: str) -> None:
    assert f"The setting {dotted}" in refusal(Desk, values)


def test_errors_have_the_full_path_of_a_setting() -> None:
    said = refusal(Room, {"desk": {"owner": "Ada", "pen": {"name": "ball", "widht": 1}, "papr": {}}}, "Recipe r")
    assert said.splitlines() == [
        "Recipe r: Unknown setting 'desk.pen.widht'; known: colour, name, width. Did you mean 'width'?",
        "Unknown setting 'desk.papr'; known: owner, paper, pen, spare, tilt. Did you mean 'paper'?",
    ]


def test_a_name_selects_a_class_with_its_defaults_and_never_a_path() -> None:
    assert build(Desk, {"owner": "Ada", "pen": "ball"}, "S").pen == Ball.Config()
    assert "Unknown pen 'os.path'" in refusal(Desk, {"owner": "Ada", "pen": "os.path"})


def test_settings_do_not_change_once_made() -> None:
    desk = build(Desk, {"owner": "Ada"}, "S")
    with pytest.raises(ValueError, match="frozen"):
        desk.owner = "Eve"  # type: ignore[misc]


def test_plain_values_and_back() -> None:
    desk = build(Desk, {"owner": "Ada", "pen": {"name": "quill", "bird": "swan"}, "spare": "ball"}, "S")
    plain = desk.model_dump(mode="json")
    assert plain["pen"] == {"name": "quill", "bird": "swan"}
    assert plain["spare"] == {"name": "ball", "colour": "blue", "width": 0.5}
    assert build(Desk, plain, "S") == desk
    assert build(Desk, read_yaml(write_yaml(plain), "S"), "S") == desk


def test_a_refused_value_is_shortened() -> None:
    assert len(refusal(Desk, {"owner": ["x"] * 5000})) < 300
    assert len(refusal(Desk, {"owner": "Ada", "tilt": "x" * 5000})) < 300
    assert len(refusal(Desk, {"owner": "Ada", "x" * 5000: 1})) < 300


def nested(depth: int, inner: Any) -> Any:
    return inner if depth == 0 else {"x": nested(depth - 1, inner)}


def test_depth_and_number_of_values_are_bounded() -> None:
    assert "nests deeper" in refusal(Desk, nested(9, 1))
    assert "Unknown setting 'x'" in refusal(Desk, nested(8, 1))
    assert "has more than 10,000 values" in refusal(Desk, {"owner": "Ada", "paper": {"lines": [1] * (MAX_VALUES + 1)}})


# --- YAML -------------------------------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 7)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [1", "is not valid YAML: line 1, column 6: expected ',' or ']'"),
        (
            "a: 1\nb:\n\tc: 2",
            "is not valid YAML: line 3, column 1: found character",
        ),
        ("a: 1\n b: 2", "is not valid YAML: line 2, column 3: mapping values are not allowed here"),
        ("a: 1\nb: 'x", "is not valid YAML: line 2, column 6: found unexpected end of stream"),
        ("a: 1\nb: {c: 1}\na: 2", "is not valid YAML: line 3, column 1: the key 'a' occurs twice"),
        ("a:\n  b: 1\n  b: 2", "is not valid YAML: line 3, column 3: the key 'b' occurs twice"),
        ("a: 1\nb: \a", "is not valid YAML: line 2 has the character U+0007, which is not allowed"),
        ("a: *x", "is not valid YAML: line 1, column 4: found undefined alias"),
        ("a: !!python/object/apply:os.system [true]", "is not valid YAML"),
        ("a: !!bool x", "is not valid YAML"),
        ("a: !!timestamp x", "is not valid YAML"),
        ("a: !!int ''", "is not valid YAML"),
        ("a: \0", "is not valid YAML"),
        ("{[a]: 1}", "is not valid YAML"),
        ("[" * 5000, "is not valid YAML"),
        ("", "must hold settings (name: value), got NoneType"),
        ("0: 1", "S has a setting named 0; names must be text."),
        ("? null\n: 1", "S has a setting named None; names must be text."),
        ("- 1", "must hold settings (name: value), got list"),
        ("a: &a [*a]", "nests deeper"),
        ("a: &a [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]", "S "),
        (LAUGHS, "has more than 10,000 values"),
    ],
)
def test_yaml_that_is_no_settings(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_yaml(text, "S")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="&*!{}[]:,- ab\n'\"|>%@0.#x<=", max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_text_gives_settings_or_one_kind_of_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert isinstance(read_yaml(text, "S"), dict)


# --- overrides --------------------------------------------------------------------------------------------------


def test_overrides_in_both_forms() -> None:
    tokens = ["--train.steps", "40", "--model.codebook.entries=64", "--a.b=c=d", "--a.c", "--x"]
    assert parse_overrides(tokens) == {"train.steps": 40, "model.codebook.entries": 64, "a.b": "c=d", "a.c": "--x"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("null", None), ("true", True), ("[1, 2]", [1, 2]), ("1e-4", 1e-4), ("-3", -3), ("0.5", 0.5), ("red", "red"),
     ("{name: ta}", {"name": "ta"}), ("", None), ("'1'", 1.0), ("a: b", {"a": "b"})],
)  # fmt: skip
def test_values_are_parsed_as_yaml(text: str, value: Any) -> None:
    assert parse_overrides(["--a.b", text]) == {"a.b": value}
    assert parse_overrides([f"--a.b={text}"]) == {"a.b": value}


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["steps"], "Unexpected argument 'steps'; settings are given as --SECTION.KEY VALUE."),
        (["--steps", "3"], "Unexpected argument '--steps'; settings are given as --SECTION.KEY VALUE."),
        (["-a.b", "3"], "Unexpected argument '-a.b'; settings are given as --SECTION.KEY VALUE."),
        (["--a=x.y"], "Unexpected argument '--a=x.y'; settings are given as --SECTION.KEY VALUE."),
        (["--a.b"], "The setting --a.b needs a value."),
        (["--a.b", "[1"], "--a.b '[1' is not a value: while parsing a flow sequence."),
        (["--a.b", "!!bool x"], "--a.b '!!bool x' is not a value: 'x'."),
    ],
)
def test_arguments_that_are_not_overrides(tokens: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_overrides(tokens)
    assert str(caught.value) == message


def test_another_name_selects_another_class_in_any_order() -> None:
    before = {"model": {"quantizer": {"name": "nearest", "commitment": 0.25}, "codebook": {"name": "learned"}}}
    changes = {"model.quantizer.of": 1, "model.quantizer.name": "product"}
    for order in (changes, dict(reversed(changes.items()))):
        assert apply_overrides(before, order)["model"]["quantizer"] == {"name": "product", "of": 1}
    same = apply_overrides(before, {"model.quantizer.name": "nearest"})
    assert same == before
    assert before["model"]["quantizer"] == {"name": "nearest", "commitment": 0.25}


@given(st.lists(st.one_of(st.text(max_size=12), st.text(alphabet="-.=&*![]{}:a1 ", max_size=12)), max_size=5))
@settings(max_examples=150, deadline=None)
def test_any_arguments_end_in_settings_or_one_kind_of_error(tokens: list[str]) -> None:
    try:
        build(Room, apply_overrides({"desk": {"owner": "Ada"}}, parse_overrides(tokens)), "S")
    except TavqError:
        return
    assert all(token.startswith("--desk.") for token in tokens[:1])


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.one_of(st.integers(), st.booleans(), st.none())))
def test_overrides_survive_a_round_trip(values: dict[str, Any]) -> None:
    tokens = [part for key, value in values.items() for part in (f"--s.{key}", yaml.safe_dump(value).split("\n")[0])]
    assert parse_overrides(tokens) == {f"s.{key}": value for key, value in values.items()}


def test_overrides_are_applied_to_a_copy() -> None:
    settings = {"desk": {"owner": "Ada", "paper": {"width": 1}}}
    changed = apply_overrides(settings, {"desk.paper.width": 2, "desk.pen.name": "ball", "desk.owner": "Eve"})
    assert changed == {"desk": {"owner": "Eve", "paper": {"width": 2}, "pen": {"name": "ball"}}}
    assert settings == {"desk": {"owner": "Ada", "paper": {"width": 1}}}


def test_a_part_given_by_name_keeps_it_under_an_override() -> None:
    assert apply_overrides({"pen": "ball"}, {"pen.width": 1}) == {"pen": {"name": "ball", "width": 1}}
    assert apply_overrides({"spare": None}, {"spare.name": "ball"}) == {"spare": {"name": "ball"}}
    assert apply_overrides({}, {"pen": "ball", "pen.width": 1}) == {"pen": {"name": "ball", "width": 1}}
