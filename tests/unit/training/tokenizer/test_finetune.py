"""Training with frozen parts and from a trained model: frozen parts stay bit-for-bit, the others change."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tavq.core import files
from tavq.core.config import build
from tavq.core.errors import TrainingError, UsageError
from tavq.data.folder import FolderDataset
from tavq.interfaces import TextSource
from tavq.recipes.schema import Recipe
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training.reporting import SilentReporter
from tavq.training.tokenizer import finetune
from tavq.training.tokenizer.trainer import Trainer

Make = Callable[..., Recipe]
PARTS = ("encoder", "decoder", "codebook")


def moved(trainer: Trainer) -> set[str]:
    """The parts that training changed."""
    before = {name: value.clone() for name, value in trainer.tokenizer.state_dict().items()}
    trainer.run()
    after = trainer.tokenizer.state_dict()
    return {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize(
    ("frozen", "adaptive"),
    [
        (["encoder"], True), (["codebook"], True), (["encoder", "codebook"], True),
        (["decoder"], False), (["encoder", "decoder"], False), ([], True),
    ],
)  # fmt: skip
def test_frozen_parts_do_not_change_and_the_others_do(
    recipe: Make, dataset: FolderDataset, tmp_path: Path, frozen: list[str], adaptive: bool
) -> None:
    """An unfrozen codebook would be initialized from features at each of these steps."""
    changes = {"train.freeze": frozen, "train.adversarial.adaptive": adaptive, "model.codebook.redraw_until": 4}
    trainer = Trainer(recipe({**changes, "train.ema": 0.9, "train.clip": 1.0}), dataset, tmp_path / "run")
    assert moved(trainer) == set(PARTS) - set(frozen)


def test_a_frozen_aligner_and_hierarchy_do_not_change(
    aligned: Make, dataset: FolderDataset, words: TextSource, tmp_path: Path
) -> None:
    trainer = Trainer(aligned({"train.freeze": ["aligner", "hierarchy"]}), dataset, tmp_path / "run", words)
    assert moved(trainer) == set(PARTS)


def test_frozen_parts_resume_bit_for_bit(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    settings = {"train.freeze": ["codebook"], "train.ema": 0.9}
    Trainer(recipe({**settings, "train.steps": 6}), dataset, tmp_path / "whole").run()
    Trainer(recipe({**settings, "train.steps": 4}), dataset, tmp_path / "parts").run()
    Trainer(recipe({**settings, "train.steps": 6}), dataset, tmp_path / "parts").run(resume=True)
    runs = [(tmp_path / run / "model/model.safetensors").read_bytes() for run in ("whole", "parts")]
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.freeze": ["encodr"]}, "Unknown part 'encodr'; known: codebook, decoder, encoder, quantizer. Did you "
         "mean 'encoder'?"),
        ({"train.freeze": ["aligner"]}, "Unknown part 'aligner'; known: codebook, decoder, encoder, quantizer"),
        ({"train.freeze": ["decoder"]}, "set it to false, or do not freeze the decoder"),
    ],
)  # fmt: skip
def test_parts_that_cannot_be_frozen(recipe: Make, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=r"train\.freeze") as caught:
        recipe(changes)
    assert message in str(caught.value)


def test_freezing_every_part_is_refused(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    settings = recipe({"train.freeze": list(PARTS), "train.adversarial.adaptive": False})
    with pytest.raises(UsageError, match=r"train\.freeze names encoder, decoder, codebook, which leaves nothing"):
        Trainer(settings, dataset, tmp_path / "run")


def to_vector(part: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in part.parameters()])


@pytest.mark.parametrize("steps", [5, 6])
def test_parts_have_their_own_learning_rate_and_resume_bit_for_bit(
    recipe: Make, dataset: FolderDataset, tmp_path: Path, steps: int
) -> None:
    """A factor as small as this leaves a part where it was."""
    factors = {"encoder": 1e-30, "discriminator": 1e-30}
    settings = {"train.learning_rate_factors": factors, "train.ema": 0.9, "train.clip": 1.0, "train.decay": "cosine"}
    settings["train.checkpoint_every"] = steps - 2
    whole = Trainer(recipe({**settings, "train.steps": steps}), dataset, tmp_path / "whole")
    assert whole.discriminator is not None
    parts = [whole.tokenizer.encoder, whole.discriminator, whole.tokenizer.decoder, whole.tokenizer.codebook]
    before = [to_vector(part) for part in parts]
    whole.run()
    far = [float((to_vector(part) - start).abs().max()) for part, start in zip(parts, before, strict=True)]
    assert max(far[:2]) < 1e-20
    assert min(far[2:]) > 1e-4
    stopped = Trainer(recipe({**settings, "train.steps": steps}), dataset, tmp_path / "parts")
    stopped.loop.reporter = Stopping(stopped, steps - 2)
    with pytest.raises(TrainingError, match="Stopped by a signal"):
        stopped.run()
    Trainer(recipe({**settings, "train.steps": steps}), dataset, tmp_path / "parts").run(resume=True)
    runs = [(tmp_path / run / "model/model.safetensors").read_bytes() for run in ("whole", "parts")]
    assert runs[0] == runs[1]


class Stopping(SilentReporter):
    """Stops a run after a step."""

    def __init__(self, trainer: Trainer, at: int) -> None:
        self.trainer, self.at = trainer, at

    def progress(self, step: int, steps: int, line: object) -> None:
        if step == self.at:
            self.trainer.loop.stop()


def test_a_factor_of_one_changes_nothing(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    """Every parameter is in exactly one group."""
    runs = []
    for factors in ({}, {"encoder": 1.0, "codebook": 1.0, "quantizer": 1.0}):
        run = tmp_path / str(len(runs))
        trainer = Trainer(recipe({"train.learning_rate_factors": factors}), dataset, run)
        grouped = [id(p) for group in trainer.optimizers["model"].param_groups for p in group["params"]]
        assert sorted(grouped) == sorted(map(id, trainer.tokenizer.parameters()))
        trainer.run()
        runs.append((run / "model/model.safetensors").read_bytes())
    assert runs[0] == runs[1]


def test_a_new_discriminator_learns_alone_at_first(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    """Through its warm-up the tokenizer is what it is without a discriminator, to the bit; then it is not."""
    alone = {"train.adversarial.start": 0, "train.adversarial.warmup": 2, "train.log_every": 1}
    made: dict[str, list[bytes]] = {}
    for name, changes in (("none", {"train.adversarial": None}), ("warm", alone)):
        for steps in (2, 3):
            run = tmp_path / f"{name}-{steps}"
            trainer = Trainer(recipe({**changes, "train.steps": steps}), dataset, run)
            trainer.run()
            made.setdefault(name, []).append((run / "model/model.safetensors").read_bytes())
    assert made["none"][0] == made["warm"][0]
    assert made["none"][1] != made["warm"][1]
    lines = trainer.folder.read_log()
    assert ["adversarial/discriminator" in line for line in lines] == [True] * 3
    assert ["adversarial/generator" in line for line in lines] == [False, False, True]


# --- from a trained model -------------------------------------------------------------------------------------------


def state(trainer: Trainer) -> dict[str, Tensor]:
    return trainer.tokenizer.state_dict()


def test_a_run_starts_from_a_models_weights(
    recipe: Make, aligned: Make, dataset: FolderDataset, words: TextSource, tmp_path: Path
) -> None:
    Trainer(recipe(), dataset, tmp_path / "first").run()
    trained = files.read_tensors(tmp_path / "first/model/model.safetensors")
    begin = {"train.start_from": str(tmp_path / "first"), "train.freeze": ["encoder", "codebook"]}
    second = Trainer(recipe(begin), dataset, tmp_path / "second")
    assert all(torch.equal(value, trained[name]) for name, value in state(second).items())
    assert moved(second) == {"decoder"}
    with_text = Trainer(aligned(begin), dataset, tmp_path / "third", words)  # the aligner keeps its own
    assert all(torch.equal(state(with_text)[name], value) for name, value in trained.items())


def test_the_mean_of_the_text_is_that_of_the_store_that_is_trained_on(
    aligned: Make, dataset: FolderDataset, words: TextSource, tmp_path: Path
) -> None:
    Trainer(aligned(), dataset, tmp_path / "first", words).run()
    begin = aligned({"train.start_from": str(tmp_path / "first")})
    other = copy.copy(words)
    other.vocabulary = lambda granularity: (["fourth"], np.full((1, 6), 2.0, np.float32))  # type: ignore[method-assign]
    found = state(Trainer(begin, dataset, tmp_path / "second", other))
    trained = files.read_tensors(tmp_path / "first/model/model.safetensors")
    means = [name for name in found if name.endswith("text_mean")]
    assert len(means) == 3
    assert all(torch.allclose(found[name], torch.full((6,), 6**-0.5)) for name in means)
    rest = [name for name in found if name not in means]
    assert all(torch.equal(found[name], trained[name]) for name in rest)


def test_a_model_that_does_not_fit_is_refused(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    Trainer(recipe(), dataset, tmp_path / "first").run()
    begin = {"train.start_from": str(tmp_path / "first")}
    with pytest.raises(UsageError, match=r"'codebook.table' is \[16, 8\] there and \[32, 8\] here"):
        Trainer(recipe({**begin, "model.codebook.entries": 32}), dataset, tmp_path / "second")
    with pytest.raises(UsageError, match="There is no model at"):
        Trainer(recipe({"train.start_from": str(tmp_path / "none")}), dataset, tmp_path / "third")


def test_a_model_with_other_groups_is_refused(tmp_path: Path) -> None:
    settings = {"net": {"channels": 8, "multipliers": [1, 2]}, "codebook": {"name": "learned", "width": 4}}
    tokenizer = Tokenizer(build(TokenizerConfig, settings, "test"))
    net = {**settings["net"], "groups": 8}
    Tokenizer(build(TokenizerConfig, {**settings, "net": net}, "test")).save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match=r"normalizations have 8 groups and 2 here. Set model\.net\.groups to 8"):
        finetune.initialize_from(tokenizer, str(tmp_path / "model"))


@pytest.mark.parametrize("has_levels", [True, False])
def test_codebooks_of_levels_keep_the_entries_of_the_model(has_levels: bool, tmp_path: Path) -> None:
    """A model that was trained for fewer steps than it redraws entries would lose them to features."""
    settings = {
        "net": {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False},
        "codebook": {"name": "learned", "entries": 8, "width": 4, "init": "features", "redraw_until": 128},
    }
    text = {"align": {"name": "ta"}, "text_width": 5, "hierarchy": {"codebook": "own"}}
    model = Tokenizer(build(TokenizerConfig, settings | (text if has_levels else {}), "test"))
    model.save_pretrained(tmp_path / "model")
    tokenizer = Tokenizer(build(TokenizerConfig, settings | text, "test"))
    finetune.initialize_from(tokenizer, str(tmp_path / "model"))
    assert list(tokenizer.level_codebooks) == ["low", "middle"]
    for codebook in tokenizer.level_codebooks.values():
        before = codebook().detach().clone()
        codebook.init_from_features(torch.randn(20, 4))
        assert torch.equal(codebook(), before) == has_levels


def test_an_alignment_that_reaches_no_entry_is_refused() -> None:
    """The entries of `ema` follow running means, and a frozen codebook follows nothing."""
    values = {
        "net": {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False},
        "codebook": {"name": "learned", "entries": 8, "width": 4},
        "align": {"name": "ta", "gradient": "codebook"},
        "text_width": 5,
    }
    learned = Tokenizer(build(TokenizerConfig, values, "test"))
    finetune.check_gradient_paths(learned)
    finetune.freeze(learned, ["codebook"])
    ema = Tokenizer(build(TokenizerConfig, values | {"codebook": {"name": "ema", "entries": 8, "width": 4}}, "test"))
    for tokenizer in (learned, ema):
        with pytest.raises(UsageError, match=r"model\.align\.gradient is 'codebook', and the codebook '\w+' of the"):
            finetune.check_gradient_paths(tokenizer)
    own = Tokenizer(build(TokenizerConfig, values | {"hierarchy": {"codebook": "own"}}, "test"))
    finetune.freeze(own, ["codebook"])  # the tables of the other levels still learn
    with pytest.raises(UsageError, match="of the level 'deep' is frozen"):
        finetune.check_gradient_paths(own)
