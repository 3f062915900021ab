"""The house rules that a machine can check."""

import ast
import builtins
import dis
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import tavq
from tavq import recipes

CORE_FILES = "tavq/core/files.py"
CONVERTER = "tavq/core/conversion.py"
PACKAGE = Path(__file__).parents[2] / "src" / "tavq"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py")  # that one runs when imported
FIGURES = "tavq/scenes/figures/"  # one drawing a function, each named after what it draws


def trees(sources: list[Path]) -> Iterator[tuple[str, ast.Module]]:
    for path in sources:
        yield path.as_posix().partition("/src/")[2], ast.parse(path.read_text())


def dotted(node: ast.expr) -> str:
    """`torch.load` of the expression torch.load, "" of what is no dotted name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}" if dotted(node.value) else ""
    return node.id if isinstance(node, ast.Name) else ""


def calls(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node.lineno


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def unsafe(tree: ast.Module) -> list[str]:
    banned_calls = {
        "eval", "exec", "compile", "__import__", "torch.load", "torch.save", "torch.hub.load", "yaml.load",
        "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen", "pickle.load", "pickle.loads",
    }  # fmt: skip
    banned_imports = (
        "pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "joblib",
        "marshal",
        "shelve",
        "torchvision",
        "subprocess",
    )
    found = [f"line {line}: {name}(" for name, line in calls(tree) if name in banned_calls]
    found += [f"line {line}: import {name}" for name, line in imports(tree) if name.split(".")[0] in banned_imports]
    return found


def test_nothing_that_runs_what_a_file_says(sources: list[Path]) -> None:
    found = {name: unsafe(tree) for name, tree in trees(sources)}
    (load,) = found.pop(CONVERTER)  # once, and restricted to tensors
    assert load.endswith(": torch.load(")
    (tree,) = (tree for name, tree in trees(sources) if name == CONVERTER)
    (call,) = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and dotted(node.func) == "torch.load")
    given = {word.arg: word.value for word in call.keywords}
    assert isinstance(given["weights_only"], ast.Constant)
    assert given["weights_only"].value is True
    assert None not in given
    assert {name: lines for name, lines in found.items() if lines} == {}
    hostile = (
        "import pickle\nfrom torch import hub\ntorch.load('x')\nyaml.load(y)\neval('1')\nnp.load(z, allow_pickle=True)"
    )
    assert len(unsafe(ast.parse(hostile))) == 4


def test_arrays_are_never_unpickled(sources: list[Path]) -> None:
    for name, tree in trees(sources):
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code", "weights_only"):
                assert isinstance(node.value, ast.Constant), name
                assert node.value.value is (node.arg == "weights_only"), name


def test_classes_are_looked_up_in_registries_only(sources: list[Path]) -> None:
    found = {name for name, tree in trees(sources) for call, _ in calls(tree) if call == "importlib.import_module"}
    assert found <= {"tavq/core/registry.py", "tavq/core/lazy.py"}  # a package's own modules, by their own names


def test_core_files_is_the_only_door(sources: list[Path]) -> None:
    doors = {
        "json.load",
        "json.loads",
        "json.dump",
        "np.load",
        "np.save",
        "np.savez",
        "safe_open",
        "load_file",
        "save_file",
    }
    for name, tree in trees(sources):
        if name != CORE_FILES:
            assert [(call, line) for call, line in calls(tree) if call in doors] == [], name
            assert [line for module, line in imports(tree) if module.startswith("safetensors")] == [], name


def test_signatures_can_be_checked(sources: list[Path]) -> None:
    """Each of these disables the checks of shapes at run time, or breaks on them."""
    for name, tree in trees(sources):
        found = [module for module, _ in imports(tree) if module in ("__future__.annotations", "typing.Self")]
        assert found == [], f"{name}: {found}"


def test_whoever_is_public_says_what_comes_out(sources: list[Path]) -> None:
    silent = []
    for name, tree in trees(sources):
        if not ast.get_docstring(tree):
            silent.append(name)
        for node in tree.body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node) and FIGURES not in name:
                silent.append(f"{name}: {node.name}")
            if isinstance(node, ast.ClassDef) and not node.bases:  # others may inherit theirs
                methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
                silent += [
                    f"{name}: {node.name}.{method.name}"
                    for method in methods
                    if not method.name.startswith("_") and not ast.get_docstring(method)
                ]
    assert silent == []


def test_files_have_names_that_say_something(sources: list[Path]) -> None:
    stems = {path.stem for path in sources}
    assert not stems & {"utils", "util", "helpers", "common", "misc", "tools"}


def test_nothing_is_left_to_do(texts: dict[str, str]) -> None:
    marks = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b")
    assert [name for name, text in texts.items() if marks.search(text)] == []


def test_no_path_of_one_machine(texts: dict[str, str]) -> None:
    places = re.compile(r"(?<![\w.~/])/(work|home|root|Users|tmp|mnt)/\w")
    found = {name: match[0] for name, text in texts.items() if (match := places.search(text))}
    assert {name: place for name, place in found.items() if name != "tests/house/test_source.py"} == {}


def test_nobody_needs_torchvision() -> None:
    assert importlib.util.find_spec("torchvision") is None


def test_imports_keep_to_their_floors(root: Path) -> None:
    command = shutil.which(
        "lint-imports", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    )
    assert command is not None
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run([command, "--no-cache"], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_public_names_are_there() -> None:
    for name in tavq.__all__:
        assert getattr(tavq, name) is not None
    assert set(tavq._HOMES) == set(tavq.__all__) - {"__version__"}
    with pytest.raises(AttributeError, match="has no attribute 'Tokeniser'"):
        _ = tavq.Tokeniser


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_says_what_it_is(name: str) -> None:
    """And whoever extends another says it in its own words."""
    own = recipes.read_yaml(recipes.text_of(name), name).get("description", "")
    assert len(own) > 20
    recipe = recipes.load(name)
    assert recipe.description == own
    assert recipe.train.steps >= 1


def global_names(code: types.CodeType) -> Iterator[str]:
    """The names that a module's functions look up outside themselves."""
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from (step.argval for step in dis.get_instructions(part) if step.opname == "LOAD_GLOBAL")
            yield from global_names(part)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_name_that_a_function_reads_exists(path: Path) -> None:
    """jaxtyping's axis names are not Python names, so that the linter and the type checker leave undefined ones be."""
    if path.parent.name == "kernels":
        pytest.importorskip("triton", reason="Triton is not installed: pip install 'tavq[triton]'")
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    known = {*vars(importlib.import_module(name)), *vars(builtins)}
    missing = {found for found in global_names(compile(path.read_text(), str(path), "exec")) if found not in known}
    assert not missing
