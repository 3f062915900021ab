"""The loop: what decides its results, what stops it, and which files it writes."""

import json
import math
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import load_newest
from torch import Tensor

from tavq.core import files
from tavq.core.errors import FileError, TrainingError, UsageError
from tavq.data.folder import FolderDataset
from tavq.interfaces import Batch, TextSource
from tavq.recipes.schema import Recipe, TrainConfig
from tavq.tokenizer import Tokenizer
from tavq.training import checkpoint
from tavq.training.log_lines import TIMING
from tavq.training.loop import step_seed
from tavq.training.reporting import SilentReporter
from tavq.training.schedule import describe_schedule_change, find_schedule_change, learning_rate
from tavq.training.tokenizer.trainer import Trainer

Make = Callable[..., Recipe]


class Listener(SilentReporter):
    """A Reporter that records messages and steps, and calls a function after a step."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.steps: list[int] = []
        self.at: dict[int, Callable[[], object]] = {}

    def progress(self, step: int, steps: int, line: dict[str, Any] | None) -> None:
        self.steps.append(step)
        self.at.get(step, lambda: None)()

    def message(self, text: str) -> None:
        self.messages.append(text)


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def log(run: Path) -> list[dict[str, Any]]:
    return files.read_json_lines(run / "log.jsonl")


# --- the schedule ---------------------------------------------------------------------------------------------------


def test_the_learning_rate_by_hand() -> None:
    config = TrainConfig(steps=14, learning_rate=0.1, warmup=4, decay="cosine")
    rates = [learning_rate(config, step) for step in range(14)]
    assert rates[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert rates[9] == pytest.approx(0.055)  # half way: the mean of the whole and a tenth
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(config, 14) == pytest.approx(0.01)  # and it stays there
    assert learning_rate(config, 20) == pytest.approx(0.01)


def test_without_decay_the_learning_rate_stays() -> None:
    config = TrainConfig(steps=14, learning_rate=0.1)
    assert {learning_rate(config, step) for step in range(14)} == {0.1}


def test_every_step_and_seed_has_its_own_random_numbers() -> None:
    seeds = {step_seed(seed, step) for seed in (0, 1, 11) for step in (-2, -1, 0, 1, 10, 110)}
    assert len(seeds) == 18
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert step_seed(0, 0) == step_seed(0, 0)


# --- the same bits --------------------------------------------------------------------------------------------------


def test_the_seed_decides_every_bit(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    changes = {"train.ema": 0.9, "train.clip": 1.0}
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        torch.manual_seed(len(name))  # earlier random numbers do not matter
        Trainer(recipe({**changes, "train.seed": seed}), dataset, tmp_path / name).run()
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    assert weights(tmp_path / "one") != weights(tmp_path / "other")
    kept = [{k: v for k, v in line.items() if k not in TIMING} for line in log(tmp_path / "one")]
    assert kept == [{k: v for k, v in line.items() if k not in TIMING} for line in log(tmp_path / "two")]


def test_resuming_gives_the_same_bits(aligned: Make, dataset: FolderDataset, words: TextSource, tmp_path: Path) -> None:
    settings = aligned({"train.ema": 0.9, "train.steps": 6, "train.checkpoint_every": 3, "train.sample_every": 6})
    Trainer(settings, dataset, tmp_path / "whole", words).run()
    listener = Listener()
    listener.at[4] = lambda: signal.raise_signal(signal.SIGTERM)
    with pytest.raises(TrainingError, match=r"Stopped by a signal after step 4 of 6\. A checkpoint was written"):
        Trainer(settings, dataset, tmp_path / "parts", words, reporter=listener).run()
    assert not (tmp_path / "parts" / "model").exists()
    Trainer(settings, dataset, tmp_path / "parts", words).run(resume=True)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    samples = [next((tmp_path / run / "samples").iterdir()).read_bytes() for run in ("whole", "parts")]
    assert samples[0] == samples[1]


def test_resuming_with_the_modern_losses_gives_the_same_bits(
    recipe: Make, dataset: FolderDataset, tmp_path: Path
) -> None:
    """The moving averages of LeCam are part of the state: without them the discriminator would train differently."""
    modern = {"adaptive": False, "weight": 0.5, "lecam": 100.0, "start": 1}
    modern["discriminator"] = {"channels": 8, "layers": 2, "norm": "group", "downsample": "blur"}
    changes = {"train.adversarial": modern, "train.ema": 0.9, "train.sample_every": 6}
    Trainer(recipe({**changes, "train.steps": 6}), dataset, tmp_path / "whole").run()
    Trainer(recipe({**changes, "train.steps": 4}), dataset, tmp_path / "parts").run()
    Trainer(recipe({**changes, "train.steps": 6}), dataset, tmp_path / "parts").run(resume=True)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    states = [(tmp_path / run / "checkpoints/00000006/state.safetensors") for run in ("whole", "parts")]
    whole, parts = (files.read_tensors(state) for state in states)
    assert whole.keys() == parts.keys()
    assert {"lecam:real", "lecam:made"} < whole.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_a_checkpoint_of_another_version_is_refused_by_the_tensor_that_differs(
    aligned: Make, dataset: FolderDataset, words: TextSource, tmp_path: Path
) -> None:
    changes = {"train.ema": 0.9, "train.steps": 2, "train.adversarial.start": 0, "train.adversarial.lecam": 1.0}
    run = tmp_path / "{run}"  # braces in a name are no places of a message
    Trainer(aligned(changes), dataset, run, words).run()
    groups, metadata, _ = load_newest(run / "checkpoints")
    assert {"model", "model.optimizer", "discriminator", "discriminator.optimizer", "mean", "lecam"} == {*groups}
    consumed = {"consumed": metadata["consumed"]}
    for group, tensors in groups.items():
        name = next(name for name, tensor in tensors.items() if tensor.ndim or group == "lecam")
        others = {**groups, group: {**tensors, name: torch.zeros(1, 2, 3, 4, 5)}}
        checkpoint.save(run / "checkpoints", 2, others, consumed, keep=2)
        label = "EMA" if group == "mean" else re.escape(group)
        with pytest.raises(FileError, match=rf"^The checkpoint of step 2 in .* \({label}\) does not fit") as caught:
            Trainer(aligned(changes), dataset, run, words).run(resume=True)
        assert f"1 tensors differ, first {name!r} (checkpoint: (1, 2, 3, 4, 5), needed: " in str(caught.value)
        if not group.endswith(".optimizer"):  # an optimizer without a state is one that has not stepped
            checkpoint.save(run / "checkpoints", 2, {**groups, group: {}}, consumed, keep=2)
            with pytest.raises(
                FileError, match=rf"\({label}\) does not fit this version: {len(tensors)} tensors differ"
            ):
                Trainer(aligned(changes), dataset, run, words).run(resume=True)


def test_steps_may_be_added(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    Trainer(recipe({"train.steps": 6}), dataset, tmp_path / "whole").run()
    Trainer(recipe({"train.steps": 4}), dataset, tmp_path / "parts").run()
    Trainer(recipe({"train.steps": 6}), dataset, tmp_path / "parts").run(resume=True)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    for name in ("whole", "parts"):
        assert "schedule_changes" not in files.read_json(tmp_path / name / "provenance.json")
    hashes = {files.read_json(tmp_path / name / "model/config.json")["method_hash"] for name in ("whole", "parts")}
    assert len(hashes) == 1


def test_where_the_learning_rate_decays_over_the_steps_adding_some_is_said_and_recorded(
    recipe: Make, dataset: FolderDataset, tmp_path: Path
) -> None:
    cosine, run = {"train.decay": "cosine"}, tmp_path / "parts"
    Trainer(recipe({**cosine, "train.steps": 6}), dataset, tmp_path / "whole").run()
    Trainer(recipe({**cosine, "train.steps": 3}), dataset, run).run()
    for again in range(2):  # the second resume changes nothing, and says nothing
        listener = Listener()
        Trainer(recipe({**cosine, "train.steps": 6}), dataset, run, reporter=listener).run(resume=True)
        said = [text for text in listener.messages if "train.steps was 3 and is 6 now" in text]
        assert len(said) == 1 - again
        assert all("from step 3 on it follows the new schedule" in text for text in said)
        assert weights(run) != weights(tmp_path / "whole")
        for file in (run / "provenance.json", run / "model/config.json"):
            changes = files.read_json(file)["schedule_changes"]
            assert changes == [{"step": 3, "steps_before": 3, "steps": 6}]
        hashes = {files.read_json(path / "model/config.json")["method_hash"] for path in (run, tmp_path / "whole")}
        assert len(hashes) == 2
    rates = {line["step"]: line["learning_rate"] for line in log(run) if "learning_rate" in line}
    whole = {line["step"]: line["learning_rate"] for line in log(tmp_path / "whole")}
    assert rates[6] == whole[6]
    assert rates[6] < learning_rate(recipe(cosine).train, 0)


def test_other_settings_of_the_schedule_are_still_those_of_the_run(
    recipe: Make, dataset: FolderDataset, tmp_path: Path
) -> None:
    Trainer(recipe({"train.decay": "cosine", "train.steps": 2}), dataset, tmp_path).run()
    for change in ({"train.decay": "none"}, {"train.warmup": 1}, {"train.learning_rate": 0.5}):
        with pytest.raises(UsageError, match="was started with other settings"):
            Trainer(recipe({"train.decay": "cosine", "train.steps": 4, **change}), dataset, tmp_path).run(resume=True)


@pytest.mark.parametrize("decay", ["none", "cosine"])
@pytest.mark.parametrize("warmup", [0, 5])
@pytest.mark.parametrize("steps", [(10, 10), (10, 20), (20, 10)])
def test_a_change_is_found_exactly_where_a_step_that_is_done_had_another_rate(
    decay: Any, warmup: int, steps: tuple[int, int]
) -> None:
    before, now = (TrainConfig(steps=count, decay=decay, warmup=warmup, learning_rate=0.1) for count in steps)
    for done in range(11):
        differs = any(learning_rate(before, step) != learning_rate(now, step) for step in range(done))
        change = find_schedule_change(before, now, done)
        assert (change is not None) == differs
        if change is not None:
            assert f"at {learning_rate(now, done):.3g} instead" in describe_schedule_change(before, now, done)


def test_alignment_is_the_only_difference_between_a_pair(
    recipe: Make, aligned: Make, dataset: FolderDataset, words: TextSource, tmp_path: Path
) -> None:
    """VQ-GAN and TA-VQ: equal shared weights at the start, equal batches at each step."""
    seen: list[list[tuple[tuple[str, ...], Tensor]]] = []
    starts, codebooks = [], []
    for settings, text in ((recipe(), None), (aligned(), words)):
        trainer = Trainer(settings, dataset, tmp_path / str(len(seen)), text)
        starts.append({name: value.clone() for name, value in trainer.tokenizer.state_dict().items()})
        seen.append([])
        backward, batches = trainer.stepper.backward, seen[-1]

        def watched(batch: Batch, step: int, backward: Any = backward, batches: Any = batches) -> Any:
            batches.append((batch.keys, batch.images))
            result = backward(batch, step)
            if step == 0:
                codebooks.append(trainer.tokenizer.codebook().detach().clone())  # noqa: B023
            return result

        trainer.stepper.backward = watched  # type: ignore[method-assign]
        trainer.run()
        assert len(batches) == 4
    plain, with_text = starts
    assert with_text.keys() > plain.keys()
    assert all(torch.equal(value, with_text[name]) for name, value in plain.items())
    assert torch.equal(*codebooks)  # also the entries that start at features
    for (keys, images), (other_keys, other_images) in zip(*seen, strict=True):
        assert keys == other_keys
        assert torch.equal(images, other_images)
    assert weights(tmp_path / "0") != weights(tmp_path / "1")


def test_zero_weights_train_like_no_alignment(
    recipe: Make, aligned: Make, dataset: FolderDataset, words: TextSource, tmp_path: Path
) -> None:
    """With weight 0, hierarchy and alignment do not change encoder, decoder and codebook."""
    nothing = {"model.hierarchy.weight": 0.0, "model.align.sentence": 0.0}
    nothing |= {"model.align.word": 1e-30, "model.align.phrase": 1e-30}
    Trainer(recipe({"train.adversarial": None}), dataset, tmp_path / "plain").run()
    Trainer(aligned({"train.adversarial": None, **nothing}), dataset, tmp_path / "aligned", words).run()
    plain, other = (files.read_tensors(tmp_path / run / "model/model.safetensors") for run in ("plain", "aligned"))
    for name, value in plain.items():
        torch.testing.assert_close(other[name], value, msg=lambda m, n=name: f"{n}: {m}")


def test_the_discriminator_does_not_change_before_its_first_step(
    recipe: Make, dataset: FolderDataset, tmp_path: Path
) -> None:
    trainer = Trainer(recipe(), dataset, tmp_path / "run")
    assert trainer.discriminator is not None
    states: list[dict[str, Tensor]] = []
    trainer.loop.reporter = listener = Listener()
    discriminator = trainer.discriminator
    for step in (2, 3):
        listener.at[step] = lambda: states.append({k: v.clone() for k, v in discriminator.state_dict().items()})
    before = {k: v.clone() for k, v in discriminator.state_dict().items()}
    trainer.run()
    assert all(torch.equal(states[0][name], value) for name, value in before.items())
    assert all(not torch.equal(states[1][name], value) for name, value in before.items() if name.endswith("weight"))
    assert "adversarial/discriminator" not in log(tmp_path / "run")[0]
    assert "adversarial/discriminator" in log(tmp_path / "run")[1]


# --- what stops a run -----------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_and_is_named(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    trainer = Trainer(recipe(), dataset, tmp_path / "run")
    trainer.loop.reporter = listener = Listener()
    listener.at[3] = lambda: torch.nn.init.constant_(trainer.tokenizer.decoder.conv_out.bias, math.nan)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=r"Stopped at step 3: not finite: .*reconstruction/l1") as caught:
        trainer.run()
    assert "quantizer/commitment" not in str(caught.value)  # finite losses are not named
    failure = json.loads((tmp_path / "run/failure/failure.json").read_text())
    assert failure["step"] == 3
    assert failure["values"]["reconstruction/l1"] == "nan"
    assert math.isfinite(failure["values"]["quantizer/commitment"])
    images = files.read_tensors(tmp_path / "run/failure/batch.safetensors")["images"]
    assert images.shape == (2, 3, 16, 16)
    assert len(failure["keys"]) == 2
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["00000002"]


def test_a_gradient_that_is_not_finite_stops_before_it_is_applied(
    recipe: Make, dataset: FolderDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_perceptual", lambda self: lambda x, y: (x - x.detach()).square().sum().sqrt())
    settings = recipe({"train.perceptual": {"network": "scenes"}, "train.adversarial": None})
    trainer = Trainer(settings, dataset, tmp_path / "run")
    with pytest.raises(TrainingError, match=r"Stopped at step 0: not finite: gradient/model\."):
        trainer.run()
    assert all(bool(value.isfinite().all()) for value in trainer.tokenizer.parameters())


def test_every_process_has_its_own_random_numbers(
    recipe: Make, dataset: FolderDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process has the random numbers of a single process."""
    found = []
    for rank in (0, 1, 2):
        monkeypatch.setattr("tavq.ops.collective.rank", lambda rank=rank: rank)
        trainer = Trainer(recipe({"train.adversarial": None}), dataset, tmp_path / "run")
        trainer.loop.train_step(Batch(torch.zeros(2, 3, 16, 16), ("a", "b")))
        found.append(torch.initial_seed())
    assert found[0] == step_seed(trainer.config.seed, 0)
    assert len(set(found)) == 3


def test_a_collapsed_codebook_raises_the_alarm(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    listener = Listener()
    few = {"model.codebook.entries": 16, "train.adversarial": None, "train.steps": 8}
    settings = recipe({"train.alarm_usage": 1.0, **few})
    Trainer(settings, dataset, tmp_path / "run", reporter=listener).run()
    alarms = [line for line in log(tmp_path / "run") if "alarm" in line]
    low = [line["step"] for line in log(tmp_path / "run") if line.get("codebook/usage", 1) < 1]
    assert len(low) > 1
    assert [line["alarm"] for line in alarms] == ["codebook collapse"]  # once, not at every log line
    assert 0 < alarms[0]["usage"] <= 1
    assert len(listener.messages) == 1
    assert "(alarm below 100.0% of 16)" in listener.messages[0]
    for part in ("sign", "cause", "remedy"):
        assert len(alarms[0][part]) > 10
        assert alarms[0][part] in listener.messages[0]


def test_few_codes_are_not_a_collapse(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    listener = Listener()
    settings = recipe({"train.alarm_usage": 1.0, "model.codebook.entries": 512, "train.adversarial": None})
    Trainer(settings, dataset, tmp_path / "run", reporter=listener).run()
    assert listener.messages == []  # two steps of two images of 16 codes cannot use 512 entries


def test_a_healthy_codebook_raises_no_alarm(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    listener = Listener()
    Trainer(recipe({"train.adversarial": None}), dataset, tmp_path / "run", reporter=listener).run()
    assert listener.messages == []
    assert listener.steps == [1, 2, 3, 4]


def test_a_second_run_in_one_folder_is_refused(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    Trainer(recipe(), dataset, tmp_path / "run").run()
    before = weights(tmp_path / "run")
    with pytest.raises(UsageError, match="already holds a run; add --resume"):
        Trainer(recipe({"train.seed": 1}), dataset, tmp_path / "run").run()
    assert weights(tmp_path / "run") == before


def test_resuming_without_a_run_is_an_error(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no run in .* to resume; start without --resume"):
        Trainer(recipe(), dataset, tmp_path / "run").run(resume=True)


def test_an_aligner_needs_text(aligned: Make, words: TextSource, dataset: FolderDataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The aligner 'ta' needs encoded text; make it with: tavq text"):
        Trainer(aligned(), dataset, tmp_path / "run")
    with pytest.raises(UsageError, match=r"model\.text_width is 7, but the text store's vectors are 6 wide"):
        aligned({"model.text_width": 7}).model.resolve_config(words)
    assert aligned().model.resolve_config(words).text_width == 6


def test_images_too_small_for_the_discriminator_are_refused_at_once(recipe: Make) -> None:
    with pytest.raises(
        ValueError, match=r"data\.size 16 is below 24, the smallest image that a discriminator of 3 layers"
    ):
        recipe({"train.adversarial.discriminator.layers": 3})
    recipe({"train.adversarial.discriminator.layers": 3, "train.adversarial.start": 4})  # it never comes to it


# --- what a run leaves ----------------------------------------------------------------------------------------------


def test_a_run_folder_holds_the_documented_files(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert Trainer(recipe({"train.ema": 0.9, "train.sample_every": 2}), dataset, run).run() == run / "model"
    found = sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    assert found == [
        ".lock",
        "checkpoints/00000002/state.json",
        "checkpoints/00000002/state.safetensors",
        "checkpoints/00000004/state.json",
        "checkpoints/00000004/state.safetensors",
        "log.jsonl",
        "model/README.md",
        "model/config.json",
        "model/model.safetensors",
        "provenance.json",
        "recipe.yaml",
        "samples/00000002.png",
        "samples/00000004.png",
    ]
    provenance = files.read_json(run / "provenance.json")
    assert provenance["data_sha256"] == dataset.fingerprint
    assert provenance["last_process"]["steps"] == 4
    assert provenance["last_process"]["steps_per_second"] > 0
    model = (run / "model/config.json").read_text() + (run / "model/README.md").read_text()
    assert str(tmp_path) not in model  # models are shared; the paths of their maker are private


def test_the_model_has_the_averaged_weights(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    trainer = Trainer(recipe({"train.ema": 0.9}), dataset, tmp_path / "run")
    trainer.run()
    assert trainer.loop.ema is not None
    saved = Tokenizer.from_pretrained(tmp_path / "run").state_dict()
    assert all(torch.equal(saved[name], value) for name, value in trainer.loop.ema.shadow.items())
    assert not torch.equal(saved["decoder.conv_out.weight"], trainer.tokenizer.decoder.conv_out.weight)


def test_the_average_of_a_run_follows_its_formula(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> None:
    """After n steps the decay is (1 + n) / (10 + n), up to the setting; the initial weights count as step 0."""
    trainer = Trainer(recipe({"train.ema": 0.28, "train.steps": 3}), dataset, tmp_path / "run")
    weight = trainer.tokenizer.decoder.conv_out.weight
    history = [weight.detach().clone()]
    trainer.loop.reporter = listener = Listener()
    for step in (1, 2, 3):
        listener.at[step] = lambda: history.append(weight.detach().clone())
    trainer.run()
    expected = history[0].double()
    for after, decay in zip(history[1:], (2 / 11, 3 / 12, 0.28), strict=True):  # 4 / 13 is above the setting
        expected = decay * expected + (1 - decay) * after.double()
    saved = Tokenizer.from_pretrained(tmp_path / "run").state_dict()["decoder.conv_out.weight"]
    torch.testing.assert_close(saved.double(), expected, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(history[3].double(), expected, rtol=1e-3)


def test_unreadable_images_are_reported_once_and_listed(recipe: Make, image_folder: Path, tmp_path: Path) -> None:
    for number in (3, 10, 11):  # one for training; two of the first three for the samples
        (image_folder / f"images/{number}.png").write_bytes(b"")
    listener = Listener()
    trainer = Trainer(
        recipe({"train.steps": 12}),
        FolderDataset(image_folder, "train"),
        tmp_path / "run",
        preview=FolderDataset(image_folder, "val"),
        reporter=listener,
    )
    trainer.run()
    assert len(listener.messages) == 1
    assert "Skipped 1 fault in the data, the first: images/3.png" in listener.messages[0]
    assert [fault["where"] for fault in files.read_json(tmp_path / "run/faults.json")] == ["images/3.png"]


def test_faults_of_boxes_are_not_counted_as_images(recipe: Make, image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "images/3.png").write_bytes(b"")
    lines = files.read_json_lines(image_folder / "metadata.jsonl")
    lines[1] |= {"objects": [{"box": [1, 1, 0, 5], "name": "x"}] * 101, "questions": [7]}
    files.write_json_lines(image_folder / "metadata.jsonl", lines)
    listener = Listener()
    Trainer(recipe({"train.steps": 8}), FolderDataset(image_folder, "train"), tmp_path / "run", reporter=listener).run()
    [message] = listener.messages
    assert message.startswith(
        "Skipped 103 faults in the data (1 in images or lines, 101 in objects, 1 in questions), the"
    )


def test_samples_skip_a_batch_of_unreadable_images(recipe: Make, image_folder: Path, tmp_path: Path) -> None:
    for number in range(8):
        (image_folder / f"images/{number}.png").write_bytes(b"")
    Trainer(recipe({"train.steps": 1}), FolderDataset(image_folder, "train"), tmp_path / "run").run()
    assert (tmp_path / "run/samples/00000001.png").is_file()
