"""Each known cause of a collapse is recognised in a log that shows it."""

import re
from typing import Any

import pytest
import torch

from tavq.codebooks.learned import LearnedCodebook
from tavq.metrics.codes import CodeUsage, spacing
from tavq.metrics.collapse import describe_collapse, diagnose, is_collapsed

HEALTHY = {
    "step": 100,
    "codebook/usage": 0.9,
    "codebook/perplexity": 200.0,
    "codebook/spacing": 0.1,
    "codebook/scale": 0.3,
    "quantizer/commitment": 0.01,
}
LOW = {**HEALTHY, "step": 200, "codebook/usage": 0.02, "codebook/perplexity": 3.0}
FEATURES = {"codebook": {"name": "learned", "init": "features", "restart": 0.0}, "hierarchy": {"weight": 1.0}}
LIGHT = {**FEATURES, "hierarchy": {"weight": 0.1}}


@pytest.mark.parametrize(
    ("usage", "perplexity", "expected"), [(0.5, 50, False), (0.04, 50, True), (0.5, 4, True), (0.05, 5, False)]
)
def test_few_used_entries_or_few_that_dominate_are_a_collapse(usage: float, perplexity: float, expected: bool) -> None:
    assert is_collapsed({"codebook/usage": usage, "codebook/perplexity": perplexity}, (100,), 0.05) is expected


def test_the_perplexity_of_parts_is_measured_by_their_size() -> None:
    """Four parts of 64 entries: each can have a perplexity of 64 at most."""
    line = {"codebook/usage": 0.9, "codebook/perplexity": 6.0}
    assert not is_collapsed(line, (64,) * 4, 0.05)
    assert is_collapsed(line, (256,), 0.05)


@pytest.mark.parametrize(
    ("lines", "settings", "cause", "remedy"),
    [
        ([{**LOW, "quantizer/commitment": 0.64, "codebook/scale": 0.001}], {"codebook": {"init": "uniform"}},
         r"far from all entries \(at a distance of 0.8 per dimension, where entries are of size 0.001\)",
         "init features"),
        ([HEALTHY, LOW], FEATURES, "It was 90.0% at step 100: the features have moved faster", "learning_rate"),
        ([{**LOW, "codebook/spacing": 0.001}], FEATURES, r"copies of another one \(distance 0.001", "anchored"),
        ([{**LOW, "quantizer/commitment/low": 0.1}], FEATURES, "finer grids", "--model.hierarchy.weight 0.1"),
        ([{**LOW, "quantizer/commitment/low": 0.1}], LIGHT, "few distinct features", "`entropy`"),
        ([LOW], FEATURES, "few distinct features", "fewer entries"),
    ],
)  # fmt: skip
def test_the_cause_and_the_remedy(lines: Any, settings: Any, cause: str, remedy: str) -> None:
    found = diagnose(lines, settings)
    assert found.sign == "2.0% of the entries are in use, with a perplexity of 3.0."
    assert re.search(cause, found.cause)
    assert remedy in found.remedy
    assert str(found) == f"{found.sign} {found.cause} Try: {found.remedy}"


def of_level(line: dict[str, Any], level: str) -> dict[str, Any]:
    """What a line says of the deep level, said of another one."""
    renamed = {key.replace("codebook/", f"codebook/{level}/"): value for key, value in line.items()}
    return {f"{key}/{level}" if key.startswith("quantizer/") else key: value for key, value in renamed.items()}


@pytest.mark.parametrize(
    ("before", "now", "cause"),
    [
        (HEALTHY, LOW, "It was 90.0% at step 100"),
        (LOW, {**LOW, "quantizer/commitment": 0.64, "codebook/scale": 0.001}, "far from all entries"),
        (LOW, {**LOW, "codebook/spacing": 0.001}, "copies of another one"),
        (LOW, LOW, "few distinct features"),
    ],
)
@pytest.mark.parametrize("deep", [HEALTHY, LOW], ids=["deep healthy", "deep fallen"])
def test_the_cause_at_a_level_with_a_codebook_of_its_own_is_sought_there(
    deep: dict[str, Any], before: dict[str, Any], now: dict[str, Any], cause: str
) -> None:
    old = {**HEALTHY, "step": 50}  # of a version that logged the deep level alone
    lines = [old, {**of_level(before, "low"), **HEALTHY}, {**of_level(now, "low"), **deep, "step": 200}]
    found = diagnose(lines, {**LIGHT, "hierarchy": {"codebook": "own", "weight": 0.1}}, "codebook/low")
    assert found.sign == "2.0% of the entries are in use, with a perplexity of 3.0."
    assert cause in found.cause


@pytest.mark.parametrize(
    ("codebook", "remedy"),
    [
        ({"name": "learned", "init": "uniform"}, "redraw_until 128"),
        ({"name": "learned", "init": "features", "restart": 0.0}, "restart 1"),
        ({"name": "learned", "init": "features", "restart": 1.0}, "entropy"),
        ({"name": "ema", "restart": 0.0}, "restart 1"),
        ({"name": "anchored"}, "entropy"),
    ],
)
def test_the_remedy_is_not_what_the_recipe_does_already(codebook: dict[str, Any], remedy: str) -> None:
    far = {**LOW, "quantizer/commitment": 0.64, "codebook/scale": 0.001}
    assert remedy in diagnose([far], {"codebook": codebook}).remedy


def test_a_new_uniform_codebook_should_start_from_features() -> None:
    """A codebook initialised as in the papers, for features of an encoder's scale."""
    table = LearnedCodebook(LearnedCodebook.Config(entries=256, width=64))().detach()
    measured = {f"codebook/{key}": value for key, value in spacing(table).items()}
    commitment = float(torch.randn(500, 64, generator=torch.Generator().manual_seed(0)).square().mean())
    line = {**LOW, **measured, "quantizer/commitment": commitment}
    assert "init features" in diagnose([line], {"codebook": {"name": "learned", "init": "uniform"}}).remedy


def test_nearest_neighbours_of_many_entries_are_searched_among_all() -> None:
    entries = torch.arange(5000.0)[:, None] * 2
    assert spacing(entries)["spacing"] == pytest.approx(2)
    twice = torch.cat([entries, entries + 0.5])  # neighbours that a sample of entries alone would miss
    assert spacing(twice)["spacing"] == pytest.approx(0.5)


def counted(share: float, images: int = 100) -> CodeUsage:
    """100 entries of which the first few were chosen equally often."""
    codes = CodeUsage((100,))
    codes.update(torch.arange(images * 100).view(images, 10, 10) % int(100 * share))
    return codes


@pytest.mark.parametrize(
    ("share", "random", "said"),
    [(0.5, False, ""), (0.05, False, ""), (0.04, False, "report names the likely cause"), (0.04, True, "hid it")],
)
def test_an_evaluation_warns_of_a_collapse(share: float, random: bool, said: str) -> None:
    codes = counted(share)
    found = describe_collapse(codes, random)
    assert (found == "") == (said == "")
    assert said in found
    if said:
        assert "4.0% of 100 entries are in use, with a perplexity of 4.0" in found


def test_a_few_images_show_no_collapse() -> None:
    codes = counted(0.01, images=3)
    assert describe_collapse(codes, False) == ""
    assert describe_collapse(CodeUsage((100,)), False) == ""
