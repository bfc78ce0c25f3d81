"""What a person sees of a run: a live panel on a terminal (`live_panel`), a line for each step anywhere else."""

import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from cluster.config import RunConfig
from cluster.record.live_panel import RichReporter
from cluster.record.reporter import EvalView, Part, PartClock, StepView
from cluster.record.terminal_text import (
    RECENT_STEPS,
    can_redraw,
    duration,
    eval_line,
    headline,
    printable,
    step_fields,
    summary_lines,
    time_left_s,
)
from cluster.types import RunSummary

PROGRESS_EVERY_S = 3.0
"""Between two lines on how far a long piece of work is."""


def make_reporter(stream: TextIO | None = None) -> "PlainReporter | RichReporter":
    """The live panel where `stream` (standard output) is a terminal that can show it, else plain lines."""
    out: TextIO = sys.stdout if stream is None else stream
    return RichReporter(out) if can_redraw(out) else PlainReporter(out)


class PlainReporter:
    """A line for each step. Warnings go to the same stream, so that a log file has them in order."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream: TextIO | _Nowhere = stream
        self._run_dir: Path | None = None
        self._clock = clock
        self._parts = PartClock(clock)
        self._progress_s = -PROGRESS_EVERY_S
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)

    def start(self, config: RunConfig, run_dir: Path) -> None:
        """Names the run, its folder and what it trains."""
        self._run_dir = run_dir
        self._write(f"run {run_dir}")
        self._write(headline(config))

    def phase(self, text: str, part: Part | None = None) -> None:
        """A line of its own."""
        if part is not None:
            self._parts.enter(part)
        self._write(text)

    def progress(self, text: str, done: float) -> None:
        """A line every few seconds."""
        if self._clock() - self._progress_s >= PROGRESS_EVERY_S:
            self._progress_s = self._clock()
            self._write(f"{text}: {done:.0%}")

    def step(self, view: StepView) -> None:
        """A line with the numbers of the step, and the time left."""
        self._recent.append(view.step_s)
        left = time_left_s(self._recent, view.num_steps - view.step - 1)
        fields = [f"{name} {value}" for name, value in step_fields(view) if value != "-"]
        self._write(f"step {view.step + 1}/{view.num_steps}  {'  '.join(fields)}  left {duration(left)}")

    def evaluation(self, view: EvalView) -> None:
        """A line with its accuracy."""
        self._write(eval_line(view))

    def warn(self, text: str) -> None:
        """A line that begins with "warning"."""
        self._write(f"warning: {printable(text)}")

    def close(self) -> None:
        """The end of what never became a run: nothing is drawn any more."""

    def finish(self, summary: RunSummary) -> None:
        """The summary, line by line."""
        for line in summary_lines(summary, self._run_dir, self._parts.seconds()):
            self._write(line)

    def _write(self, line: str) -> None:
        try:
            print(printable(line), file=self._stream, flush=True)
        except BrokenPipeError:  # the reader (`| head`) has gone; the run goes on, its files have everything
            self._stream = _Nowhere()


class _Nowhere:
    """A stream that takes everything, for when nobody reads any more."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...
