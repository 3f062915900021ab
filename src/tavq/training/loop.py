"""The training loop, shared by tokenizers and tasks: batches, steps, log, checkpoints and the model folder."""

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tavq.core.errors import StoppedError, TrainingError
from tavq.core.signals import stop_on_signal
from tavq.core.tensor_names import update_tensor_names
from tavq.data.records import Fault
from tavq.data.workers import explain_dead_workers
from tavq.interfaces import Losses
from tavq.ops import collective
from tavq.ops.agreement import decide_first, run_together
from tavq.ops.shares import sharing
from tavq.recipes.identity import METHOD_HASH
from tavq.recipes.schema import LoopConfig, RunRecipe
from tavq.training import checkpoint, provenance
from tavq.training.ema import EMA
from tavq.training.gpu import gpu_settings
from tavq.training.log import RunLog
from tavq.training.log_lines import SPEED
from tavq.training.profiling import profile_steps
from tavq.training.reporting import Reporter, SilentReporter
from tavq.training.run_folder import PROCESS_CHANGES, RunFolder
from tavq.training.schedule import CHANGES, describe_schedule_change, find_schedule_change, learning_rate
from tavq.training.sharding import clip_gradients, find_sharded, is_sharded, optimizer_parameters, total_norm
from tavq.training.speed import SpeedMeter
from tavq.training.start import PATIENCE, Resume, Start, decide_start, find_step
from tavq.training.trainable import Batches, Trainable

EMA_GROUP = "mean"
"""Tensor group of the EMA weights in a checkpoint; checkpoints of every version use it."""


def step_seed(seed: int, step: int, process: int = 0) -> int:
    """The seed of all random numbers of one step in one process, so that resuming needs no generator state."""
    text = f"{seed}/{step}/{process}" if process else f"{seed}/{step}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")


class Loop:
    """Trains a Trainable into a run folder."""

    def __init__(self, trainable: Trainable, run: Path, reporter: Reporter | None = None) -> None:
        self.trainable, self.folder = trainable, RunFolder(run)
        self.config: LoopConfig = trainable.recipe.train
        self.rank, self.processes = collective.rank(), collective.world_size()
        self.reporter: Reporter = reporter if reporter is not None and self.rank == 0 else SilentReporter()
        self.before_first_step: Callable[[], None] | None = None
        """Called in every process before a run's first step, and not where it is resumed."""
        self.ema = EMA(trainable.model, self.config.ema) if self.config.ema is not None else None
        self.sharded = is_sharded(trainable.model)
        self.saves = self.rank == 0 or self.sharded
        """Whether this process has a part in what is saved."""
        self.parent = os.getppid()
        self.step = 0
        self.stopping = False
        self.alarmed = False

    def stop(self) -> None:
        """End the run after the current step, with a checkpoint."""
        self.stopping = True

    def run(self, resume: Resume = False) -> Path:
        """Train to the last step and return the model folder.

        Args:
            resume: False starts a run, True goes on with one; "auto" does what the run folder needs, so that one call
                serves the first start and every restart, also of a run that is complete.

        Raises:
            TrainingError: a loss is not finite, or SIGTERM or SIGINT arrived (a checkpoint is written first).
            FileError: the run folder is in use or damaged.
            UsageError: the run folder holds another run.
        """
        with ExitStack() as held, stop_on_signal(self.stop), explain_dead_workers():
            held.enter_context(gpu_settings(self.config))
            decide_first(lambda: self._take_folder(held, resume))
            consumed = self._begin(resume)
            if consumed is None:
                return self.folder.model
            self.reporter.begin(self.folder.path, self.trainable.recipe, self.step)
            if self.step == 0 and self.before_first_step is not None:
                self.before_first_step()
            log = RunLog(self.folder.log, self.step)
            first_step, started = self.step, time.perf_counter()
            batches = self.trainable.open_batches(consumed)
            try:
                steps = self.config.profile if self.rank == 0 else 0
                with profile_steps(steps, self.folder.path, self.reporter.message) as profiled:
                    self._train(batches, log, profiled)
            finally:
                batches.close()
                self._report_faults(batches.faults)
            if self.rank == 0:
                self.folder.record_speed(self.step - first_step, time.perf_counter() - started)
            if self.saves:
                self._save_model()
            collective.barrier()
        return self.folder.model

    def _report_faults(self, faults: Sequence[Fault]) -> None:
        if faults:
            self.reporter.message(self.folder.write_faults(faults))

    def _take_folder(self, held: ExitStack, resume: Resume) -> None:
        held.enter_context(self.folder.lock(PATIENCE if resume == "auto" else 0.0))

    def _begin(self, resume: Resume) -> int | None:
        """Create the run folder, or load its checkpoint; return the samples consumed, or None if nothing is left to do.

        The first process decides, because only its folder is written; all must find the same there.
        """
        start: list[Start] = []
        step, complete = decide_first(lambda: self._decide(start, resume))
        self.folder.require_one_step(find_step(self.folder, step) if self.rank else step)
        if complete:
            return None
        consumed = run_together(lambda: self._load_checkpoint(step)) if step else 0
        if start and start[0].before is not None:
            self._continue_run(start[0].before)
        return consumed

    def _decide(self, start: list[Start], resume: Resume) -> tuple[int, bool]:
        """The step to go on at, and whether the run is complete; runs in the first process."""
        metadata = {**self.trainable.metadata(), "processes": self.processes}
        found = decide_start(self.folder, self.trainable.recipe, metadata, resume)
        start.append(found)
        for line in found.damaged:
            self.reporter.message(f"Skipped a damaged checkpoint: {line}")
        if found.complete:
            self.reporter.message(f"The run is complete: all {found.step:,} steps are done, and the model is saved.")
        elif found.step is None and resume is True:
            self.reporter.message("No checkpoint was written yet; starting from the first step.")
        return found.step or 0, found.complete

    def _continue_run(self, before: RunRecipe) -> None:
        """Write the recipe of a resumed run; say and record where its schedule or its processes are others from now."""
        change = find_schedule_change(before.train, self.config, self.step)
        if change is not None:
            self.reporter.message(describe_schedule_change(before.train, self.config, self.step))
            self.folder.record_schedule_change(change)
        self.folder.record_processes(self.step, self.processes)
        self.folder.write_recipe(self.trainable.recipe)

    def _load_checkpoint(self, step: int) -> int:
        """Load the checkpoint of a step in this process; return the samples consumed."""
        groups, metadata = checkpoint.load(self.folder.checkpoints, step, self._find_sharded())
        source = f"The checkpoint of step {metadata['step']} in {self.folder.checkpoints}"
        for name, module in self.trainable.modules.items():
            if module is not None:
                checkpoint.restore_module(module, groups.get(name, {}), f"{source} ({name})")
                state = groups.get(f"{name}.optimizer", {})
                checkpoint.restore_optimizer(self.trainable.optimizers[name], state, f"{source} ({name}.optimizer)")
        if self.ema is not None:
            groups[EMA_GROUP] = update_tensor_names(self.ema.module, groups.get(EMA_GROUP, {}))
        for group, tensors in self._extra_tensors().items():
            label = "EMA" if group == EMA_GROUP else group
            checkpoint.restore_tensors(tensors, groups.get(group, {}), f"{source} ({label})")
        self.step = metadata["step"]
        return int(metadata["consumed"])

    def _find_sharded(self) -> Callable[[str, str], Tensor | None] | None:
        """Finds the tensors of checkpoints of which this process needs its part alone; None if it needs all whole."""
        if not self.sharded:
            return None
        modules = {name: module for name, module in self.trainable.modules.items() if module is not None}
        return find_sharded({**modules, EMA_GROUP: self.trainable.model}, self.trainable.optimizers)

    def _extra_tensors(self) -> dict[str, dict[str, Tensor]]:
        ema = {} if self.ema is None else {EMA_GROUP: self.ema.shadow}
        return {**ema, **self.trainable.extra_tensors()}

    def _train(self, batches: Batches, log: RunLog, profiled: Callable[[], None]) -> None:
        with sharing(self.config.batch, self.processes):
            self._train_steps(batches, log, profiled)

    def _train_steps(self, batches: Batches, log: RunLog, profiled: Callable[[], None]) -> None:
        self.trainable.set_train_mode()
        iterator, meter = iter(batches), SpeedMeter(self.config, self.trainable.model)
        while self.step < self.config.steps:
            terms = meter.step(self.train_step, iterator)
            log.add({key: loss.value for key, loss in terms.items()})
            self.step += 1
            line = None
            if self.step % self.config.log_every == 0 or self.step == self.config.steps:
                rate = learning_rate(self.config, self.step - 1)
                metrics = {**self.trainable.pop_metrics(), "learning_rate": rate}
                line = log.write(self.step, {**metrics, SPEED: meter.read()})
                self._check_alarm(line)
            self.reporter.progress(self.step, self.config.steps, line)
            if self.step % self.config.sample_every == 0 or self.step == self.config.steps:
                self._save_sample()
            profiled()
            # A signal may reach one process only; all must stop after the same step.
            last = self.step == self.config.steps
            stopping = collective.any_process(self.stopping or self._is_orphaned())
            if self.step % self.config.checkpoint_every == 0 or last or stopping:
                self._save_checkpoint(batches.consumed)
            if stopping and not last:
                raise StoppedError(
                    f"Stopped by a signal after step {self.step} of {self.config.steps}. A checkpoint was written; "
                    "resume with the same command and --resume."
                )

    def _is_orphaned(self) -> bool:
        """Whether the process of torchrun that started this one is gone, and may be started again beside it."""
        return self.processes > 1 and os.getppid() != self.parent

    def train_step(self, batch: Any) -> Losses:
        """Update the weights with one batch and return every term of the objective."""
        torch.manual_seed(step_seed(self.config.seed, self.step, self.rank))
        optimizers = self.trainable.optimizers
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.config, self.step) * group.get("factor", 1.0)
        terms = self.trainable.backward(batch, self.step)
        self._check_finite(terms, batch)
        for name, optimizer in optimizers.items():
            if self.trainable.should_step(name, self.step):
                if self.config.clip is not None:
                    clip_gradients(optimizer_parameters(optimizer), self.config.clip)
                optimizer.step()
        if self.ema is not None:
            self.ema.update(self.step + 1)
        return terms

    def _check_finite(self, terms: Losses, batch: Any) -> None:
        tensors = {key: loss.value.detach().float() for key, loss in terms.items()}
        for name, module in self.trainable.modules.items():
            parameters = module.parameters() if module is not None else ()
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            if gradients:
                tensors[f"gradient/{name}"] = total_norm(gradients)
        # One test of all values stacked, because each test waits for the device.
        if bool(torch.stack(list(tensors.values())).isfinite().all()):
            return
        values = {key: float(value) for key, value in tensors.items()}
        bad = [key for key, value in values.items() if not math.isfinite(value)]
        readable = {key: value if math.isfinite(value) else str(value) for key, value in values.items()}
        keys = [str(key) for key in getattr(batch, "keys", ())]
        path = self.folder.write_failure(self.step, self.trainable.named_tensors(batch), keys, readable)
        raise TrainingError(
            f"Stopped at step {self.step}: not finite: {', '.join(bad)}. The batch and all values are in {path}. "
            "Resuming will hit the same step; restart with a lower train.learning_rate, with train.clip or with "
            "train.precision fp32."
        )

    def _check_alarm(self, line: dict[str, Any]) -> None:
        """Report a problem when a log line shows it and the line before did not."""
        watched = self.rank == 0 and self.step > self.config.warmup  # a diagnosis reads the log of the first process
        alarm = self.trainable.find_alarm(self.step, line) if watched else None
        new, self.alarmed = alarm is not None and not self.alarmed, alarm is not None
        if alarm is not None and new:
            self.reporter.message(alarm.message)
            self.folder.append_alarm({"step": self.step, **alarm.record})

    # --- what a run writes --------------------------------------------------------------------------------------

    @contextmanager
    def _as_saved(self) -> Iterator[None]:
        """Within this context the model is in evaluation mode and, with an EMA, has the averaged weights."""
        self.trainable.model.eval()
        if self.ema is not None:
            self.ema.swap()
        try:
            yield
        finally:
            if self.ema is not None:
                self.ema.swap()
            self.trainable.set_train_mode()

    def _save_sample(self) -> None:
        if not self.saves:
            return
        with self._as_saved(), torch.no_grad():
            image = self.trainable.render_sample()
        if image is not None:
            self.folder.save_sample(self.step, image)
            self.reporter.sample(self.step, image)

    def _save_checkpoint(self, consumed: int) -> None:
        if not self.saves:
            return
        groups: dict[str, dict[str, Tensor]] = {}
        for name, module in self.trainable.modules.items():
            if module is not None:
                groups[name] = dict(module.state_dict())
                groups[f"{name}.optimizer"] = checkpoint.flatten_optimizer(self.trainable.optimizers[name])
        groups |= self._extra_tensors()
        checkpoint.save(self.folder.checkpoints, self.step, groups, {"consumed": consumed}, self.config.keep)

    def _save_model(self) -> None:
        progress = {"step": self.step, "seed": self.config.seed}
        metadata = {**progress, **self.trainable.metadata(), "processes": self.processes}
        changes = self.folder.schedule_changes()
        if changes:  # not a replicate of an uninterrupted run
            metadata[CHANGES] = changes
        if self.folder.process_changes():
            metadata[PROCESS_CHANGES] = self.folder.process_changes()
        if changes and METHOD_HASH in metadata:
            metadata[METHOD_HASH] = provenance.changed_method_hash(metadata[METHOD_HASH], changes)
        # Models are shared with others; the path of their maker's images is private.
        metadata.pop("data_folder", None)
        with self._as_saved():
            self.trainable.save_model(self.folder.model, metadata)
