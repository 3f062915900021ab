"""Fine-tuning: initialize from a trained model, and freeze some of its parts."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tavq.core.errors import UsageError
from tavq.interfaces import DEEP, Codebook
from tavq.metrics.codes import LEVEL_NAMES
from tavq.model_folder import DISCRIMINATOR, find_model, read_discriminator, read_model_config
from tavq.nets.discriminators import PatchDiscriminator
from tavq.tokenizer import Tokenizer

SHAPELESS = ("value_range", "downsample")
"""Settings of the network that change what weights compute and not their shapes."""

TEXT_STATISTICS = ".text_mean"
"""End of the names of an aligner's buffers that describe the text store, and come from the one that is trained on."""


@torch.no_grad()
def initialize_from(tokenizer: Tokenizer, name_or_path: str) -> None:
    """Copy the weights of a trained model into `tokenizer`; an aligner that the model lacks keeps its own.

    Codebooks of upper levels that come from the model keep their entries; others start from features.

    Raises:
        UsageError: there is no such model, or its network, codebook or quantizer differs.
    """
    model = Tokenizer.from_pretrained(name_or_path)
    trained = model.state_dict()
    own = {name: value for name, value in tokenizer.state_dict().items() if not name.endswith(TEXT_STATISTICS)}
    needed = {name for name in own if name.split(".")[0] not in ("aligner", "hierarchy", "level_codebooks")}
    shapes = {name: value.shape for name, value in own.items() if name in needed or name in trained}
    wrong = sorted(name for name in shapes if name not in trained or trained[name].shape != shapes[name])
    if wrong:
        found = list(trained[wrong[0]].shape) if wrong[0] in trained else "nothing"
        saved_as_table = model.config.codebook.name == "fixed" and tokenizer.codebook.generated
        hint = " (a computed codebook is saved as its table: set model.codebook to fixed)" if saved_as_table else ""
        raise UsageError(
            f"The model {name_or_path!r} does not fit this recipe: {wrong[0]!r} is {found} there and "
            f"{list(shapes[wrong[0]])} here. Use the recipe it was trained with{hint}, or remove train.start_from."
        )
    groups, here = _norm_groups(model), _norm_groups(tokenizer)
    if groups != here:  # no shape of a weight shows them
        raise UsageError(
            f"The model {name_or_path!r} does not fit this recipe: its normalizations have {groups[0]} groups and "
            f"{here[0]} here. Set model.net.groups to {model.config.net.groups or 'null'}, as the model has it."
        )
    for setting in SHAPELESS:
        there, chosen = getattr(model.config.net, setting), getattr(tokenizer.config.net, setting)
        if there != chosen:
            raise UsageError(
                f"The model {name_or_path!r} does not fit this recipe: model.net.{setting} is {there!r} there and "
                f"{chosen!r} here. Set it to {there!r}."
            )
    for name in shapes:
        own[name].copy_(trained[name])
    for level, codebook in tokenizer.level_codebooks.items():
        if level in model.level_codebooks:
            assert isinstance(codebook, Codebook)
            codebook.keep_entries()


def initialize_discriminator(discriminator: PatchDiscriminator, name_or_path: str) -> None:
    """Copy the weights of the discriminator that a model folder keeps.

    Raises:
        UsageError: there is no such model, it has no discriminator, or the settings of that one differ.
        FileError: its file is damaged.
    """
    folder = find_model(name_or_path)
    tensors = read_discriminator(folder)
    own = {name: value.shape for name, value in discriminator.state_dict().items()}
    if own != {name: value.shape for name, value in tensors.items()}:
        settings = read_model_config(folder)[DISCRIMINATOR].get("settings")
        raise UsageError(
            f"The discriminator of {name_or_path!r} does not fit this recipe. Set train.adversarial.discriminator to "
            f"its settings: {settings}."
        )
    discriminator.load_state_dict(tensors)


def _norm_groups(tokenizer: Tokenizer) -> list[int]:
    return [module.num_groups for module in tokenizer.encoder.modules() if isinstance(module, torch.nn.GroupNorm)]


def group_parameters(name: str, module: nn.Module, factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """The optimizer's groups of a module: one for each part with a factor on its learning rate, and one for the rest.

    Args:
        name: `model`, whose parts `factors` names, or another module, which is one part.
        module: the module.
        factors: factors by part; the loop multiplies the learning rate of a group by its `factor`.
    """
    if name != "model":
        return [{"params": list(module.parameters()), "factor": factors.get(name, 1.0)}]
    parts = {part: list(module.get_submodule(part).parameters()) for part in factors if part != "discriminator"}
    taken = {id(parameter) for parameters in parts.values() for parameter in parameters}
    rest = [parameter for parameter in module.parameters() if id(parameter) not in taken]
    own = [{"params": parameters, "factor": factors[part]} for part, parameters in parts.items() if parameters]
    return [{"params": rest, "factor": 1.0}, *own]


def freeze(tokenizer: Tokenizer, parts: Sequence[str]) -> None:
    """Turn off the gradients of `parts`.

    Raises:
        UsageError: no parameter would be left to train.
    """
    for name in parts:
        tokenizer.get_submodule(name).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in tokenizer.parameters()):
        raise UsageError(f"train.freeze names {', '.join(parts)}, which leaves nothing to train; remove one of them.")


def check_gradient_paths(tokenizer: Tokenizer) -> None:
    """Refuse an alignment loss whose gradient reaches no parameter of the tokenizer.

    Raises:
        UsageError: it goes to the chosen entries, and no entry learns from gradients.
    """
    aligner = tokenizer.aligner
    if aligner is None or "codebook" not in aligner.gradient_targets:
        return
    for level in aligner.levels:
        if not any(parameter.requires_grad for parameter in tokenizer.codebooks[level].parameters()):
            raise UsageError(
                f"model.align.gradient is 'codebook', and the codebook {tokenizer.config.codebook.name!r} of the level "
                f"{LEVEL_NAMES[level]!r} is frozen or learns without gradients, so the alignment would train nothing; "
                "use 'encoder' or 'both'."
            )


def check_cached_levels(tokenizer: Tokenizer) -> None:
    """Refuse an aligner that reads more than the codes of the deep level, which alone are kept.

    Raises:
        UsageError: it reads a shallower level, whose projection is trained.
    """
    aligner = tokenizer.aligner
    upper = [LEVEL_NAMES[level] for level in aligner.levels if level != DEEP] if aligner is not None else []
    if upper:
        raise UsageError(
            f"train.cache_codes keeps the codes of the deep level, and model.align reads {' and '.join(upper)} too; "
            "set model.align.word and model.align.phrase to 0, or train.cache_codes to false."
        )


def set_train_mode(tokenizer: Tokenizer, parts: Sequence[str]) -> None:
    """Put all but `parts` into training mode.

    In evaluation mode frozen parts draw no random numbers and do not update their statistics.
    """
    tokenizer.train()
    for name in parts:
        tokenizer.get_submodule(name).eval()
