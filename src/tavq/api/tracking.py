"""Log the evaluation of a trained run where its training was logged."""

from collections.abc import Iterable
from pathlib import Path

from tavq.api.calls import TrainingProgress
from tavq.core.errors import UsageError
from tavq.metrics.record import Evaluation
from tavq.model_folder import read_config
from tavq.training.tracking import tracking


def track_evaluation(run: Path, result: Evaluation, log_to: Iterable[str]) -> None:
    """Log the metrics of an evaluation as `evaluation/NAME` of the run's last step.

    Args:
        run: the run folder.
        result: its evaluation.
        log_to: names of trackers; what goes wrong there is logged and ends nothing.
    """
    step = read_config(run / "model").get("step", 0)
    values = {f"evaluation/{metric.key}": metric.value for metric in result.metrics if metric.value is not None}
    with tracking(TrainingProgress(None, lambda line: ""), log_to) as reporter:
        reporter.open(run, {}, step)
        reporter.evaluate(step, values)


def require_run(model: object, run: Path, log_to: Iterable[str]) -> None:
    """Raise UsageError where an evaluation is to be logged and there is no run folder to log it to."""
    if tuple(log_to) and not (run / "recipe.yaml").is_file():
        raise UsageError(f"{model} is not a run folder, whose curve --log-to would continue; leave --log-to out.")
