"""The settings of a recipe, which decide what a training run computes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tavq.core.config import Config, config_of
from tavq.core.errors import unknown_name
from tavq.data.config import DataConfig, FaultBudget
from tavq.nets.discriminators import DiscriminatorConfig
from tavq.nets.features.loading import NETWORKS, missing_classifier
from tavq.tasks.base import tasks
from tavq.tokenizer import TokenizerConfig

Beta = Annotated[float, Field(ge=0, lt=1)]


class PerceptualConfig(Config):
    """A perceptual loss: the distance of a feature network, added to the pixel losses."""

    network: Literal["lpips", "scenes", "squeezenet"]
    weights: str | None = None
    """File of the network's weights; those of `scenes` are shipped."""
    weight: float = Field(1.0, gt=0, le=1000)
    distance: Literal["features", "logits"] = "features"
    """Between features at several depths, or between the logits of the network's classifier, as in VQGAN+."""

    @model_validator(mode="after")
    def _network_has_logits(self) -> "PerceptualConfig":
        if self.distance == "logits" and not NETWORKS[self.network].has_classifier:
            raise ValueError(missing_classifier(self.network).removesuffix("."))
        return self


class AdversarialConfig(Config):
    """The adversarial loss of a patch discriminator."""

    start: int = Field(10_000, ge=0)
    """First step at which the discriminator is trained and used; earlier steps do not run it."""
    warmup: int = Field(0, ge=0)
    """Steps from `start` on in which the discriminator alone learns, and the tokenizer is not trained against it. A
    decoder that is good already would be spoiled by a discriminator that has learned nothing."""
    weight: float = Field(0.8, ge=0, le=100)
    """Weight of the loss, multiplied with the adaptive weight."""
    adaptive: bool = True
    """Multiply with the ratio of gradient norms at the decoder's last layer (VQ-GAN, eq. 7)."""
    lecam: float = Field(0.0, ge=0, le=100)
    """Weight of the LeCam regularizer in the discriminator's loss; 0 is off, as in the papers."""
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    start_from: str | None = None
    """A model folder with a discriminator, as `tavq import-checkpoint` keeps it, whose weights it starts from; null
    draws new ones."""


class LoopConfig(Config):
    """Steps, optimizer, logging and checkpoints: settings of every run."""

    steps: int = Field(ge=1, le=10**9)
    batch: int = Field(6, ge=1, le=65536)
    seed: int = Field(0, ge=0, lt=2**63)
    learning_rate: float = Field(2.7e-5, gt=0, le=1)
    """The papers' rule for tokenizers is 4.5e-6 x batch."""
    betas: tuple[Beta, Beta] = (0.5, 0.9)
    warmup: int = Field(0, ge=0)
    """Steps over which the learning rate rises linearly from 0."""
    decay: Literal["none", "cosine"] = "none"
    """After the warm-up: constant, as in the papers, or half a cosine down to a tenth at the last step."""
    clip: float | None = Field(None, gt=0)
    """Clip the gradient norm of each optimizer to this value; null is off, as in the papers."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Save an exponential moving average of the weights with this decay; null saves the weights themselves."""
    precision: Literal["fp32", "bf16"] = "fp32"
    tf32: bool = False
    """Let a GPU round the operands of float32 matrix products to TF32 (10 bits): several times faster. Convolutions
    always may. The choice of the nearest entry never does. Nothing on a CPU."""
    cudnn_benchmark: bool = False
    """Let cuDNN time its convolutions and take the fastest, which may be another one in the next run. It pays after the
    first steps, as shapes stay the same. Nothing on a CPU."""
    log_every: int = Field(10, ge=1)
    sample_every: int = Field(500, ge=1)
    checkpoint_every: int = Field(500, ge=1)
    keep: int = Field(2, ge=1, le=100)
    """Number of checkpoints to keep; older ones are removed."""
    profile: int = Field(0, ge=0, le=100)
    """Profile this many steps after a warm-up, into the folder `profile` of the run; 0 profiles nothing."""
    accumulate: int = Field(1, ge=1, le=4096)
    """Parts in which each process computes its share of the batch: memory of one part, the result of the whole up to
    rounding."""
    recompute: bool = False
    """Compute activations of blocks again in the backward pass, in place of keeping them: less memory for a third more
    computation, and the same bits."""
    compile: bool = False
    """Let PyTorch's compiler join the operations of the networks: minutes at the start, then faster steps on a GPU.
    The result is the same up to rounding."""


CODE_PARTS = ("encoder", "codebook", "quantizer", "decoder")
"""Parts that decide the codes and the images of a tokenizer; `train.cache_codes` needs all of them frozen."""


class TrainConfig(LoopConfig):
    """Training settings of a tokenizer: its pixel losses, and which of its parts are trained."""

    start_from: str | None = None
    """Model folder, run folder or hub name whose weights the run starts from; null starts from random weights."""
    evaluate_first: int = Field(0, ge=0)
    """Held-out images on which the model of `start_from` is measured before the first step; 0 measures nothing."""
    freeze: tuple[str, ...] = ()
    """Parts of the tokenizer that are not trained: they get no gradients, and their statistics are not updated."""
    cache_codes: bool = False
    """Encode every image once, keep the indices in the run folder and train the aligner on them, without a pass of
    encoder or decoder. Needs frozen codes and an aligner that reads the deep level alone."""
    learning_rate_factors: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field(default_factory=dict)
    """Factors on the learning rate of parts of the tokenizer, or of the `discriminator`; 1 for parts left out."""
    channels_last: bool = True
    l1: float = Field(1.0, ge=0, le=1000)
    l2: float = Field(0.0, ge=0, le=1000)
    perceptual: PerceptualConfig | None = None
    adversarial: AdversarialConfig | None = AdversarialConfig()
    alarm_usage: float = Field(0.05, ge=0, le=1)
    """Warn of a codebook collapse when the fraction of entries that were used since the last log line, or the
    perplexity divided by the number of entries, is below this."""

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.evaluate_first and self.start_from is None:
            raise ValueError("evaluate_first measures the model of train.start_from, which is null; set it to 0")
        if self.l1 == 0 and self.l2 == 0:
            raise ValueError("l1 and l2 cannot both be 0: no loss would compare reconstructions with images")
        return self


class PublishedConfig(Config):
    """A metric that a paper reports for the method of a recipe.

    It can only be compared with a measured metric of the same name: `fid` uses Inception's features, `fd_NETWORK` the
    features of another network.
    """

    metric: Literal[
        "fid", "psnr", "ssim", "l1", "l2", "code_text_cosine", "word_code_mse", "masked_words_recall@1_of_1",
        "masked_words_recall@1_of_3", "seconds_per_epoch", "vqa/accuracy",
    ]  # fmt: skip
    """That of a task on the tokenizer's codes has the task's name before it."""
    value: float = Field(ge=0)
    source: str = Field(min_length=1)
    """Paper and table."""


class RunRecipe(Config):
    """Settings that recipes of tokenizers and of tasks have in common."""

    description: str = ""
    train: LoopConfig


class Recipe(RunRecipe):
    """A tokenizer, its data and its training, in one YAML file."""

    published: tuple[PublishedConfig, ...] = ()
    """What papers report for it; several values if papers disagree."""
    model: TokenizerConfig
    data: DataConfig
    train: TrainConfig

    @model_validator(mode="before")
    @classmethod
    def _is_not_sharded(cls, settings: Any) -> Any:
        train = settings.get("train") if isinstance(settings, Mapping) else None
        if isinstance(train, Mapping) and "sharding" in train:
            raise ValueError(
                "train.sharding shares out the transformer of a task; a tokenizer and its aligner are not sharded, so "
                "leave it out"
            )
        return settings

    @model_validator(mode="after")
    def _size_is_multiple_of_factor(self) -> "Recipe":
        factor = self.model.net.factor
        if self.data.size % factor:
            raise ValueError(f"data.size {self.data.size} must be a multiple of {factor}, the network's factor")
        return self

    @model_validator(mode="after")
    def _discriminator_fits_size(self) -> "Recipe":
        """Refuse at the start what would fail at the first adversarial step, hours into a run."""
        adversarial = self.train.adversarial
        if adversarial is None or adversarial.start >= self.train.steps:
            return self
        smallest = adversarial.discriminator.smallest
        if self.data.size < smallest:
            raise ValueError(
                f"data.size {self.data.size} is below {smallest}, the smallest image that a discriminator of "
                f"{adversarial.discriminator.layers} layers can score; choose fewer layers"
            )
        return self

    @model_validator(mode="after")
    def _parts_exist(self) -> "Recipe":
        parts = ["encoder", "decoder", "codebook", "quantizer"]
        parts += ["aligner", "hierarchy"] if self.model.align is not None else []
        _check_parts("train.freeze", self.train.freeze, parts)
        rated = [*parts, "discriminator"] if self.train.adversarial is not None else parts
        _check_parts("train.learning_rate_factors", self.train.learning_rate_factors, rated)
        adversarial = self.train.adversarial
        if "decoder" in self.train.freeze and adversarial is not None and adversarial.adaptive:
            raise ValueError(
                "train.adversarial.adaptive compares gradients at the decoder's last layer, which train.freeze turns "
                "off; set it to false, or do not freeze the decoder"
            )
        return self

    @model_validator(mode="after")
    def _codes_can_be_cached(self) -> "Recipe":
        if not self.train.cache_codes:
            return self
        missing = [part for part in CODE_PARTS if part not in self.train.freeze]
        if self.model.align is None:
            raise ValueError("train.cache_codes trains an aligner on the codes; set model.align, or set it to false")
        if missing:
            raise ValueError(f"train.cache_codes needs frozen codes; add {', '.join(missing)} to train.freeze")
        if self.train.adversarial is not None:
            raise ValueError("train.cache_codes decodes no image; set train.adversarial to null")
        if self.data.crop_scale < 1:
            raise ValueError(
                "train.cache_codes encodes each image once, so data.crop_scale cannot vary the crop; set it to 1, or "
                "train.cache_codes to false"
            )
        return self


def _check_parts(setting: str, named: Iterable[str], parts: Sequence[str]) -> None:
    for name in named:
        if name not in parts:
            raise ValueError(f"{setting}: {unknown_name('part', name, parts).removesuffix('.')}")


class TaskTrainConfig(LoopConfig):
    """Training settings of a task, with defaults for transformers."""

    learning_rate: float = Field(4.5e-4, gt=0, le=1)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    tf32: bool = True
    """As for tokenizers, but on: a transformer is nearly all matrix products, and trains as well in bf16, which has
    fewer digits than TF32."""
    weight_decay: float = Field(0.01, ge=0, le=1)
    """Applied to matrices, not to vectors and embedding tables, as in minGPT, which VQ-GAN's code uses."""
    sharding: Literal["none", "full"] = "none"
    """Share out weights, gradients and optimizer state over the processes (full), or keep all of them in each."""


class TaskDataConfig(Config):
    """How the images of a task are loaded."""

    size: int | None = Field(None, ge=16, le=2048)
    """Side of the square in pixels; null is the size the tokenizer was trained at."""
    flip: bool = True
    """Flip each image horizontally with probability 1/2."""
    workers: int = Field(0, ge=0, le=64)
    fault_budget: FaultBudget = 100


class TaskRecipe(RunRecipe):
    """A task and its training, in one YAML file; the tokenizer is given on the command line."""

    task: config_of(tasks)
    data: TaskDataConfig = TaskDataConfig()
    train: TaskTrainConfig
