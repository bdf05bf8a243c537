"""§5.3: the learning rate as a function of the step, counted from 1."""

from __future__ import annotations

import math

from minitransformer.config import TrainingConfig
from minitransformer.validation.settings import INT64, as_integer


def noam_schedule(step: int, d_model: int, warmup_steps: int = 4000) -> float:
    """Equation 3: lr = d_model^-0.5 · min(step^-0.5, step · warmup_steps^-1.5).

    Rises linearly for `warmup_steps` steps (learning-rate warm-up), then falls with the inverse square root of the
    step. Raises InputError for a step before the first.
    """
    step = as_integer("step", step, 1, INT64, "1 or more, since steps count from 1")
    d_model = as_integer("d_model", d_model, 1, INT64, "an integer, 1 or more")
    warmup_steps = as_integer("warmup_steps", warmup_steps, 1, INT64, "an integer, 1 or more")
    return float(d_model**-0.5 * min(step**-0.5, step * warmup_steps**-1.5))


def cosine_schedule(step: int, peak: float, warmup_steps: int, steps: int, last: float = 0.0) -> float:
    """Not in the paper: linear warm-up to `peak` at `warmup_steps`, then half a cosine down towards `last`.

    lr = last + (peak - last) · (1 + cos(π · t)) / 2 with t the share of the steps after warm-up that are done
    (Loshchilov and Hutter 2017). It suits runs of known length: the last steps are small enough for the weights to
    settle. After the last step the rate stays at `last`. Raises InputError for a step before the first, and for fewer
    steps than those of warm-up.
    """
    step = as_integer("step", step, 1, INT64, "1 or more, since steps count from 1")
    warmup_steps = as_integer("warmup_steps", warmup_steps, 0, INT64, "an integer, 0 or more")
    steps = as_integer("steps", steps, warmup_steps, INT64, f"warmup_steps={warmup_steps} or more")
    if step <= warmup_steps:
        return peak * step / warmup_steps
    done = min((step - warmup_steps) / (steps + 1 - warmup_steps), 1)
    return last + (peak - last) * (1 + math.cos(math.pi * done)) / 2


def learning_rate(step: int, d_model: int, config: TrainingConfig) -> float:
    """The learning rate at `step`, by the schedule of `config`."""
    if config.schedule == "cosine":
        assert config.learning_rate is not None  # TrainingConfig checks it
        last = config.last_learning_rate
        return cosine_schedule(step, config.learning_rate, config.warmup_steps, config.steps, last)
    lr = noam_schedule(step, d_model, config.warmup_steps)
    if config.learning_rate is not None:  # the paper's curve, scaled to another peak
        lr *= config.learning_rate / noam_schedule(config.warmup_steps, d_model, config.warmup_steps)
    return lr
