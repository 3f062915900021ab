"""`--log-to`, for commands that train and evaluate."""

from typing import Annotated, Literal

from cyclopts import Parameter

LogTo = Annotated[
    tuple[Literal["tensorboard", "wandb"], ...],
    Parameter(negative=(), help="Also log to RUN/tensorboard or to Weights & Biases; may be given twice."),
]
