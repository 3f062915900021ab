"""Training that goes on from a trained model, with some of its parts held as they are."""

from collections.abc import Sequence

import torch

from tavq.core.errors import UsageError
from tavq.tokenizer import Tokenizer


@torch.no_grad()
def initialize_from(tokenizer: Tokenizer, name_or_path: str) -> None:
    """Gives `tokenizer` the weights of a trained model; an aligner that the model lacks keeps its own.

    Raises:
        UsageError: there is no such model, or its network, codebook or quantizer is another.
    """
    model = Tokenizer.from_pretrained(name_or_path)
    trained, kept_as_table = model.state_dict(), model.config.codebook.name == "fixed" and tokenizer.codebook.generated
    own = tokenizer.state_dict()
    needed = {name for name in own if name.split(".")[0] not in ("aligner", "hierarchy")}
    shapes = {name: value.shape for name, value in own.items() if name in needed or name in trained}
    wrong = sorted(name for name in shapes if name not in trained or trained[name].shape != shapes[name])
    if wrong:
        found = list(trained[wrong[0]].shape) if wrong[0] in trained else "nothing"
        table = " (a computed codebook is kept as its table: set model.codebook to fixed)" if kept_as_table else ""
        raise UsageError(
            f"The model {name_or_path!r} does not fit this recipe: {wrong[0]!r} is {found} there and "
            f"{list(shapes[wrong[0]])} here. Use the recipe it was trained with{table}, or leave out train.start_from."
        )
    for name in shapes:
        own[name].copy_(trained[name])


def freeze(tokenizer: Tokenizer, parts: Sequence[str]) -> None:
    """Lets no gradient reach `parts`.

    Raises:
        UsageError: nothing is left to train.
    """
    for name in parts:
        tokenizer.get_submodule(name).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in tokenizer.parameters()):
        raise UsageError(f"train.freeze holds {', '.join(parts)}, which leaves nothing to train; free one of them.")


def train_mode(tokenizer: Tokenizer, parts: Sequence[str]) -> None:
    """Training mode for all but `parts`: in evaluation mode nothing is drawn and no statistic moves."""
    tokenizer.train()
    for name in parts:
        tokenizer.get_submodule(name).eval()
