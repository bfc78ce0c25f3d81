"""Learning rate over optimizer steps, as a pure function: there is no state that a resume could lose."""

import math

from learner.config import ScheduleConfig


def lr_at(optimizer_step: int, *, peak_lr: float, schedule: ScheduleConfig, total_steps: int) -> float:
    """Rate of optimizer step `optimizer_step` (0 is the first) of `total_steps`.

    Warm-up: step k of W warm-up steps has (k + 1) / W of `peak_lr`, so that the first step already moves the weights
    and step W - 1 reaches the peak. After it: constant, or down to `min_lr_ratio` of the peak, which the last step
    (`total_steps` - 1) has exactly; a step beyond the last keeps it.
    """
    if optimizer_step < schedule.warmup_steps:
        return peak_lr * (optimizer_step + 1) / schedule.warmup_steps
    if schedule.kind == "constant":
        return peak_lr
    # From the last warm-up step (or step 0) at the peak to the last step at the floor.
    start = max(schedule.warmup_steps - 1, 0)
    progress = min((optimizer_step - start) / max(total_steps - 1 - start, 1), 1.0)
    if schedule.kind == "linear":
        remaining = 1.0 - progress
    else:
        remaining = 0.5 * (1.0 + math.cos(math.pi * progress))
    return peak_lr * (schedule.min_lr_ratio + (1.0 - schedule.min_lr_ratio) * remaining)
