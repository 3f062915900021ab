"""The training of a tokenizer: what the loop is given."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from tavq.core.devices import default_device
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader, TrainingLoader
from tavq.data.transforms import to_uint8
from tavq.interfaces import DEEP, Batch, Losses, TextSource, to_device
from tavq.metrics.codes import UsageLog
from tavq.metrics.collapse import POSITIONS_PER_ENTRY, collapsed, diagnose
from tavq.nets.discriminators import PatchCritic
from tavq.nets.features.extractors import logits_distance, perceptual_distance
from tavq.nets.features.loading import feature_network
from tavq.ops import collective
from tavq.recipes.identity import METHOD_HASH
from tavq.recipes.schema import Recipe
from tavq.tokenizer import Tokenizer
from tavq.training import model_card, provenance
from tavq.training.loop import Loop, Reporter, batch_per_process, step_seed
from tavq.training.run_folder import RunFolder, text_tensors
from tavq.training.tokenizer import finetune
from tavq.training.tokenizer.step import GeneratorStep, Perceptual

PREVIEWS = 8


class Trainer:
    """One run of a tokenizer's recipe into a run folder.

    Args:
        recipe: what to train; what the text store decides is filled in.
        dataset: the training split.
        run: the run folder.
        text: encoded text by file_name, needed where the recipe aligns or its codebook is made of words.
        preview: images for the sample grids (by default the training split's first).
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
        self.recipe = recipe.model_copy(update={"model": recipe.model.resolve_config(text)})
        self.config = recipe.train
        self.batch = batch_per_process(self.config)
        self.dataset, self.folder = dataset, RunFolder(run)
        self.text = text if recipe.model.reads_text else None
        self.device = device or default_device()
        self._build()
        self.preview = preview_batch(preview or dataset, self.recipe, self.device)
        self.usage = UsageLog(self.tokenizer.codebook.sizes)
        self.loop = Loop(self, run, reporter)

    def _build(self) -> None:
        config = self.config
        torch.manual_seed(step_seed(config.seed, -1))
        self.tokenizer = self.model = Tokenizer(self.recipe.model)
        self.tokenizer.load_vocabulary(self.text)
        if config.start_from is not None:
            finetune.initialize_from(self.tokenizer, config.start_from)
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
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(module.parameters(), config.learning_rate, config.betas)
            for name, module in self.modules.items()
            if module is not None
        }
        self.stepper = GeneratorStep(self.tokenizer, self.discriminator, self._perceptual(), config, self.device)

    def _perceptual(self) -> Perceptual | None:
        settings = self.config.perceptual
        if settings is None:
            return None
        logits = settings.distance == "logits"
        network = feature_network(settings.network, Path(settings.weights) if settings.weights else None, logits)
        return partial(logits_distance if logits else perceptual_distance, network.to(self.device))

    def run(self, resume: bool = False) -> Path:
        """Trains to the last step and returns the model folder; see `Loop.run`."""
        return self.loop.run(resume)

    # --- what the loop asks -------------------------------------------------------------------------------------

    def metadata(self) -> dict[str, Any]:
        """Versions, data, text and the numbers of parameters."""
        told = provenance.describe(self.dataset, self.text, self.device)
        return {
            **told,
            METHOD_HASH: provenance.method_hash(self.recipe, told),
            "size": self.recipe.data.size,
            "kind_of_images": self.recipe.data.images,
            "colours": self.recipe.data.model_dump(mode="json")["colours"],
            "parameters": self.tokenizer.parameter_counts(),
        }

    def open_batches(self, consumed: int) -> TrainingLoader:
        """The training images with their text."""
        return TrainingLoader(
            self.dataset,
            self.recipe.data,
            self.batch,
            self.config.seed,
            self.text if self.recipe.model.align is not None else None,
            consumed,
            collective.rank(),
            collective.world_size(),
        )

    def set_train_mode(self) -> None:
        """Training mode, but for what is frozen."""
        finetune.train_mode(self.tokenizer, self.config.freeze)

    def backward(self, batch: Batch, step: int) -> Losses:
        """The gradients of the tokenizer and, where it counts, of the discriminator."""
        batch = to_device(batch, self.device)
        if self.config.channels_last:
            batch = Batch(batch.images.contiguous(memory_format=torch.channels_last), batch.keys, batch.text)
        output, terms = self.stepper.backward(batch, step)
        self.usage.add(output.levels[DEEP].indices)
        return terms

    def should_step(self, name: str, step: int) -> bool:
        """The discriminator rests before it counts."""
        return name != "discriminator" or self.stepper.adversarial_on(step)

    def pop_metrics(self) -> dict[str, Any]:
        """How the codebook was used since the last line."""
        return self.usage.take(self.tokenizer.codebook().detach())

    def find_alarm(self, step: int, line: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """A collapse of the codebook, with its likely cause and a remedy."""
        entries, share = self.tokenizer.entries, self.config.alarm_usage
        enough = line["codebook/positions"] >= POSITIONS_PER_ENTRY * entries
        if not enough or not collapsed(line, self.tokenizer.codebook.sizes, share):
            return None
        found = diagnose(self.folder.lines(), self.recipe.model.model_dump(mode="json"))
        said = f"Codebook collapse at step {step} (alarm below {share:.1%} of {entries}). {found}"
        return said, {"alarm": "codebook collapse", "usage": line["codebook/usage"], **asdict(found)}

    def render_sample(self) -> ndarray:
        """Held-out images above their reconstructions."""
        images = self.tokenizer.decode(self.tokenizer.encode(self.preview))
        rows = torch.cat([torch.cat(list(part), dim=2) for part in (self.preview, images)], dim=1)
        return to_uint8(rows).permute(1, 2, 0).cpu().numpy()

    def save_model(self, folder: Path, metadata: dict[str, Any]) -> None:
        """The model folder, a computed codebook as its table."""
        text = model_card.write(self.recipe, self.tokenizer.codebook.sizes, metadata, metadata["step"])
        self.tokenizer.with_fixed_codebook().save_pretrained(folder, text, metadata)

    def extra_tensors(self) -> dict[str, dict[str, Tensor]]:
        """The running values of the LeCam regulariser."""
        return {} if self.stepper.lecam is None else {"lecam": dict(self.stepper.lecam.state_dict())}

    def named_tensors(self, batch: Batch) -> dict[str, Tensor]:
        """Images and text."""
        return {"images": batch.images, **text_tensors(batch.text)}


def preview_batch(dataset: FolderDataset, recipe: Recipe, device: torch.device) -> Tensor:
    """The first images of a split that can be read, for the sample grids."""
    images: Tensor = next(iter(EvaluationLoader(dataset, recipe.data, PREVIEWS))).images
    return images.to(device)
