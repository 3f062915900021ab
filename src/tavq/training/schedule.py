"""The learning rate of each step, and what changes when a run is resumed with other steps."""

import math
from typing import Any

from tavq.recipes.schema import LoopConfig

CHANGES = "schedule_changes"
"""Key in provenance.json and config.json: the resumes after which the learning rate followed another schedule."""


def learning_rate(config: LoopConfig, step: int) -> float:
    """The learning rate of a step (counted from 0)."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.decay == "none":
        return config.learning_rate
    progress = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


def find_schedule_change(before: LoopConfig, now: LoopConfig, step: int) -> dict[str, Any] | None:
    """What to record where the steps that are done followed another schedule than the settings say now.

    Args:
        before: the settings so far.
        now: those of the resumed run, which differ in `steps` at most.
        step: steps done.

    Returns:
        The step, the steps before and now; None where the schedule does not depend on the steps, or did not yet.
    """
    shared = now.warmup + 1  # the decay starts at its peak, whatever the steps
    if before.steps == now.steps or now.decay == "none" or step <= shared:
        return None
    return {"step": step, "steps_before": before.steps, "steps": now.steps}


def describe_schedule_change(before: LoopConfig, now: LoopConfig, step: int) -> str:
    """Say what `find_schedule_change` found."""
    old, new = learning_rate(before, step), learning_rate(now, step)
    return (
        f"train.steps was {before.steps:,} and is {now.steps:,} now, and the learning rate decays over all of them "
        f"({now.decay}): from step {step:,} on it follows the new schedule, at {new:.3g} instead of {old:.3g}. The "
        f"result is another one than of {now.steps:,} steps without a break, and says so in its config.json."
    )
