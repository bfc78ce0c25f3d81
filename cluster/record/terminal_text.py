"""The lines that a terminal shows of a run, and what it may show of other people's text.

Model text goes through `printable` before it is shown: completions may hold escape sequences that move the cursor,
or marks that turn the reading direction.
"""

import re
import statistics
import unicodedata
from collections import deque
from pathlib import Path

from cluster.config import RunConfig
from cluster.record.reporter import EvalView, StepView
from cluster.types import RunSummary

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # operating-system commands: titles, links
    r"|[\x1b\x9b]\[?[0-?]*[ -/]*[@-~]"  # colours and cursor movements
)
RECENT_STEPS = 5
"""Steps whose median duration predicts the time left: the first ones are slower (warm-up), lengths drift."""


def printable(text: str) -> str:
    """`text` without escape sequences, control characters, direction marks and lone surrogates; tabs and line breaks
    stay."""
    text = _ESCAPE_SEQUENCE.sub("", text)
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))


def time_left_s(recent_step_s: "deque[float]", steps_left: int) -> float | None:
    """Median of recent step durations times the steps to go; None before the first step."""
    return statistics.median(recent_step_s) * steps_left if recent_step_s else None


def headline(config: RunConfig) -> str:
    """What a run trains, on one line."""
    rollout = config.rollout
    mode = "synchronous" if config.max_policy_lag == 0 else f"sampling up to {config.max_policy_lag} versions ahead"
    return (
        f"{config.model.path} on {config.task.name or config.task.kind}: {config.steps} steps of "
        f"{rollout.prompts_per_step} prompts x {rollout.group_size} completions, {mode}"
    )


def step_fields(view: StepView) -> list[tuple[str, str]]:
    """Names and values of what is shown of a step; "-" is a value that it did not have."""
    lag = "-" if view.lag_mean is None else f"{view.lag_mean:.2f} (max {view.lag_max or 0:.0f})"
    fields = [
        ("reward", _number(view.reward, ".3f")),
        ("accuracy", _number(view.accuracy, ".1%")),
        ("version", str(view.policy_version)),
        ("lag", lag),
        ("sampler tok/s", _number(view.sampler_tokens_per_s, ",.0f")),
        ("learner tok/s", _number(view.learner_tokens_per_s, ",.0f")),
        ("step s", f"{view.step_s:.1f}"),
    ]
    return [*fields, ("skipped", "not finite")] if view.skipped else fields


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def eval_line(view: EvalView) -> str:
    """An evaluation, on one line."""
    return (
        f"evaluation after {view.step} steps: accuracy {_number(view.accuracy, '.1%')} "
        f"({view.num_prompts} questions x {view.num_samples} samples, {view.duration_s:.1f} s)"
    )


def summary_lines(summary: RunSummary, run_dir: Path | None) -> list[str]:
    """How a run ended, a few lines."""
    rejected = ", ".join(f"{number} {reason}" for reason, number in sorted(summary.groups_rejected.items())) or "none"
    lines = [
        f"{summary.status} after {summary.num_steps} steps in {duration(summary.wall_s)}",
        f"accuracy before {_number(summary.accuracy_before, '.1%')}, after {_number(summary.accuracy_after, '.1%')}",
        f"groups: {summary.groups_dispatched} dispatched, {summary.groups_trained} trained, rejected: {rejected}",
    ]
    if summary.unaccounted_groups():
        lines.append(f"warning: {summary.unaccounted_groups()} groups are unaccounted for")
    if summary.error:
        lines.append(f"error: {summary.error}")
    return [*lines, f"files in {run_dir}"] if run_dir is not None else lines


def duration(seconds: float | None) -> str:
    """As 2h05m, 3m20s or 40s."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
