"""The training loop: data to step to log, checkpoint and model folder, whatever is trained."""

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from numpy import ndarray
from torch import Tensor, nn

from tavq.core.errors import TrainingError, UsageError
from tavq.core.signals import stop_on_signal
from tavq.data.loader import explain_dead_workers
from tavq.data.records import Fault
from tavq.interfaces import Losses
from tavq.ops import collective
from tavq.recipes.schema import LoopConfig, RunRecipe
from tavq.training import checkpoint
from tavq.training.ema import EMA
from tavq.training.log import RunLog
from tavq.training.run_folder import RunFolder


@runtime_checkable
class Reporter(Protocol):
    """Who is told how the run goes; the command line draws a bar."""

    def progress(self, step: int, steps: int, line: dict[str, Any] | None) -> None:
        """After each step; `line` is what was logged, where something was."""
        ...

    def message(self, text: str) -> None:
        """Something a person should know."""
        ...


class SilentReporter:
    """A Reporter that says nothing."""

    def progress(self, step: int, steps: int, line: dict[str, Any] | None) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""


@runtime_checkable
class Batches(Protocol):
    """An endless iterator of one process's batches."""

    consumed: int
    """Samples handed out so far, of all processes together; an iterator is opened with it to go on from there."""

    @property
    def faults(self) -> Sequence[Fault]:
        """What was left out of the data."""
        ...

    def __iter__(self) -> Iterator[Any]: ...

    def __next__(self) -> Any: ...

    def close(self) -> None:
        """Ends what reads ahead."""
        ...


@runtime_checkable
class Trainable(Protocol):
    """What a run trains; the loop does the rest.

    All state that later steps depend on is in `modules`, their optimizers and `extra_tensors`; every random draw of
    training comes from torch's global generator, which the loop seeds from (seed, step).
    """

    @property
    def recipe(self) -> RunRecipe:
        """Every setting."""
        ...

    @property
    def model(self) -> nn.Module:
        """What is saved; one of `modules`."""
        ...

    @property
    def modules(self) -> Mapping[str, nn.Module | None]:
        """What checkpoints hold."""
        ...

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Of the modules, by the same names."""
        ...

    def metadata(self) -> dict[str, Any]:
        """Where the run comes from, ready for JSON."""
        ...

    def open_batches(self, consumed: int) -> Batches:
        """The training batches, from that sample on."""
        ...

    def backward(self, batch: Any, step: int) -> Losses:
        """Leaves the gradients of one batch in the parameters; every term of the objective."""
        ...

    def should_step(self, name: str, step: int) -> bool:
        """Whether the optimizer of that name steps now."""
        ...

    def set_train_mode(self) -> None:
        """Brings the modules into training mode."""
        ...

    def pop_metrics(self) -> dict[str, Any]:
        """What a line of the log tells beside the losses, of the steps since the last line."""
        ...

    def find_alarm(self, step: int, line: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """Something wrong that a line of the log shows: what a person is told, and the alarm for the log."""
        ...

    def render_sample(self) -> ndarray | None:
        """An image of what the model can do now, uint8 [y x 3]; None where there is nothing to see."""
        ...

    def save_model(self, folder: Path, metadata: dict[str, Any]) -> None:
        """Writes the model folder."""
        ...

    def extra_tensors(self) -> dict[str, dict[str, Tensor]]:
        """Further tensors of a checkpoint by group and name; they are copied into when a run goes on."""
        ...

    def named_tensors(self, batch: Any) -> dict[str, Tensor]:
        """A batch as named tensors, for a step that went wrong."""
        ...


def step_seed(seed: int, step: int, process: int = 0) -> int:
    """The seed of every random draw of one step in one process: resuming needs no generator state."""
    text = f"{seed}/{step}/{process}" if process else f"{seed}/{step}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")


def learning_rate(config: LoopConfig, step: int) -> float:
    """The learning rate of a step (counted from 0)."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.decay == "none":
        return config.learning_rate
    share = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


def batch_per_process(config: LoopConfig) -> int:
    """The samples of one process in a batch."""
    processes = collective.world_size()
    if config.batch % processes:
        raise UsageError(f"train.batch {config.batch} cannot be shared by {processes} processes.")
    return config.batch // processes


class Loop:
    """One run of a learner into a run folder."""

    def __init__(self, trainable: Trainable, run: Path, reporter: Reporter | None = None) -> None:
        self.trainable, self.folder = trainable, RunFolder(run)
        self.config: LoopConfig = trainable.recipe.train
        self.rank, self.processes = collective.rank(), collective.world_size()
        self.reporter: Reporter = reporter if reporter is not None and self.rank == 0 else SilentReporter()
        self.mean = EMA(trainable.model, self.config.ema) if self.config.ema is not None else None
        self.step = 0
        self.stopping = False
        self.alarmed = False

    def stop(self) -> None:
        """Ends the run after the step at hand, with a checkpoint."""
        self.stopping = True

    def run(self, resume: bool = False) -> Path:
        """Trains to the last step and returns the model folder.

        Raises:
            TrainingError: a loss is not finite, or the run was told to stop (SIGTERM or SIGINT; a checkpoint is
                written first).
            FileError: the run folder is in use, or damaged.
            UsageError: the run folder holds another run.
        """
        with self.folder.lock(), stop_on_signal(self.stop), explain_dead_workers():
            consumed = self._begin(resume)
            log = RunLog(self.folder.log, self.step)
            first, started = self.step, time.perf_counter()
            batches = self.trainable.open_batches(consumed)
            try:
                self._train(batches, log)
            finally:
                batches.close()
                self._report_faults(batches.faults)
            if self.rank == 0:
                self.folder.record_speed(self.step - first, time.perf_counter() - started)
                self._save_model()
            collective.barrier()
        return self.folder.model

    def _report_faults(self, faults: Sequence[Fault]) -> None:
        if faults:
            place = self.folder.write_faults(faults)
            said = f"{len(faults)} faults in the data were left out, first {faults[0]}; all are in {place}."
            self.reporter.message(said)

    def _begin(self, resume: bool) -> int:
        """Makes the run folder, or loads its newest checkpoint; returns the samples consumed so far."""
        if self.rank == 0:
            metadata = {**self.trainable.metadata(), "processes": self.processes}
            fresh = not (resume and self.folder.prepare_resume(self.trainable.recipe, metadata))
            if fresh and resume:
                self.reporter.message("No checkpoint was written yet; starting from the first step.")
            if fresh:
                self.folder.start(self.trainable.recipe, metadata)
        collective.barrier()
        return self._load_checkpoint() if resume and checkpoint.exists(self.folder.checkpoints) else 0

    def _load_checkpoint(self) -> int:
        groups, metadata, damaged = checkpoint.load_newest(self.folder.checkpoints)
        for line in damaged:
            self.reporter.message(f"Skipped a damaged checkpoint: {line}")
        for name, module in self.trainable.modules.items():
            if module is not None:
                module.load_state_dict(groups[name])
                checkpoint.restore_optimizer(self.trainable.optimizers[name], groups.get(f"{name}.optimizer", {}))
        for group, tensors in self._extra_state().items():
            for name, tensor in tensors.items():
                tensor.copy_(groups[group][name])
        self.step = metadata["step"]
        return int(metadata["consumed"])

    def _extra_state(self) -> dict[str, dict[str, Tensor]]:
        mean = {} if self.mean is None else {"mean": self.mean.shadow}
        return {**mean, **self.trainable.extra_tensors()}

    def _train(self, batches: Batches, log: RunLog) -> None:
        self.trainable.set_train_mode()
        waiting = iter(batches)
        while self.step < self.config.steps:
            terms = self.train_step(next(waiting))
            log.add({key: loss.value for key, loss in terms.items()})
            self.step += 1
            line = None
            if self.step % self.config.log_every == 0 or self.step == self.config.steps:
                rate = learning_rate(self.config, self.step - 1)
                line = log.write(self.step, {**self.trainable.pop_metrics(), "learning_rate": rate})
                self._check_alarm(line)
            self.reporter.progress(self.step, self.config.steps, line)
            if self.step % self.config.sample_every == 0 or self.step == self.config.steps:
                self._save_sample()
            last, stopping = self.step == self.config.steps, collective.any_process(self.stopping)
            if self.step % self.config.checkpoint_every == 0 or last or stopping:
                self._save_checkpoint(batches.consumed)
            if stopping and not last:
                raise TrainingError(
                    f"Stopped by a signal after step {self.step} of {self.config.steps}; nothing is lost, "
                    "the same command with --resume goes on."
                )

    def train_step(self, batch: Any) -> Losses:
        """Learns from one batch; every term of the objective."""
        torch.manual_seed(step_seed(self.config.seed, self.step, self.rank))
        optimizers = self.trainable.optimizers
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.config, self.step)
        terms = self.trainable.backward(batch, self.step)
        for optimizer in optimizers.values():
            collective.average_gradients(_parameters(optimizer))
        self._check_finite(terms, batch)
        for name, optimizer in optimizers.items():
            if self.trainable.should_step(name, self.step):
                if self.config.clip is not None:
                    torch.nn.utils.clip_grad_norm_(_parameters(optimizer), self.config.clip)
                optimizer.step()
        if self.mean is not None:
            self.mean.update(self.step + 1)
        return terms

    def _check_finite(self, terms: Losses, batch: Any) -> None:
        tensors = {key: loss.value.detach().float() for key, loss in terms.items()}
        for name, module in self.trainable.modules.items():
            gradients = [p.grad for p in module.parameters() if p.grad is not None] if module is not None else []
            if gradients:
                tensors[f"gradient/{name}"] = torch.nn.utils.get_total_norm(gradients)
        if bool(torch.stack(list(tensors.values())).isfinite().all()):  # one wait for the device a step
            return
        values = {key: float(value) for key, value in tensors.items()}
        bad = [key for key, value in values.items() if not math.isfinite(value)]
        readable = {key: value if math.isfinite(value) else str(value) for key, value in values.items()}
        keys = [str(key) for key in getattr(batch, "keys", ())]
        place = self.folder.write_failure(self.step, self.trainable.named_tensors(batch), keys, readable)
        raise TrainingError(
            f"Stopped at step {self.step}: {', '.join(bad)} is not finite. The batch and every value are in "
            f"{place}. Resuming would meet it again: start anew with a lower train.learning_rate, with train.clip or "
            "with train.precision fp32."
        )

    def _check_alarm(self, line: dict[str, Any]) -> None:
        """Tells what is wrong where it was not wrong at the last line."""
        found = self.trainable.find_alarm(self.step, line) if self.step > self.config.warmup else None
        first, self.alarmed = found is not None and not self.alarmed, found is not None
        if found is not None and first and self.rank == 0:
            self.reporter.message(found[0])
            self.folder.append_alarm({"step": self.step, **found[1]})

    # --- what a run leaves --------------------------------------------------------------------------------------

    @contextmanager
    def _as_saved(self) -> Iterator[None]:
        """The model as it will be used: without dropout, with the running mean of its weights if one is kept."""
        self.trainable.model.eval()
        if self.mean is not None:
            self.mean.swap()
        try:
            yield
        finally:
            if self.mean is not None:
                self.mean.swap()
            self.trainable.set_train_mode()

    def _save_sample(self) -> None:
        if self.rank:
            return
        with self._as_saved(), torch.no_grad():
            image = self.trainable.render_sample()
        if image is not None:
            self.folder.save_sample(self.step, image)

    def _save_checkpoint(self, consumed: int) -> None:
        if self.rank:
            return
        groups: dict[str, dict[str, Tensor]] = {}
        for name, module in self.trainable.modules.items():
            if module is not None:
                groups[name] = dict(module.state_dict())
                groups[f"{name}.optimizer"] = checkpoint.flatten_optimizer(self.trainable.optimizers[name])
        groups |= self._extra_state()
        checkpoint.save(self.folder.checkpoints, self.step, groups, {"consumed": consumed}, self.config.keep)

    def _save_model(self) -> None:
        metadata = {
            "step": self.step,
            "seed": self.config.seed,
            **self.trainable.metadata(),
            "processes": self.processes,
        }
        metadata.pop("data_folder", None)  # a model is passed on; where its maker keeps images is not
        with self._as_saved():
            self.trainable.save_model(self.folder.model, metadata)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
