"""Recipes: every shipped one can be built, and one may extend another."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tavq import recipes
from tavq.cli.recipes import METHODS
from tavq.core.config import build, flatten_settings
from tavq.core.errors import TavqError, UsageError
from tavq.recipes.schema import Recipe
from tavq.recipes.sizes import Counter

PAPERS = {
    "celeba-hq": METHODS,
    "cub200": METHODS,
    "coco": METHODS,
    "textcaps": ("vqvae", "vqgan", "cvq", "lg-vqgan", "lg-cvq"),
    "ade20k": ("vqvae", "vqgan", "gumbel", "cvq", "vqct"),
}
"""The pairs of the three papers' tables of reconstruction."""

TABLE = [f"{method}-{data}" for data, methods in PAPERS.items() for method in methods]


@pytest.fixture(scope="module")
def counter() -> Counter:
    return Counter()


TINY = {
    "model": {"net": {"channels": 8, "multipliers": [1, 2]}, "codebook": {"name": "learned", "entries": 8}},
    "data": {"size": 16},
    "train": {"steps": 2, "betas": [0.5, 0.9]},
}


def write(path: Path, settings: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def read_header(name: str) -> str:
    """The comment before the settings, as one line."""
    text = recipes.text_of(name)
    return text[: text.index("description:")].replace("\n# ", " ")


@pytest.mark.parametrize("name", recipes.names())
def test_a_shipped_recipe_can_be_built(name: str, counter: Counter) -> None:
    recipe = recipes.load(name)
    assert recipe.description
    sizes = counter.count(recipe)
    assert sizes.generator > 0
    assert (sizes.alignment > 0) == (recipe.model.align is not None)
    assert (sizes.discriminator > 0) == (recipe.train.adversarial is not None)


def test_every_pair_of_the_papers_tables_has_a_recipe() -> None:
    assert len(TABLE) == 37
    assert set(TABLE) <= set(recipes.names())


@pytest.mark.parametrize("name", [name for name in recipes.names() if not name.endswith("-256")])
def test_names_are_a_method_and_a_data_set(name: str) -> None:
    ends = [end for end in (*PAPERS, "tiny", "flickr8k", "imagenet") if name.endswith(f"-{end}")]
    assert len(ends) == 1
    assert (name in TABLE) == (ends[0] in PAPERS)


@pytest.mark.parametrize("name", TABLE)
def test_a_papers_recipe_has_the_papers_settings(name: str, counter: Counter) -> None:
    """256 px, f = 16, d = 256, 4.5e-6 x batch, and what its method changes."""
    recipe, base = recipes.load(name), recipes.load("vqgan-256")
    assert recipe.data.size == 256
    assert recipe.model.net == base.model.net
    assert recipe.model.net.factor == 16
    assert recipe.model.codebook.width == 256
    assert recipe.train.learning_rate == pytest.approx(4.5e-6 * recipe.train.batch)
    assert recipe.train.batch == (
        8 if name.startswith(("lg-", "vqct-")) or name.endswith(("textcaps", "ade20k")) else 6
    )
    assert (recipe.train.perceptual is None) == name.startswith("vqvae-")
    if not name.startswith("vqvae-"):
        assert recipe.train.adversarial == base.train.adversarial
        assert counter.count(recipe).discriminator == 2_765_633
    if not name.startswith("vqct-"):
        assert recipe.model.codebook.entries == 1024


@pytest.mark.parametrize("name", TABLE)
def test_a_papers_recipe_lists_what_was_published(name: str) -> None:
    recipe = recipes.load(name)
    text, header = recipes.text_of(name), read_header(name)
    assert "fid" in [number.metric for number in recipe.published]
    for number in recipe.published:
        assert "Table" in number.source
        assert header.startswith("# ")
        assert f"{number.value:.4f}".rstrip("0") in header.replace("0 (", " ("), (number, header)
    assert text.count("published:") == 1


CODE = {
    "vqvae": ({"train.l1": 1, "train.l2": 1, "model.quantizer.legacy": True}, "--train.l1 0"),
    "vqgan": ({"model.quantizer.legacy": True}, "--model.quantizer.legacy false"),
    "gumbel": (
        {"model.quantizer.divergence": 1e-8, "model.quantizer.hard": False},
        "--model.quantizer.hard true",
    ),
    "cvq": (
        {
            "model.codebook.distance": "l2",
            "model.codebook.contrastive": 1,
            "model.quantizer.legacy": False,
        },
        "--model.codebook.distance cosine --model.codebook.contrastive 0",
    ),
    "vqct": (
        {"model.quantizer.reduce": "sum", "model.quantizer.of.legacy": True, "model.codebook.layers": 3},
        "--model.quantizer.reduce mean --model.quantizer.of.legacy false",
    ),
    "lg-vqgan": ({"model.quantizer.legacy": True, "train.l2": 0}, "tavq text --no-projection"),
    "lg-cvq": ({"model.codebook.distance": "l2", "model.quantizer.legacy": False}, "tavq text --no-projection"),
    "ta-vqgan": (
        {"model.quantizer.legacy": True, "model.hierarchy.weight": 0.1, "model.align.standardize": True},
        "--model.align.standardize false --model.align.center false",
    ),
    "ta-cvq": (
        {"model.codebook.contrastive": 1, "model.hierarchy.weight": 0.1, "model.align.center": True},
        "--model.align.standardize false --model.align.center false",
    ),
}
"""What the code behind the tables has, by method, and how the head of the recipe gives the other form."""


@pytest.mark.parametrize("name", TABLE)
def test_a_papers_recipe_follows_the_code_or_says_that_it_does_not(name: str) -> None:
    method = name.removesuffix(next(f"-{data}" for data in PAPERS if name.endswith(f"-{data}")))
    settings, other = CODE[method]
    flat = dict(flatten_settings(recipes.load(name).model_dump(mode="json")))
    assert {key: flat[key] for key in settings} == settings
    header = read_header(name)
    source = "the paper" if method in ("vqct", "ta-vqgan", "ta-cvq") else "the code behind the table"
    assert f"Follows {source}" in header
    assert other in header


@pytest.mark.parametrize("name", TABLE)
def test_the_other_form_in_a_head_is_a_setting(name: str) -> None:
    """Every flag that a head names loads, and changes the recipe."""
    changes = dict(re.findall(r"--((?:model|train)\.[a-z0-9_.]+) ([^\s;,:)]+)", read_header(name)))
    changes.pop("train.perceptual.weights", None)
    assert changes or name.startswith("lg-")
    for key, value in changes.items():
        assert recipes.load(name, {key: yaml.safe_load(value.rstrip("."))}) != recipes.load(name), (key, value)


@pytest.mark.parametrize("method", ["vqvae", "vqgan", "gumbel", "cvq", "vqct"])
@pytest.mark.parametrize("data", ["tiny", "flickr8k"])
def test_a_small_recipe_says_that_it_differs_from_the_tables(method: str, data: str) -> None:
    header = read_header(f"{method}-{data}")
    assert header.startswith("# Follows ")
    assert f"unlike {method}-celeba-hq" in header
    assert f"{method}-celeba-hq" in TABLE


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # VQCT Table 1, LG-VQ Table 1, TA-VQ Table 1 and 2
        ("vqgan-cub200", [3.63, 5.31, 5.51]),
        ("vqvae-celeba-hq", [36.08, 41.45]),
        ("gumbel-ade20k", [24.12]),
        ("lg-cvq-textcaps", [15.51]),
        ("ta-cvq-coco", [9.65]),
        ("lg-vqgan-cub200", [3.08, 4.74]),
        ("vqct-cub200", [2.13, 4.52]),
    ],
)
def test_published_distances(name: str, expected: list[float]) -> None:
    assert [number.value for number in recipes.load(name).published if number.metric == "fid"] == expected


def test_the_papers_network_has_the_papers_size(counter: Counter) -> None:
    """72.1 M of the generator and 2.8 M of the discriminator."""
    sizes = counter.count(recipes.load("vqgan-256"))
    assert (sizes.generator, sizes.discriminator, sizes.alignment) == (72_141_699, 2_765_633, 0)
    aligned = counter.count(recipes.load("ta-vqgan-cub200"))
    assert aligned.generator == sizes.generator
    # three levels: two perceptrons 256-256-256 and one 256-768-768; two projections of 256 channels to 256
    level = 4 * (256 * 256 + 256) - 256 + (256 * 768 + 768) + (768 * 768 + 768)
    assert aligned.alignment == 3 * level + 2 * (256 * 256 + 256)


def test_the_modern_recipe() -> None:
    modern, base = recipes.load("vqganplus-imagenet"), recipes.load("vqgan-256")
    assert modern.model == base.model
    train = modern.train
    assert train.perceptual is not None
    assert (train.perceptual.distance, train.perceptual.weight) == ("logits", 0.1)
    assert (train.l1, train.l2) == (0.0, 1.0)  # 4 on images in [0, 1]
    assert train.adversarial is not None
    assert (train.adversarial.start, train.adversarial.weight, train.adversarial.lecam) == (20_000, 0.02, 0.001)
    assert not train.adversarial.adaptive
    assert train.adversarial.discriminator.downsample == "blur"
    assert train.ema == 0.999


@pytest.mark.parametrize("name", recipes.names())
def test_a_shipped_recipe_is_the_same_after_writing_and_reading(name: str) -> None:
    recipe = recipes.load(name)
    assert build(Recipe, recipe.model_dump(mode="json"), "test") == recipe


@pytest.mark.parametrize("name", [name for name in recipes.names() if name.startswith(("ta-", "lg-"))])
def test_an_aligned_recipe_differs_from_its_backbone_in_the_alignment_alone(name: str) -> None:
    aligned, plain = recipes.load(name), recipes.load(name.removeprefix("lg-").removeprefix("ta-"))
    assert aligned.model.align is not None
    train = aligned.train
    if name in TABLE and name.startswith("lg-"):  # LG-VQ has a batch of its own, and with it a learning rate
        own = {"batch": plain.train.batch, "learning_rate": plain.train.learning_rate}
        train = train.model_copy(update=own)
    assert train == plain.train
    assert aligned.data == plain.data
    own = {"align": None, "hierarchy": plain.model.hierarchy}  # both say how the alignment counts
    assert aligned.model.model_copy(update=own) == plain.model


def test_names_and_texts() -> None:
    assert recipes.names() == sorted(recipes.names())
    assert "ta-vqgan-tiny" in recipes.names()
    assert yaml.safe_load(recipes.text_of("ta-vqgan-tiny"))["extends"] == "vqgan-tiny"


def test_a_recipe_file_with_overrides(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", TINY)
    assert recipes.load(path).train.steps == 2
    changed = recipes.load(path, {"train.steps": 5, "model.codebook.width": 3, "model.quantizer": "nearest"})
    assert changed.train.steps == 5
    assert changed.model.codebook.width == 3
    assert changed.model.codebook.entries == 8


def test_settings_override_those_of_the_base(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", TINY)
    over = {
        "extends": "base.yaml",
        "model": {"codebook": {"name": "learned", "width": 3}, "net": {"channels": 16}},
        "train": {"betas": [0.1, 0.2]},
    }
    recipe = recipes.load(write(tmp_path / "mine.yaml", over))
    assert recipe.model.codebook.entries == 8
    assert recipe.model.codebook.width == 3
    assert recipe.model.net.channels == 16
    assert recipe.model.net.multipliers == (1, 2)
    assert recipe.train.betas == (0.1, 0.2)  # a list is replaced, not joined


def test_a_part_of_another_name_replaces_the_whole_part() -> None:
    base = {"quantizer": {"name": "nearest", "commitment": 0.5}, "align": {"name": "ta"}, "net": {"blocks": 1}}
    result = recipes._override(base, {"quantizer": {"name": "gumbel"}, "align": None, "net": {"channels": 8}})
    assert result == {"quantizer": {"name": "gumbel"}, "align": None, "net": {"blocks": 1, "channels": 8}}
    assert base["net"] == {"blocks": 1}


def test_a_base_is_relative_to_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "shared" / "base.yaml", TINY)
    write(tmp_path / "mine" / "middle.yaml", {"extends": "../shared/base.yaml", "train": {"steps": 3}})
    path = write(tmp_path / "mine" / "top.yaml", {"extends": "middle.yaml", "train": {"batch": 1}})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = recipes.load(path)
    assert (recipe.train.steps, recipe.train.batch, recipe.data.size) == (3, 1, 16)


def test_a_recipe_file_may_extend_a_shipped_recipe(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", {"extends": "vqgan-tiny", "train": {"steps": 3}})
    assert recipes.load(path).train.steps == 3
    assert recipes.load(path).model == recipes.load("vqgan-tiny").model


def test_tokenizers_are_not_sharded() -> None:
    with pytest.raises(UsageError, match=r"train\.sharding shares out the transformer of a task; a tokenizer and its"):
        build(Recipe, {**TINY, "train": {**TINY["train"], "sharding": "full"}}, "test")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extends": "mine.yaml"}, "extends a chain of more than 5 recipes"),
        ({"extends": "vqgan-tinny"}, "Unknown recipe 'vqgan-tinny'; known: "),
        ({"extends": "none.yaml"}, "There is no recipe file"),
        ({"extends": ["vqgan-tiny"]}, "Unknown recipe"),
        ({**TINY, "modle": {}}, "Unknown setting 'modle'; known: data, description, model, published, "
         "train. "
         "Did you mean 'model'?"),
        ({**TINY, "train": {"steps": 2, "setps": 3}}, "Unknown setting 'train.setps'"),
        ({**TINY, "train": {}}, "The setting 'train.steps' is missing"),
        ({**TINY, "data": {"size": 17}}, "data.size 17 must be a multiple of 2"),
        ({**TINY, "train": {"steps": 2, "l1": 0, "l2": 0}}, "l1 and l2 cannot both be 0"),
        ({**TINY, "train": {"steps": 2, "learning_rate": float("nan")}}, "'train.learning_rate' = nan"),
        ({**TINY, "model": {"codebook": {"name": "learned", "entires": 8}}}, "Unknown setting "
         "'model.codebook.entires'; known: entries, init, name, parts, redraw_until, restart, "
         "width. Did you mean 'entries'?"),
        ([1], "must hold settings"),
    ],
)  # fmt: skip
def test_recipes_that_are_refused(tmp_path: Path, settings: Any, message: str) -> None:
    path = write(tmp_path / "mine.yaml", settings)
    with pytest.raises(UsageError) as caught:
        recipes.load(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vqgan-tinny", "Did you mean 'vqgan-tiny'? The path of a file ends in .yaml."),
        ("none.yaml", "There is no recipe file 'none.yaml'."),
        ("../recipes/vqgan-tiny", "There is no recipe file '../recipes/vqgan-tiny'."),
        ("folder.yaml", "There is no recipe file 'folder.yaml'."),
    ],
)
def test_no_such_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(TavqError) as caught:
        recipes.load(name)
    assert message in str(caught.value)
