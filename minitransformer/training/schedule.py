"""§5.3: the learning rate as a function of the step, counted from 1."""

from __future__ import annotations

from minitransformer.config import TrainingConfig


def noam_schedule(step: int, d_model: int, warmup_steps: int = 4000) -> float:
    """Equation 3: lr = d_model^-0.5 · min(step^-0.5, step · warmup_steps^-1.5).

    Rises in a straight line for `warmup_steps` steps, then falls with the square root of the step.
    """
    return float(d_model**-0.5 * min(step**-0.5, step * warmup_steps**-1.5))


def linear_schedule(step: int, peak: float, warmup_steps: int, steps: int) -> float:
    """Not in the paper: a straight line up to `peak` at `warmup_steps`, then another down to 0 after `steps`."""
    return peak * min(step / warmup_steps, (steps + 1 - step) / (steps + 1 - warmup_steps))


def learning_rate(step: int, d_model: int, config: TrainingConfig) -> float:
    """The rate that `config` asks for at `step`."""
    if config.schedule == "linear":
        return linear_schedule(step, config.learning_rate or 0.0, config.warmup_steps, config.steps)
    lr = noam_schedule(step, d_model, config.warmup_steps)
    if config.learning_rate is not None:  # the paper's curve, scaled to another peak
        lr *= config.learning_rate / noam_schedule(config.warmup_steps, d_model, config.warmup_steps)
    return lr
