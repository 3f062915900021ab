"""Captioning: the loss by hand, generation, metrics and baselines, and a pretrained model in the model folder."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gpt2 import write_gpt2
from torch import Tensor

from tavq.core.config import build
from tavq.core.errors import FileError, UsageError
from tavq.data.records import Record
from tavq.interfaces import sum_losses
from tavq.metrics.captions import CaptionScores
from tavq.metrics.record import by_key
from tavq.nets.language import DecodingConfig
from tavq.recipes.schema import TaskRecipe
from tavq.tasks.base import TokenLayout
from tavq.tasks.captioning import SAMPLED, Captioning, CaptioningConfig, best_constant
from tavq.tasks.model_folder import TaskConfig, load_task, save_task
from tavq.tasks.text_tokenizer import FILE, TextTokenizer
from tavq.tasks.understanding import UnderstandingBatch
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training.task.trainer import parameter_groups

LAYOUT = TokenLayout(height=2, width=2, sizes=(7,))
WIDTH = 3
CAPTIONS = ["A red barn.", "A barn beside a lake.", "There is a green barn by the road."]
LANGUAGE = {"layers": 1, "heads": 2, "width": 16, "dropout": 0.0}


def settings(**more: Any) -> CaptioningConfig:
    values = {"language": LANGUAGE, "image": {"hidden": 8}, "max_length": 8, "decoding": {"beams": 1}, **more}
    return build(CaptioningConfig, values, "test")


def make_task(config: CaptioningConfig, captions: list[str] = CAPTIONS, seed: int = 0) -> Captioning:
    torch.manual_seed(seed)
    task = Captioning(Captioning.resolve_config(config, LAYOUT, captions), LAYOUT, WIDTH)
    task.prepare(captions)
    return task.eval()


def random_features(count: int = 3, seed: int = 3) -> Tensor:
    return torch.randn(count, 4, WIDTH, generator=torch.Generator().manual_seed(seed)) * 2


def make_batch(task: Captioning, captions: list[str], seed: int = 3) -> UnderstandingBatch:
    return UnderstandingBatch(
        random_features(len(captions), seed), tuple(map(str, range(len(captions)))), task.collate(captions)
    )


def small_tokenizer() -> Tokenizer:
    net = {"channels": 8, "multipliers": [1, 1], "blocks": 1, "attention": False}
    values = {"net": net, "codebook": {"name": "learned", "entries": 7, "width": WIDTH}, "quantizer": "nearest"}
    return Tokenizer(build(TokenizerConfig, values, "test"))


# --- training ---------------------------------------------------------------------------------------------------


def test_each_caption_is_an_example_or_the_long_text() -> None:
    record = Record("a.png", captions=("A red\n barn. ", "A barn."), long_text="A  barn stands here.")
    assert Captioning.extract_examples(settings(), record, lambda: (8, 8)) == ["A red barn.", "A barn."]
    assert Captioning.extract_examples(settings(text_field="long_text"), record, lambda: (8, 8)) == [
        "A barn stands here."
    ]
    assert (
        Captioning.extract_examples(
            settings(text_field="long_text"), Record("b.png", captions=("A barn.",)), lambda: (8, 8)
        )
        == []
    )
    assert Captioning.describe_requirement(settings()) == "captions"
    assert "long_text" in Captioning.describe_requirement(settings(text_field="long_text"))


def test_a_caption_ends_unless_it_was_truncated() -> None:
    task = make_task(settings(max_length=6))
    assert task.text_tokenizer is not None
    said = task.collate(CAPTIONS)
    ends = said.ids == task.text_tokenizer.end_id
    assert said.mask.sum(dim=1).tolist() == [5, 6, 6]  # a red barn . END; a barn beside a lake .; there is a green …
    assert ends.sum(dim=1).tolist() == [1, 0, 0]
    assert said.ids[0].tolist()[:4] == task.text_tokenizer.encode(["a red barn."])[0]
    assert said.ids[0].tolist()[4:] == [task.text_tokenizer.end_id, task.text_tokenizer.pad_id]


def loss_by_hand(task: Captioning, batch: UnderstandingBatch) -> float:
    """Word by word: everything before it is read anew, alone and without padding."""
    losses = []
    for row, ids, mask in zip(batch.features, batch.examples.ids, batch.examples.mask, strict=True):
        words = ids[mask]
        image = task.adapter(row[None])[0]
        for place, word in enumerate(words):
            read = torch.cat([image, task.language.embed(words[None, :place])[0]])[None]
            hidden = task.language(read, torch.ones(read.shape[:2], dtype=torch.bool))[0, -1]
            logits = hidden @ task.language.gpt.transformer.wte.weight.T
            losses.append(float((logits.logsumexp(dim=0) - logits[word]).detach()))
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("source", ["codes", "features", "none"])
def test_the_loss_is_the_mean_over_all_words_and_ends(source: str) -> None:
    task = make_task(settings(image={"source": source, "hidden": 8}, max_length=7))
    batch = make_batch(task, CAPTIONS)
    losses = task.loss(batch)
    assert list(losses) == ["captioning/word"]
    assert float(sum_losses(losses).detach()) == pytest.approx(loss_by_hand(task, batch), rel=1e-5)
    short = make_batch(task, CAPTIONS[:1])  # without padding
    assert float(sum_losses(task.loss(short)).detach()) == pytest.approx(loss_by_hand(task, short), rel=1e-5)


def test_padding_does_not_count() -> None:
    task = make_task(settings())
    batch = make_batch(task, CAPTIONS)
    assert not bool(batch.examples.mask.all())
    before = sum_losses(task.loss(batch))
    batch.examples.ids[~batch.examples.mask] = 5
    assert torch.equal(sum_losses(task.loss(batch)), before)


def test_the_loss_is_finite_in_half_precision() -> None:
    task = make_task(settings()).train()
    batch = make_batch(task, CAPTIONS)
    with torch.autocast("cpu", torch.bfloat16):
        value = sum_losses(task.loss(batch))
    value.backward()
    assert value.dtype == torch.float32
    assert float(value.detach()) == pytest.approx(float(sum_losses(task.loss(batch)).detach()), rel=0.02)


# --- generation -------------------------------------------------------------------------------------------------


def trained(captions: list[str] = CAPTIONS, **more: Any) -> Captioning:
    task = make_task(settings(max_length=12, **more), captions)
    task.adapter.fit(random_features(len(captions)))
    batch = make_batch(task, captions)
    optimizer = torch.optim.Adam(task.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        sum_losses(task.loss(batch)).backward()
        optimizer.step()
    return task.eval()


@pytest.fixture(scope="module")
def fluent() -> Captioning:
    return trained()


@pytest.mark.parametrize("decoding", [{"beams": 1}, {"beams": 4}, {"beams": 1, "temperature": 0.1}])
def test_it_generates_what_it_has_learned(fluent: Captioning, decoding: dict[str, Any]) -> None:
    found = fluent.caption(random_features(), DecodingConfig(**decoding))
    assert found == [[caption.lower()] for caption in CAPTIONS]


def test_count_and_seed_of_captions(fluent: Captioning) -> None:
    decoding = DecodingConfig(beams=1, temperature=3.0)
    found = fluent.caption(random_features(), decoding, 4, seed=1)
    assert [len(captions) for captions in found] == [4, 4, 4]
    assert (
        found
        == fluent.caption(random_features(), decoding, 4, seed=1)
        != fluent.caption(random_features(), decoding, 4, seed=2)
    )
    assert not any(word in str(found) for word in ("<pad>", "<end>", "<unknown>"))
    named = fluent.caption(random_features(), decoding, 4, seed=1, names=["a.png", "b.png", "c.png"])
    assert named[1:] == fluent.caption(random_features()[1:], decoding, 4, seed=1, names=["b.png", "c.png"])
    assert named[:1] != fluent.caption(random_features()[:1], decoding, 4, seed=1, names=["b.png"])
    searched = fluent.caption(random_features(), DecodingConfig(beams=4), 3)
    assert [captions[0] for captions in searched] == [caption.lower() for caption in CAPTIONS]
    assert all(len(set(captions)) == 3 for captions in searched)


def test_a_caption_has_at_most_max_length_words(fluent: Captioning) -> None:
    assert fluent.text_tokenizer is not None
    [captions] = fluent.caption(random_features(1), DecodingConfig(beams=1, temperature=100.0), 30)
    lengths = {len(ids) for ids in fluent.text_tokenizer.encode(captions)}
    assert max(lengths) <= 12
    assert min(lengths) >= 1


# --- metrics ----------------------------------------------------------------------------------------------------


def test_an_image_is_captioned_once_and_scored_against_all_its_captions(fluent: Captioning) -> None:
    known = {"a.png": ["A red barn.", "A barn."], "b.png": ["A lake."], "c.png": ["A green road."]}
    seen_rows = dict(zip(known, random_features(), strict=True))
    keys = [key for key, texts in known.items() for _ in texts]
    examples = [text for texts in known.values() for text in texts]
    everything = torch.stack([seen_rows[key] for key in keys])
    batches = [(everything[:3], keys[:3], examples[:3]), (everything[3:], keys[3:], examples[3:])]
    found = by_key(fluent.compute_metrics(iter(batches), list(zip(keys, examples, strict=True))))
    written = dict(zip(known, (caption.lower() for caption in CAPTIONS), strict=True))
    others = dict(zip(known, [written["b.png"], written["c.png"], written["a.png"]], strict=True))
    constant = dict.fromkeys(known, best_constant(list(zip(keys, examples, strict=True))))
    for name, captions in (("", written), ("shuffled/", others), ("constant/", constant)):
        scores = CaptionScores()
        for key, caption in captions.items():
            scores.add(key, caption, known[key])
        for metric in scores.compute()["metrics"]:
            assert found[name + metric.key].measured(metric.value, metric.interval, baseline=None) == metric
    assert {"BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr-D", "constant/CIDEr-D", "shuffled/BLEU-2"} <= set(found)


def test_baselines_need_a_second_image_and_a_training_split(fluent: Captioning) -> None:
    found = by_key(fluent.compute_metrics([(random_features()[:1], ["a.png"], ["A red barn."])], []))
    assert not any("/" in name for name in found)
    assert found["BLEU-1"].value == pytest.approx(1.0)
    assert fluent.compute_metrics([], []) == []


def test_the_best_constant_has_the_best_cider() -> None:
    training = [
        *[(f"{n}.png", f"A dog on a {place}.") for n, place in enumerate(["mat", "road", "hill", "ship"])],
        *[("x.png", "Two cats."), ("y.png", "A bird."), ("y.png", "A dog on a big mat.")],
    ]
    captions = {caption for _, caption in training}
    values = {}
    for said in captions:
        scores = CaptionScores()
        for key in {key for key, _ in training}:
            scores.add(key, said, [caption for other, caption in training if other == key])
        values[said] = by_key(scores.compute()["metrics"])["CIDEr-D"].value
    best = max(values, key=lambda said: values[said])
    assert sorted(values.values())[-1] > sorted(values.values())[-2] + 1e-6
    assert best_constant(training) == best_constant(training[::-1]) == best


def test_the_search_for_the_best_constant_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def count(captions: list[str], images: list[list[str]]) -> list[float]:
        asked.append((len(captions), len(images)))
        return [0.0] * len(captions)

    monkeypatch.setattr("tavq.tasks.captioning.cider_d_of_constants", count)
    training = [(f"{n}.png", text) for n in range(500) for text in (f"A dog {n}.", f"A cat {n}.", "A horse.")]
    assert best_constant(training) == "A horse."  # the most frequent is tried first
    assert asked == [(SAMPLED, SAMPLED)]


# --- a pretrained language model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("gpt2") / "model")


def stepped(task: Captioning) -> Captioning:
    """After one step of AdamW, as the trainer makes it."""
    task.train()
    sum_losses(task.loss(make_batch(task, CAPTIONS))).backward()
    torch.optim.AdamW(parameter_groups(task, 0.01), 1e-3).step()
    return task.eval()


@pytest.mark.parametrize("freeze", [False, True])
def test_a_pretrained_model_trains_and_is_loaded_without_its_folder(gpt2: Path, freeze: bool, tmp_path: Path) -> None:
    folder = shutil.copytree(gpt2, tmp_path / "gpt2")
    config = settings(language={"pretrained": str(folder)}, freeze_language=freeze, max_length=20)
    task = make_task(config)
    before = {key: value.clone() for key, value in task.state_dict().items()}
    stepped(task)
    moved = {key.split(".")[0] for key, value in task.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == ({"adapter"} if freeze else {"adapter", "language"})
    whole = TaskConfig(task=task.config, layout=LAYOUT, feature_width=WIDTH)
    save_task(tmp_path / "model", whole, task, small_tokenizer(), None, "card", {})
    shutil.rmtree(folder)
    loaded = load_task(tmp_path / "model", "caption").task
    decoding = DecodingConfig(beams=1, temperature=1.0)
    assert loaded.caption(random_features(), decoding, 2, seed=4) == task.caption(
        random_features(), decoding, 2, seed=4
    )
    batch = make_batch(task, CAPTIONS)
    assert torch.equal(sum_losses(loaded.loss(batch)), sum_losses(task.loss(batch)).detach())
    assert (
        loaded.text_tokenizer.decode(loaded.text_tokenizer.encode(["A red barn, na\u00efve."])[0])
        == "A red barn, na\u00efve."
    )


def test_a_frozen_model_has_no_dropout(gpt2: Path) -> None:
    language = {"pretrained": str(gpt2), "dropout": 0.5}
    batch = make_batch(make_task(settings(language=language)), CAPTIONS)
    for freeze, same in ((True, True), (False, False)):
        task = make_task(settings(language=language, freeze_language=freeze)).train()
        values = {float(sum_losses(task.loss(batch)).detach()) for _ in range(3)}
        assert (len(values) == 1) == same


def test_unused_rows_of_a_pretrained_embedding_are_never_generated(gpt2: Path) -> None:
    task = make_task(settings(language={"pretrained": str(gpt2)}, max_length=2))
    with torch.no_grad():
        task.language.gpt.transformer.wte.weight[:-3].zero_()  # all the others are equally likely
    found = task.caption(random_features(1), DecodingConfig(beams=1, temperature=1.0), 50)[0]
    assert len(set(found)) > 10
    with torch.no_grad():
        task.language.gpt.transformer.wte.weight[-3:] *= 1000
    assert task.caption(random_features(1), DecodingConfig(beams=1, temperature=1.0), 50)[0] == found


def test_random_weights_cannot_be_frozen() -> None:
    with pytest.raises(UsageError, match=r"name a language\.pretrained"):
        settings(freeze_language=True)


def test_too_few_positions_are_refused(gpt2: Path) -> None:
    config = settings(language={"pretrained": str(gpt2)}, max_length=45)
    with pytest.raises(UsageError, match="has 48 positions and the image and text need 49; choose a larger"):
        Captioning.resolve_config(config, LAYOUT, CAPTIONS)
    assert (
        Captioning.resolve_config(config.model_copy(update={"max_length": 44}), LAYOUT, CAPTIONS).language.positions
        == 48
    )


# --- a damaged model folder -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(fluent: Captioning, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    whole = TaskConfig(task=fluent.config, layout=LAYOUT, feature_width=WIDTH)
    save_task(folder, whole, fluent, small_tokenizer(), None, "card", {})
    return folder


def _more_words(folder: Path) -> None:
    TextTokenizer.train([" ".join(map(str, range(99)))]).save(folder)


def _other_width(folder: Path) -> None:
    stored = json.loads((folder / "config.json").read_text())
    stored["model"]["task"]["language"]["width"] = 32
    del stored["seal"]
    (folder / "config.json").write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / FILE).unlink(), r"words\.json"),
        (lambda folder: (folder / FILE).write_text("{}"), r"words\.json is damaged"),
        (_more_words, r"words\.json has 102 words and the model was trained with"),
        (_other_width, r"model\.safetensors"),
    ],
)
def test_a_damaged_folder_is_refused(saved: Path, tmp_path: Path, damage: Any, message: str) -> None:
    folder = shutil.copytree(saved, tmp_path / "model")
    damage(folder)
    with pytest.raises(FileError, match=message if message == r"model\.safetensors" else r"words\.json") as error:
        load_task(folder)
    assert "\n" not in str(error.value)
    stored = json.loads((folder / "config.json").read_text())
    stored.pop("seal", None)
    (folder / "config.json").write_text(json.dumps({**stored, "files": {}}))  # a forger leaves the hashes out
    with pytest.raises(FileError, match=message) as error:
        load_task(folder)
    assert "\n" not in str(error.value)


def test_the_tokenizer_of_another_model_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "model")
    (folder / FILE).write_text((folder / FILE).read_text() + " ")
    with pytest.raises(FileError, match=r"words\.json was altered"):
        load_task(folder)


@pytest.mark.parametrize("name", ["captioning", "captioning-tiny"])
def test_sizes_of_the_recipes(name: str) -> None:
    from tavq import recipes

    recipe = recipes.load_task(name)
    assert isinstance(recipe, TaskRecipe)
    assert isinstance(recipe.task, CaptioningConfig)
    layout = TokenLayout(height=16, width=16, sizes=(256,))
    rows_and_words = recipe.task.image.token_count(layout) + recipe.task.max_length
    assert rows_and_words <= 1024  # what GPT-2 reads
    assert (recipe.task.language.pretrained == "gpt2") == (name == "captioning")
    assert recipe.train.warmup < recipe.train.steps
