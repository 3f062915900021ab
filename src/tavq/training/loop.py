"""The training loop: data to step to log, checkpoint and model folder."""

import hashlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from tavq.core.errors import TrainingError, UsageError
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader, TrainingLoader, dead_workers_explained
from tavq.data.records import Fault
from tavq.data.transforms import to_uint8
from tavq.interfaces import (
    DEEP,
    Batch,
    Losses,
    TextSource,
    default_device,
    to_device,
)
from tavq.metrics.collapse import POSITIONS_PER_ENTRY, collapsed, diagnose
from tavq.nets.critics import PatchCritic
from tavq.nets.features import logits_distance, perceptual_distance
from tavq.nets.networks import feature_network
from tavq.ops import collective
from tavq.tokenizer import Tokenizer
from tavq.training import card, checkpoint, finetune, provenance
from tavq.training.folder import RunFolder
from tavq.training.log import RunLog
from tavq.training.settings import Recipe, TrainConfig
from tavq.training.step import GeneratorStep, Perceptual, RunningMean

PREVIEWS = 8


@runtime_checkable
class Reporter(Protocol):
    """Who is told how the run goes; the command line draws a bar."""

    def progress(self, step: int, steps: int, line: dict[str, Any] | None) -> None:
        """After each step; `line` is what was logged, where something was."""
        ...

    def message(self, text: str) -> None:
        """Something a person should know."""
        ...


class Silent:
    """A Reporter that says nothing."""

    def progress(self, step: int, steps: int, line: dict[str, Any] | None) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""


def step_seed(seed: int, step: int, process: int = 0) -> int:
    """The seed of every random draw of one step in one process: resuming needs no generator state."""
    text = f"{seed}/{step}/{process}" if process else f"{seed}/{step}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step (counted from 0)."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.decay == "none":
        return config.learning_rate
    share = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


class Trainer:
    """One run of a recipe into a run folder.

    Args:
        recipe: what to train; what the text store decides is filled in.
        dataset: the training split.
        run: the run folder.
        text: encoded text by file_name, needed where the recipe aligns or its codebook is made of words.
        preview: pictures for the sample grids (by default the training split's first).
        reporter: who is told.
        device: by default a GPU where there is one.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: FolderDataset,
        run: Path,
        text: TextSource | None = None,
        preview: FolderDataset | None = None,
        reporter: Reporter | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.recipe = recipe.model_copy(update={"model": recipe.model.fitted(text)})
        self.config = recipe.train
        self.dataset, self.folder = dataset, RunFolder(run)
        self.text = text if recipe.model.reads_text else None
        self.rank, self.processes = collective.rank(), collective.processes()
        if recipe.train.batch % self.processes:
            raise UsageError(f"train.batch {recipe.train.batch} cannot be shared by {self.processes} processes.")
        self.reporter: Reporter = reporter if reporter is not None and self.rank == 0 else Silent()
        self.device = device or default_device()
        self._build()
        self.preview = preview_batch(preview or dataset, self.recipe, self.device)
        self.stopping = False

    def _build(self) -> None:
        config = self.config
        torch.manual_seed(step_seed(config.seed, -1))
        self.tokenizer = Tokenizer(self.recipe.model)
        self.tokenizer.take(self.text)
        if config.start_from is not None:
            finetune.begin_from(self.tokenizer, config.start_from)
        finetune.freeze(self.tokenizer, config.freeze)
        adversarial = config.adversarial
        self.discriminator = (
            PatchCritic(adversarial.discriminator, seed=step_seed(config.seed, -2)) if adversarial else None
        )
        for module in (self.tokenizer, self.discriminator):
            if module is not None:
                module.to(self.device)
                if config.channels_last:
                    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules = {"model": self.tokenizer, "discriminator": self.discriminator}
        self.optimizers = {
            name: torch.optim.Adam(module.parameters(), config.learning_rate, config.betas)
            for name, module in self.modules.items()
            if module is not None
        }
        self.mean = RunningMean(self.tokenizer, config.ema) if config.ema is not None else None
        self.stepper = GeneratorStep(self.tokenizer, self.discriminator, self._perceptual(), config, self.device)
        self.step = 0
        self.collapsed = False

    def _perceptual(self) -> Perceptual | None:
        settings = self.config.perceptual
        if settings is None:
            return None
        logits = settings.distance == "logits"
        network = feature_network(settings.network, Path(settings.weights) if settings.weights else None, logits)
        return partial(logits_distance if logits else perceptual_distance, network.to(self.device))

    # --- the run ------------------------------------------------------------------------------------------------

    def run(self, resume: bool = False) -> Path:
        """Trains to the last step and returns the model folder.

        Raises:
            TrainingError: the run folder is in use, a loss is not finite, or the run was told to stop (SIGTERM or
                SIGINT; a checkpoint is written first).
        """
        with self.folder.lock(), self._stop_on_signal(), dead_workers_explained():
            consumed = self._begin(resume)
            log = RunLog(self.folder.log, self.step, self.tokenizer.codebook.sizes)
            first, started = self.step, time.perf_counter()
            loader = TrainingLoader(
                self.dataset,
                self.recipe.data,
                self.config.batch // self.processes,
                self.config.seed,
                self.text if self.recipe.model.align is not None else None,
                consumed,
                self.rank,
                self.processes,
            )
            try:
                self._train(iter(loader), log, loader)
            finally:
                loader.close()
                self._tell_faults(loader.faults)
            if self.rank == 0:
                self.folder.note_speed(self.step - first, time.perf_counter() - started)
                self._save_model()
            collective.wait_for_all()
        return self.folder.model

    def _tell_faults(self, faults: Sequence[Fault]) -> None:
        if faults:
            place = self.folder.note_faults(faults)
            said = f"{len(faults)} faults in the data were left out, first {faults[0]}; all are in {place}."
            self.reporter.message(said)

    def _begin(self, resume: bool) -> int:
        """Makes the run folder, or loads its newest checkpoint; returns the pictures consumed so far."""
        if self.rank == 0:
            fresh = not (resume and self.folder.go_on(self.recipe, self.dataset, self.text))
            if fresh and resume:
                self.reporter.message("No checkpoint was written yet; starting from the first step.")
            if fresh:
                self.folder.start(self.recipe, self._facts())
        collective.wait_for_all()
        return self._load_checkpoint() if resume and checkpoint.exists(self.folder.checkpoints) else 0

    def _load_checkpoint(self) -> int:
        groups, facts, damaged = checkpoint.load_newest(self.folder.checkpoints)
        for line in damaged:
            self.reporter.message(f"Skipped a damaged checkpoint: {line}")
        for name, module in self.modules.items():
            if module is not None:
                module.load_state_dict(groups[name])
                checkpoint.restore_optimizer(self.optimizers[name], groups.get(f"{name}.optimizer", {}))
        if self.mean is not None:
            for name, shadow in self.mean.shadow.items():
                shadow.copy_(groups["mean"][name])
        if self.stepper.lecam is not None:
            self.stepper.lecam.load_state_dict(groups["lecam"])
        self.step = facts["step"]
        return int(facts["consumed"])

    def _train(self, batches: Iterator[Batch], log: RunLog, loader: TrainingLoader) -> None:
        finetune.train_mode(self.tokenizer, self.config.freeze)
        while self.step < self.config.steps:
            batch = to_device(next(batches), self.device)
            terms, indices = self._one_step(batch)
            log.add({key: loss.value for key, loss in terms.items()}, indices)
            self.step += 1
            line = None
            if self.step % self.config.log_every == 0 or self.step == self.config.steps:
                entries = self.tokenizer.codebook().detach()
                line = log.write(self.step, learning_rate(self.config, self.step - 1), entries)
                self._watch_codebook(line)
            self.reporter.progress(self.step, self.config.steps, line)
            if self.step % self.config.sample_every == 0 or self.step == self.config.steps:
                self._save_samples()
            last, stopping = self.step == self.config.steps, collective.any_of(self.stopping)
            if self.step % self.config.checkpoint_every == 0 or last or stopping:
                self._save_checkpoint(loader.consumed)
            if stopping and not last:
                raise TrainingError(
                    f"Stopped by a signal after step {self.step} of {self.config.steps}; nothing is lost, "
                    "the same command with --resume goes on."
                )

    def _one_step(self, batch: Batch) -> tuple[Losses, Tensor]:
        torch.manual_seed(step_seed(self.config.seed, self.step, self.rank))
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.config, self.step)
        if self.config.channels_last:
            batch = Batch(batch.images.contiguous(memory_format=torch.channels_last), batch.keys, batch.text)
        output, terms = self.stepper.backward(batch, self.step)
        for optimizer in self.optimizers.values():
            collective.average_gradients(optimizer.param_groups[0]["params"])
        self._check_finite(terms, batch)
        for name, optimizer in self.optimizers.items():
            if name == "discriminator" and not self.stepper.adversarial_on(self.step):
                continue
            if self.config.clip is not None:
                parameters = optimizer.param_groups[0]["params"]
                torch.nn.utils.clip_grad_norm_(parameters, self.config.clip)
            optimizer.step()
        if self.mean is not None:
            self.mean.update(self.step + 1)
        return terms, output.levels[DEEP].indices

    def _check_finite(self, terms: Losses, batch: Batch) -> None:
        tensors = {key: loss.value.detach().float() for key, loss in terms.items()}
        for name, module in self.modules.items():
            gradients = [p.grad for p in module.parameters() if p.grad is not None] if module is not None else []
            if gradients:
                tensors[f"gradient/{name}"] = torch.nn.utils.get_total_norm(gradients)
        if bool(torch.stack(list(tensors.values())).isfinite().all()):  # one wait for the device a step
            return
        values = {key: float(value) for key, value in tensors.items()}
        bad = [key for key, value in values.items() if not math.isfinite(value)]
        readable = {key: value if math.isfinite(value) else str(value) for key, value in values.items()}
        place = self.folder.note_failure(self.step, batch, readable)
        raise TrainingError(
            f"Stopped at step {self.step}: {', '.join(bad)} is not finite. The batch and every value are in "
            f"{place}. Resuming would meet it again: start anew with a lower train.learning_rate, with train.clip or "
            "with train.precision fp32."
        )

    def _watch_codebook(self, line: dict[str, Any]) -> None:
        """Sounds the alarm where the codebook has collapsed since the last line, with the likely cause and a remedy."""
        entries = self.tokenizer.entries
        enough = line["codebook/positions"] >= POSITIONS_PER_ENTRY * entries and self.step > self.config.warmup
        now = enough and collapsed(line, self.tokenizer.codebook.sizes, self.config.alarm_usage)
        first, self.collapsed = now and not self.collapsed, now
        if not first or self.rank:
            return
        found = diagnose(self.folder.lines(), self.recipe.model.model_dump(mode="json"))
        self.reporter.message(
            f"Codebook collapse at step {self.step} (alarm below {self.config.alarm_usage:.1%} of {entries}). {found}"
        )
        alarm = {"step": self.step, "alarm": "codebook collapse", "usage": line["codebook/usage"], **asdict(found)}
        self.folder.note_alarm(alarm)

    # --- what a run leaves --------------------------------------------------------------------------------------

    @contextmanager
    def _as_used(self) -> Iterator[None]:
        """The tokenizer as it will be used: without dropout, with the running mean of its weights if one is kept."""
        self.tokenizer.eval()
        if self.mean is not None:
            self.mean.swap()
        try:
            yield
        finally:
            if self.mean is not None:
                self.mean.swap()
            finetune.train_mode(self.tokenizer, self.config.freeze)

    def _save_samples(self) -> None:
        if self.rank:
            return
        with self._as_used(), torch.no_grad():
            images = self.tokenizer.decode(self.tokenizer.encode(self.preview))
        rows = torch.cat([torch.cat(list(part), dim=2) for part in (self.preview, images)], dim=1)
        self.folder.save_sample(self.step, to_uint8(rows).permute(1, 2, 0).cpu().numpy())

    def _save_checkpoint(self, consumed: int) -> None:
        if self.rank:
            return
        groups: dict[str, dict[str, Tensor]] = {}
        for name, module in self.modules.items():
            if module is not None:
                groups[name] = dict(module.state_dict())
                groups[f"{name}.optimizer"] = checkpoint.flatten_optimizer(self.optimizers[name])
        if self.mean is not None:
            groups["mean"] = self.mean.shadow
        if self.stepper.lecam is not None:
            groups["lecam"] = dict(self.stepper.lecam.state_dict())
        checkpoint.save(self.folder.checkpoints, self.step, groups, {"consumed": consumed}, self.config.keep)

    def _save_model(self) -> None:
        facts = {"step": self.step, "seed": self.config.seed, "size": self.recipe.data.size}
        facts |= self._facts()
        del facts["data_folder"]  # a model is passed on; where its maker keeps pictures is not
        with self._as_used():
            text = card.write(self.recipe, self.tokenizer.codebook.sizes, facts, self.step)
            self.tokenizer.frozen().save_pretrained(self.folder.model, text, facts)

    def _facts(self) -> dict[str, Any]:
        parameters = self.tokenizer.parameter_counts()
        described = provenance.describe(self.dataset, self.text, self.device)
        return {**described, "processes": self.processes, "parameters": parameters}

    @contextmanager
    def _stop_on_signal(self) -> Iterator[None]:
        """SIGTERM and the first SIGINT end the run after the step at hand; only the main thread can listen."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: Any) -> None:
            self.stopping = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def preview_batch(dataset: FolderDataset, recipe: Recipe, device: torch.device) -> Tensor:
    """The first pictures of a split that can be read, for the sample grids."""
    images: Tensor = next(iter(EvaluationLoader(dataset, recipe.data, PREVIEWS))).images
    return images.to(device)
