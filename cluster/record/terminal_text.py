"""The lines that a terminal shows of a run, and what it may show of other people's text.

Model text goes through `printable` before it is shown: completions may hold escape sequences that move the cursor,
or marks that turn the reading direction.
"""

import os
import re
import shlex
import shutil
import statistics
import sys
import unicodedata
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from cluster.config import RunConfig
from cluster.record.reporter import EvalView, Part, StepView
from cluster.types import RunSummary
from rollout.config import tasks_of

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # operating-system commands: titles, links
    r"|[\x1b\x9b]\[?[0-?]*[ -/]*[@-~]"  # colours and cursor movements
)
RECENT_STEPS = 5
"""Steps whose median duration predicts the time left: the first ones are slower (warm-up), lengths drift."""


def can_redraw(stream: TextIO) -> bool:
    """Whether a panel may be drawn there: a terminal that moves its cursor. In others (an editor's shell has
    `TERM=dumb`) a panel shows nothing until the end."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


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
    tasks = " and ".join(task.name or task.kind for task in tasks_of(config.task))
    return (
        f"{config.model.path} on {tasks}: {config.steps} steps of "
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


def summary_lines(summary: RunSummary, run_dir: Path | None, seconds: Mapping[Part, float] | None = None) -> list[str]:
    """How a run ended, a few lines. `seconds` is what each part of it took."""
    rejected = ", ".join(f"{number} {reason}" for reason, number in sorted(summary.groups_rejected.items())) or "none"
    ended = f"{summary.status} after {summary.num_steps} steps in {duration(summary.wall_s)}"
    if summary.status == "interrupted" and not summary.unaccounted_groups():
        return [ended]  # who stopped it is told how to go on, and wants no more
    lines = [
        ended,
        _learned(summary),
        f"groups: {summary.groups_dispatched} dispatched, {summary.groups_trained} trained, rejected: {rejected}",
    ]
    if summary.unaccounted_groups():
        lines.append(f"warning: {summary.unaccounted_groups()} groups are unaccounted for")
    took = ", ".join(f"{part} {duration(part_s)}" for part, part_s in (seconds or {}).items() if part_s >= 1.0)
    if took:
        lines.append(f"took: {took}")
    if summary.error:
        lines.append(f"error: {summary.error}")
    if run_dir is None:
        return lines
    lines.append(f"files in {run_dir}")
    return [*lines, *_what_next(summary, run_dir)] if summary.status == "finished" else lines


def _learned(summary: RunSummary) -> str:
    """What the run did to held-out accuracy, in a sentence."""
    before, after = summary.accuracy_before, summary.accuracy_after
    if before is None or after is None:
        return f"held-out accuracy before {_number(before, '.1%')}, after {_number(after, '.1%')}"
    if summary.num_steps == 0:
        return f"held-out accuracy {before:.1%}, and nothing was trained"
    points = (after - before) * 100
    moved = "did not move" if abs(points) < 0.05 else f"{'rose' if points > 0 else 'fell'} by {abs(points):.1f} points"
    return f"held-out accuracy {moved}: {before:.1%} before, {after:.1%} after"


def _what_next(summary: RunSummary, run_dir: Path) -> list[str]:
    """The commands that a person may want after a run, each with what it does."""
    # As it was called here: the Makefile's environment is not on anybody's PATH.
    called = Path(sys.argv[0])
    shoal = shlex.quote(str(called)) if called.name == "shoal" and shutil.which("shoal") is None else "shoal"
    place = shlex.quote(str(run_dir))
    commands = (
        (f"{shoal} dashboard {place}", "look at what was sampled, scored and trained"),
        (f"{shoal} train --resume {place} steps={2 * summary.num_steps}", "go on training"),
        (f"{shoal} export {place} {shlex.quote(f'{run_dir}-model')}", "write the model for transformers or vLLM"),
    )
    width = max(len(command) for command, _ in commands)
    return ["next:", *(f"  {command:<{width}}  {text}" for command, text in commands)]


def duration(seconds: float | None) -> str:
    """As 2h05m, 3m20s or 40s."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
