"""The check that a model's outputs can be measured."""

from torch import Tensor

from tavq.core.errors import TrainingError


def require_finite(values: Tensor, what: str) -> Tensor:
    """`values` as they are; TrainingError if one is NaN or infinite. `what` names them: "The model's vectors"."""
    if not bool(values.isfinite().all()):
        raise TrainingError(f"{what} are not finite, so nothing can be measured; use an earlier checkpoint.")
    return values
