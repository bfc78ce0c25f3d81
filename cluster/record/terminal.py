"""What a person sees of a run: a live panel on a terminal, a line for each step anywhere else.

Model text goes through `printable` before it is shown: completions may hold escape sequences that move the cursor,
or marks that turn the reading direction.
"""

import atexit
import re
import statistics
import sys
import time
import unicodedata
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from cluster.config import RunConfig
from cluster.types import RunSummary

if TYPE_CHECKING:
    from rich.console import RenderableType

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # operating-system commands: titles, links
    r"|[\x1b\x9b]\[?[0-?]*[ -/]*[@-~]"  # colours and cursor movements
)
_RECENT_STEPS = 5
"""Steps whose median duration predicts the time left: the first ones are slower (warm-up), lengths drift."""
_SHOWN_EVENTS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """A finished training step. None is a value that the step did not have."""

    step: int
    """From 0."""
    num_steps: int
    policy_version: int
    reward: float | None
    """Mean over scored completions."""
    accuracy: float | None
    lag_mean: float | None
    lag_max: float | None
    sampler_tokens_per_s: float | None
    learner_tokens_per_s: float | None
    step_s: float
    skipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalView:
    """A finished evaluation."""

    step: int
    """Training steps before it."""
    accuracy: float | None
    """pass@1; None when nothing could be scored."""
    num_prompts: int
    num_samples: int
    duration_s: float


class Reporter(Protocol):
    """Where the controller says what happens. Methods return at once and do not raise for a closed terminal."""

    def start(self, config: RunConfig, run_dir: Path) -> None: ...

    def phase(self, text: str) -> None:
        """What is being waited for, such as "starting 3 actors"."""

    def step(self, view: StepView) -> None: ...

    def evaluation(self, view: EvalView) -> None: ...

    def warn(self, text: str) -> None: ...

    def finish(self, summary: RunSummary) -> None:
        """The end, good or bad; the last call."""


def make_reporter(stream: TextIO | None = None) -> "PlainReporter | RichReporter":
    """The live panel where `stream` (standard output) is a terminal, else plain lines."""
    stream = stream if stream is not None else sys.stdout
    return RichReporter(stream) if stream.isatty() else PlainReporter(stream)


def step_view(step: int, num_steps: int, metrics: Mapping[str, float]) -> StepView:
    """The view of a step from its metrics (`cluster.record.metrics`)."""
    return StepView(
        step=step,
        num_steps=num_steps,
        policy_version=int(metrics["train/policy_version"]),
        reward=metrics.get("reward/mean"),
        accuracy=metrics.get("reward/accuracy"),
        lag_mean=metrics.get("lag/mean"),
        lag_max=metrics.get("lag/max"),
        sampler_tokens_per_s=metrics.get("rollout/tokens_per_s"),
        learner_tokens_per_s=metrics.get("train/tokens_per_s"),
        step_s=metrics["time/step_s"],
        skipped=metrics.get("train/skipped", 0.0) > 0,
    )


def printable(text: str) -> str:
    """`text` without escape sequences, control characters, direction marks and lone surrogates; tabs and line breaks
    stay."""
    text = _ESCAPE_SEQUENCE.sub("", text)
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))


def time_left_s(recent_step_s: "deque[float]", steps_left: int) -> float | None:
    """Median of recent step durations times the steps to go; None before the first step."""
    return statistics.median(recent_step_s) * steps_left if recent_step_s else None


class PlainReporter:
    """A line for each step. Warnings go to the same stream, so that a log file has them in order."""

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | _Nowhere = stream
        self._run_dir: Path | None = None
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)

    def start(self, config: RunConfig, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._write(f"run {run_dir}")
        self._write(_headline(config))

    def phase(self, text: str) -> None:
        self._write(text)

    def step(self, view: StepView) -> None:
        self._recent.append(view.step_s)
        left = time_left_s(self._recent, view.num_steps - view.step - 1)
        fields = [f"{name} {value}" for name, value in _step_fields(view) if value != "-"]
        self._write(f"step {view.step + 1}/{view.num_steps}  {'  '.join(fields)}  left {_duration(left)}")

    def evaluation(self, view: EvalView) -> None:
        self._write(_eval_line(view))

    def warn(self, text: str) -> None:
        self._write(f"warning: {printable(text)}")

    def close(self) -> None:
        """The end of what never became a run: nothing is drawn any more."""

    def finish(self, summary: RunSummary) -> None:
        for line in _summary_lines(summary, self._run_dir):
            self._write(line)

    def _write(self, line: str) -> None:
        try:
            print(printable(line), file=self._stream, flush=True)
        except BrokenPipeError:  # the reader (`| head`) has gone; the run goes on, its files have everything
            self._stream = _Nowhere()


class RichReporter:
    """A panel that is redrawn in place; warnings scroll past above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream, markup=False, highlight=False, emoji=False)
        self._recent: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._events: deque[str] = deque(maxlen=_SHOWN_EVENTS)
        self._headline, self._phase = "", "starting"
        self._run_dir: Path | None = None
        self._view: StepView | None = None
        self._started_s = time.monotonic()
        # Last: it draws the panel at once.
        self._live = Live(console=self._console, get_renderable=self._panel, refresh_per_second=4, transient=True)

    def start(self, config: RunConfig, run_dir: Path) -> None:
        self._headline, self._run_dir = _headline(config), run_dir
        self._live.start()
        # An error before `finish`, such as a Ray that does not start, must not leave the cursor hidden.
        atexit.register(self._live.stop)

    def phase(self, text: str) -> None:
        self._phase = printable(text)

    def step(self, view: StepView) -> None:
        self._view = view
        self._recent.append(view.step_s)
        reward = "-" if view.reward is None else f"{view.reward:.3f}"
        self._note(f"step {view.step + 1} done in {view.step_s:.1f} s, reward {reward}")

    def evaluation(self, view: EvalView) -> None:
        self._live.console.print(_eval_line(view))

    def warn(self, text: str) -> None:
        self._live.console.print(f"warning: {printable(text)}", style="yellow")

    def close(self) -> None:
        """Gives the terminal back without a summary, for what never became a run."""
        self._live.stop()
        atexit.unregister(self._live.stop)

    def finish(self, summary: RunSummary) -> None:
        self.close()
        for line in _summary_lines(summary, self._run_dir):
            self._console.print(printable(line), soft_wrap=True)

    def _note(self, text: str) -> None:
        self._events.append(f"{time.strftime('%H:%M:%S')}  {printable(text)}")

    def _panel(self) -> "RenderableType":
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        numbers = Table.grid(padding=(0, 2))
        done, total = (0, 1) if self._view is None else (self._view.step + 1, self._view.num_steps)
        fields = [] if self._view is None else _step_fields(self._view)
        left = time_left_s(self._recent, total - done)
        elapsed = time.monotonic() - self._started_s
        for name, value in [*fields, ("elapsed", _duration(elapsed)), ("left", _duration(left))]:
            numbers.add_row(Text(name, style="dim"), Text(value, style="bold"))
        parts: list[Any] = [Text(self._headline), ProgressBar(total=total, completed=done), numbers]
        parts.append(Text(f"now: {self._phase}"))
        parts.extend(Text(event, style="dim") for event in self._events)
        title = "shoal" if self._view is None else f"shoal  step {done}/{total}"
        return Panel(Group(*parts), title=Text(title), subtitle=Text(str(self._run_dir or "")))


class _Nowhere:
    """A stream that takes everything, for when nobody reads any more."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...


def _headline(config: RunConfig) -> str:
    rollout = config.rollout
    mode = "synchronous" if config.max_policy_lag == 0 else f"sampling up to {config.max_policy_lag} versions ahead"
    return (
        f"{config.model.path} on {config.task.name or config.task.kind}: {config.steps} steps of "
        f"{rollout.prompts_per_step} prompts x {rollout.group_size} completions, {mode}"
    )


def _step_fields(view: StepView) -> list[tuple[str, str]]:
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


def _eval_line(view: EvalView) -> str:
    return (
        f"evaluation after {view.step} steps: accuracy {_number(view.accuracy, '.1%')} "
        f"({view.num_prompts} questions x {view.num_samples} samples, {view.duration_s:.1f} s)"
    )


def _summary_lines(summary: RunSummary, run_dir: Path | None) -> list[str]:
    rejected = ", ".join(f"{number} {reason}" for reason, number in sorted(summary.groups_rejected.items())) or "none"
    lines = [
        f"{summary.status} after {summary.num_steps} steps in {_duration(summary.wall_s)}",
        f"accuracy before {_number(summary.accuracy_before, '.1%')}, after {_number(summary.accuracy_after, '.1%')}",
        f"groups: {summary.groups_dispatched} dispatched, {summary.groups_trained} trained, rejected: {rejected}",
    ]
    if summary.unaccounted_groups():
        lines.append(f"warning: {summary.unaccounted_groups()} groups are unaccounted for")
    if summary.error:
        lines.append(f"error: {summary.error}")
    return [*lines, f"files in {run_dir}"] if run_dir is not None else lines


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
