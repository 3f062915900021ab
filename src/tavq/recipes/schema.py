"""A recipe: everything that decides what a training run computes."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tavq.core.config import Config, config_of
from tavq.core.errors import unknown_name
from tavq.data.config import DataConfig
from tavq.nets.discriminators import CriticConfig
from tavq.nets.features.loading import NETWORKS, no_classifier
from tavq.tasks.base import tasks
from tavq.tokenizer import TokenizerConfig

Beta = Annotated[float, Field(ge=0, lt=1)]


class PerceptualConfig(Config):
    """The feature network whose distance is added to the pixels'."""

    network: Literal["lpips", "scenes", "squeezenet"]
    weights: str | None = None
    """File of the network's weights; `scenes` carries its own."""
    weight: float = Field(1.0, gt=0, le=1000)
    distance: Literal["features", "logits"] = "features"
    """Of features at several depths, or of the classifier's logits as in VQGAN+, where the network has one."""

    @model_validator(mode="after")
    def _logits_of_a_classifier(self) -> "PerceptualConfig":
        if self.distance == "logits" and not NETWORKS[self.network].classifies:
            raise ValueError(no_classifier(self.network).removesuffix("."))
        return self


class AdversarialConfig(Config):
    """The patch discriminator and when it starts to count."""

    start: int = Field(10_000, ge=0)
    """First step on which it is trained and counts; before it no work is done for it."""
    weight: float = Field(0.8, ge=0, le=100)
    """Factor beside the adaptive weight."""
    adaptive: bool = True
    """Balance by the ratio of gradients at the decoder's last layer (VQ-GAN, eq. 7)."""
    lecam: float = Field(0.0, ge=0, le=100)
    """Weight of the LeCam regulariser in the discriminator's loss; 0 for none, as in the papers."""
    discriminator: CriticConfig = CriticConfig()


class LoopConfig(Config):
    """Steps, optimiser, and how often to log and save: what every run has."""

    steps: int = Field(ge=1, le=10**9)
    batch: int = Field(6, ge=1, le=65536)
    seed: int = Field(0, ge=0, lt=2**63)
    learning_rate: float = Field(2.7e-5, gt=0, le=1)
    """The papers' rule for tokenizers is 4.5e-6 x batch."""
    betas: tuple[Beta, Beta] = (0.5, 0.9)
    warmup: int = Field(0, ge=0)
    """Steps over which the learning rate rises from 0."""
    decay: Literal["none", "cosine"] = "none"
    """After the warm-up: constant as in the papers, or a half cosine to a tenth at the last step."""
    clip: float | None = Field(None, gt=0)
    """Largest norm of each optimiser's gradient; null for none, as in the papers."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of the running mean of the weights that is saved as the model; null saves the weights themselves."""
    precision: Literal["fp32", "bf16"] = "fp32"
    log_every: int = Field(10, ge=1)
    sample_every: int = Field(500, ge=1)
    checkpoint_every: int = Field(500, ge=1)
    keep: int = Field(2, ge=1, le=100)
    """Checkpoints kept, the newest first."""


class TrainConfig(LoopConfig):
    """A tokenizer's: the losses on its images, and what of it is trained."""

    start_from: str | None = None
    """Model folder, run folder or hub name whose weights the run begins with; null begins from drawn ones."""
    freeze: tuple[str, ...] = ()
    """Parts of the tokenizer that stay as they are: they get no gradient and their statistics do not move."""
    channels_last: bool = True
    l1: float = Field(1.0, ge=0, le=1000)
    l2: float = Field(0.0, ge=0, le=1000)
    perceptual: PerceptualConfig | None = None
    adversarial: AdversarialConfig | None = AdversarialConfig()
    alarm_usage: float = Field(0.05, ge=0, le=1)
    """The collapse alarm sounds where fewer than this share of the entries were chosen since the last line of the
    log, or the perplexity is a smaller share of their number."""

    @model_validator(mode="after")
    def _some_loss(self) -> "TrainConfig":
        if self.l1 == 0 and self.l2 == 0:
            raise ValueError("l1 and l2 cannot both be 0: nothing would tie the images to their reconstruction")
        return self


class PublishedConfig(Config):
    """A number that a paper prints for what a recipe trains.

    It may stand beside a measured one of the same name only: `fid` is FID's own network's, which no `fd_NETWORK` is.
    """

    metric: Literal["fid", "psnr", "ssim", "l1", "l2"]
    value: float = Field(ge=0)
    source: str = Field(min_length=1)
    """Paper and table."""


class RunRecipe(Config):
    """What every recipe has."""

    description: str = ""
    train: LoopConfig


class Recipe(RunRecipe):
    """A tokenizer, its data and its training, as one YAML file."""

    published: tuple[PublishedConfig, ...] = ()
    """What papers report of it; papers that disagree stand beside each other."""
    model: TokenizerConfig
    data: DataConfig
    train: TrainConfig

    @model_validator(mode="after")
    def _whole_codes(self) -> "Recipe":
        factor = self.model.net.factor
        if self.data.size % factor:
            raise ValueError(f"data.size {self.data.size} must be a multiple of {factor}, the network's factor")
        return self

    @model_validator(mode="after")
    def _images_the_discriminator_can_score(self) -> "Recipe":
        """Said at the start: it would be met at the adversary's first step, hours into a run."""
        adversarial = self.train.adversarial
        if adversarial is None or adversarial.start >= self.train.steps:
            return self
        smallest = adversarial.discriminator.smallest
        if self.data.size < smallest:
            raise ValueError(
                f"data.size {self.data.size} is below {smallest}, the least that a discriminator of "
                f"{adversarial.discriminator.layers} layers scores; choose fewer layers"
            )
        return self

    @model_validator(mode="after")
    def _parts_that_can_be_frozen(self) -> "Recipe":
        parts = ["encoder", "decoder", "codebook", "quantizer"]
        parts += ["aligner", "hierarchy"] if self.model.align is not None else []
        for name in self.train.freeze:
            if name not in parts:
                raise ValueError(f"train.freeze: {unknown_name('part', name, parts).removesuffix('.')}")
        adversarial = self.train.adversarial
        if "decoder" in self.train.freeze and adversarial is not None and adversarial.adaptive:
            raise ValueError(
                "train.adversarial.adaptive compares gradients at the decoder's last layer, which train.freeze holds; "
                "set it to false or leave the decoder free"
            )
        return self


class TaskTrainConfig(LoopConfig):
    """A task's: the optimiser of transformers."""

    learning_rate: float = Field(4.5e-4, gt=0, le=1)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: float = Field(0.01, ge=0, le=1)
    """On matrices; vectors and tables of embeddings keep their size [as in minGPT, which VQ-GAN's code uses]."""


class TaskDataConfig(Config):
    """How the images of a task become tokens."""

    size: int | None = Field(None, ge=16, le=2048)
    """Side of the square in pixels; null for the size the tokenizer was trained at."""
    flip: bool = True
    """Also the mirror image of each image, half of the time."""
    workers: int = Field(0, ge=0, le=64)
    fault_budget: int = Field(100, ge=0)


class TaskRecipe(RunRecipe):
    """A task and its training, as one YAML file; the tokenizer is given on the command line."""

    task: config_of(tasks)
    data: TaskDataConfig = TaskDataConfig()
    train: TaskTrainConfig
