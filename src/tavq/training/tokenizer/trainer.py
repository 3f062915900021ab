"""The training of a tokenizer: networks, optimizers and data for the loop."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from tavq.core.devices import default_device, to_device
from tavq.core.errors import FileError
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader, TrainingLoader
from tavq.data.transforms import to_uint8
from tavq.interfaces import DEEP, Batch, Losses, TextSource
from tavq.metrics.codes import UsageLog
from tavq.metrics.collapse import POSITIONS_PER_ENTRY, diagnose, is_collapsed
from tavq.model_folder import describe_start
from tavq.nets.discriminators import PatchDiscriminator
from tavq.nets.features.extractors import logits_distance, perceptual_distance
from tavq.nets.features.loading import load_feature_network
from tavq.nets.hierarchy import LEVELS
from tavq.ops import collective
from tavq.recipes.identity import METHOD_HASH
from tavq.recipes.schema import Recipe
from tavq.tokenizer import Tokenizer
from tavq.training import model_card, provenance
from tavq.training.batches import check_batch
from tavq.training.compilation import compile_method, compile_tokenizer, find_obstacle
from tavq.training.loop import Loop, step_seed
from tavq.training.recomputation import recompute_blocks
from tavq.training.reporting import Reporter
from tavq.training.run_folder import RunFolder, text_tensors
from tavq.training.start import Resume
from tavq.training.tokenizer import codes, finetune
from tavq.training.tokenizer.accumulation import AccumulatedStep
from tavq.training.tokenizer.codes import CodeBatch, CodeBatches
from tavq.training.tokenizer.step import GeneratorStep, Perceptual
from tavq.training.trainable import Alarm

PREVIEWS = 8


class Trainer:
    """Trains a tokenizer's recipe into a run folder.

    Args:
        recipe: what to train; settings that the text store decides are filled in.
        dataset: the training split.
        run: the run folder.
        text: encoded text by file_name; needed if the recipe aligns or its codebook is made from words.
        preview: images for the samples; by default the first of the training split.
        reporter: receives progress and messages.
        device: by default a GPU, if there is one.
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
        self.recipe = recipe.model_copy(update={"model": recipe.model.resolve_config(text)})
        self.config = recipe.train
        check_batch(self.config)
        self.dataset, self.folder = dataset, RunFolder(run)
        self.text = text if recipe.model.reads_text else None
        self.device = device or default_device()
        self._build()
        self.preview = load_preview(preview or dataset, self.recipe, self.device)
        self.usage = {level: UsageLog(codebook.sizes) for level, codebook in self.tokenizer.codebooks.items()}
        self.loop = Loop(self, run, reporter)
        if self.obstacle is not None:
            self.loop.reporter.message(self.obstacle)

    def _build(self) -> None:
        config = self.config
        torch.manual_seed(step_seed(config.seed, -1))
        self.tokenizer = self.model = Tokenizer(self.recipe.model)
        self.tokenizer.load_vocabulary(self.text)
        if config.start_from is not None:
            finetune.initialize_from(self.tokenizer, config.start_from)
            if "codebook" not in config.freeze:
                self.tokenizer.codebook.keep_entries()
        finetune.freeze(self.tokenizer, config.freeze)
        finetune.check_gradient_paths(self.tokenizer)
        if config.cache_codes:
            finetune.check_cached_levels(self.tokenizer)
        adversarial = config.adversarial
        # A seed of its own, so that the tokenizer's weights are the same with and without a discriminator.
        self.discriminator = (
            PatchDiscriminator(adversarial.discriminator, seed=step_seed(config.seed, -2)) if adversarial else None
        )
        if self.discriminator is not None and adversarial is not None and adversarial.start_from is not None:
            finetune.initialize_discriminator(self.discriminator, adversarial.start_from)
        for module in (self.tokenizer, self.discriminator):
            if module is not None:
                module.to(self.device)
                if config.channels_last:
                    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules = {"model": self.tokenizer, "discriminator": self.discriminator}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(
                finetune.group_parameters(name, module, config.learning_rate_factors),
                config.learning_rate,
                config.betas,
                fused=self.device.type == "cuda",
            )
            for name, module in self.modules.items()
            if module is not None
        }
        if config.recompute:
            recompute_blocks(self.tokenizer)
        self.obstacle = find_obstacle(self.device) if config.compile else None
        self.compiles = config.compile and self.obstacle is None
        if self.compiles:
            compile_tokenizer(self.tokenizer, self.discriminator)
        kind = AccumulatedStep if config.accumulate > 1 else GeneratorStep
        self.stepper = kind(self.tokenizer, self.discriminator, self._perceptual(), config, self.device)

    def _perceptual(self) -> Perceptual | None:
        settings = self.config.perceptual
        if settings is None:
            return None
        on_logits = settings.distance == "logits"
        network = load_feature_network(
            settings.network, Path(settings.weights) if settings.weights else None, on_logits
        )
        if self.compiles:
            compile_method(network, "logits" if on_logits else "stages")
        return partial(logits_distance if on_logits else perceptual_distance, network.to(self.device))

    def run(self, resume: Resume = False) -> Path:
        """Train to the last step and return the model folder; see `Loop.run`."""
        return self.loop.run(resume)

    def copy_tokenizer(self) -> Tokenizer:
        """The tokenizer in evaluation mode, with weights of its own that lie in memory as those of a model folder."""
        with torch.device("meta"):
            copy = Tokenizer(self.recipe.model)
        state = self.tokenizer.state_dict()
        plain = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
        copy.load_state_dict(plain, assign=True)
        return copy.eval().requires_grad_(False)

    # --- Trainable ----------------------------------------------------------------------------------------------

    def metadata(self) -> dict[str, Any]:
        """Versions, data, text, the method's hash and parameter counts."""
        described = provenance.describe(self.dataset, self.text, self.device)
        started = self.config.start_from
        return {
            **described,
            **({} if started is None else {"started_from": describe_start(started)}),
            METHOD_HASH: provenance.method_hash(self.recipe, described),
            "size": self.recipe.data.size,
            "kind_of_images": self.recipe.data.images,
            "colours": self.recipe.data.model_dump(mode="json")["colours"],
            "parameters": self.tokenizer.parameter_counts(),
        }

    def open_batches(self, consumed: int) -> TrainingLoader | CodeBatches:
        """The training images with their text, or their codes."""
        if self.config.cache_codes:
            return self._open_codes(consumed)
        return TrainingLoader(
            self.dataset,
            self.recipe.data,
            self.config.batch,
            self.config.seed,
            self.text if self.recipe.model.align is not None else None,
            consumed,
            collective.rank(),
            collective.world_size(),
            self.device,
        )

    def _open_codes(self, consumed: int) -> CodeBatches:
        """The codes of the training images, which the first process computes where the run has none that fit."""
        assert self.text is not None
        path, data = self.folder.path / codes.CODES, self.recipe.data
        stamp = codes.stamp_codes(self.tokenizer, self.dataset, data)
        if collective.rank() == 0:
            self._ensure_codes(path, stamp)
        collective.barrier()
        table = codes.load_codes(path, stamp, len(self.dataset))
        rank, world = collective.rank(), collective.world_size()
        batch, seed = self.config.batch, self.config.seed
        return CodeBatches(table, self.dataset, data, batch, seed, self.text, consumed, rank, world, self.device)

    def _ensure_codes(self, path: Path, stamp: str) -> None:
        """Write the codes of the training images, unless they are there; say why where old ones are replaced."""
        try:
            codes.load_codes(path, stamp, len(self.dataset))
            return
        except FileError as error:
            if path.exists():
                self.loop.reporter.message(f"Encoding the images again: {error}")
        oblong = codes.count_oblong(self.dataset)
        if oblong:
            self.loop.reporter.message(
                f"{oblong:,} of {len(self.dataset):,} images are not square. Their codes are those of the centre "
                "square; without train.cache_codes each epoch would move the crop along the longer side."
            )
        self.tokenizer.eval()
        codes.write_codes(path, stamp, self.tokenizer, self.dataset, self.recipe.data)
        self.set_train_mode()

    def set_train_mode(self) -> None:
        """Put all but the frozen parts into training mode."""
        finetune.set_train_mode(self.tokenizer, self.config.freeze)

    def backward(self, batch: Batch | CodeBatch, step: int) -> Losses:
        """Compute the gradients of the tokenizer and, once it has started, of the discriminator."""
        batch = to_device(batch, self.device)
        if isinstance(batch, CodeBatch):
            self.usage[DEEP].add(batch.indices)
            return self.stepper.align(batch)
        if self.config.channels_last:
            batch = Batch(batch.images.contiguous(memory_format=torch.channels_last), batch.keys, batch.text)
        output, terms = self.stepper.backward(batch, step)
        for level, usage in self.usage.items():
            usage.add(output.levels[level].indices)
        return terms

    def should_step(self, name: str, step: int) -> bool:
        """True, except for the discriminator before its first step."""
        return name != "discriminator" or self.stepper.adversarial_on(step)

    def pop_metrics(self) -> dict[str, Any]:
        """How the codebook was used since the last call."""
        logged: dict[str, Any] = {}
        for level, codebook in self.tokenizer.codebooks.items():
            logged |= self.usage[level].flush(codebook().detach(), log_prefix(level))
        return logged

    def find_alarm(self, step: int, line: dict[str, Any]) -> Alarm | None:
        """A collapse of the codebook at any level, with its likely cause and a remedy; the deep level's first."""
        threshold = self.config.alarm_usage
        for level, codebook in self.tokenizer.codebooks.items():
            prefix = log_prefix(level)
            # A line of few positions cannot show that entries are unused.
            enough = line[f"{prefix}/positions"] >= POSITIONS_PER_ENTRY * codebook.size
            if not enough or not is_collapsed(line, codebook.sizes, threshold, prefix):
                continue
            diagnosis = diagnose(self.folder.read_log(), self.recipe.model.model_dump(mode="json"), prefix)
            where = "" if level == DEEP else f" of the {LEVELS[level]} level"
            limit = f"alarm below {threshold:.1%} of {codebook.size}"
            usage = line[f"{prefix}/usage"]
            record = {"alarm": "codebook collapse", "level": LEVELS[level], "usage": usage, **asdict(diagnosis)}
            return Alarm(f"Codebook collapse{where} at step {step} ({limit}). {diagnosis}", record)
        return None

    def render_sample(self) -> ndarray:
        """Held-out images in a row above their reconstructions."""
        reconstructions = self.tokenizer.decode(self.tokenizer.encode(self.preview))
        rows = [torch.cat(list(images), dim=2) for images in (self.preview, reconstructions)]
        return to_uint8(torch.cat(rows, dim=1)).permute(1, 2, 0).cpu().numpy()

    def save_model(self, folder: Path, metadata: dict[str, Any]) -> None:
        """Write the model folder; a codebook that is computed from weights is saved as its table of entries."""
        card = model_card.tokenizer_card(self.recipe, self.tokenizer.codebook.sizes, metadata, metadata["step"])
        self.tokenizer.with_fixed_codebook().save_pretrained(folder, card, metadata)

    def extra_tensors(self) -> dict[str, dict[str, Tensor]]:
        """The moving averages of the LeCam regularizer."""
        return {} if self.stepper.lecam is None else {"lecam": dict(self.stepper.lecam.state_dict())}

    def named_tensors(self, batch: Batch | CodeBatch) -> dict[str, Tensor]:
        """Images or their codes, and text."""
        content = {"indices": batch.indices} if isinstance(batch, CodeBatch) else {"images": batch.images}
        return {**content, **text_tensors(batch.text)}


def log_prefix(level: int) -> str:
    """What the names of a level's codebook metrics begin with in the log; the deep level's is `codebook`."""
    return "codebook" if level == DEEP else f"codebook/{LEVELS[level]}"


def load_preview(dataset: FolderDataset, recipe: Recipe, device: torch.device) -> Tensor:
    """The first readable images of a split, for the samples."""
    images: Tensor = next(iter(EvaluationLoader(dataset, recipe.data, PREVIEWS))).images
    return images.to(device)
