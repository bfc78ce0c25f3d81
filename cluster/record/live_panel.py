"""What a person sees of a run on a terminal: a panel that is redrawn in place."""

import atexit
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cluster.config import RunConfig
from cluster.record.reporter import EvalView, Part, PartClock, StepView
from cluster.record.terminal_text import (
    RECENT_STEPS,
    duration,
    eval_line,
    headline,
    printable,
    step_fields,
    summary_lines,
    time_left_s,
)
from cluster.types import RunSummary

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN_EVENTS = 6


class RichReporter:
    """A panel that is redrawn in place; warnings scroll past above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream, markup=False, highlight=False, emoji=False)
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)
        self._events: deque[str] = deque(maxlen=_SHOWN_EVENTS)
        self._headline, self._phase = "", "starting"
        self._run_dir: Path | None = None
        self._view: StepView | None = None
        self._started_s = time.monotonic()
        self._parts = PartClock()
        self._progress: tuple[str, float] | None = None
        # Last: it draws the panel at once. What comes before the first step takes its time too.
        self._live = Live(console=self._console, get_renderable=self._panel, refresh_per_second=4, transient=True)
        self._live.start()
        # An error before `finish`, such as a Ray that does not start, must not leave the cursor hidden.
        atexit.register(self._live.stop)

    def start(self, config: RunConfig, run_dir: Path) -> None:
        """Names the run in the panel."""
        self._headline, self._run_dir = headline(config), run_dir

    def phase(self, text: str, part: Part | None = None) -> None:
        """Shown at the foot of the panel."""
        if part is not None:
            self._parts.enter(part)
        self._phase, self._progress = printable(text), None

    def progress(self, text: str, done: float) -> None:
        """A bar, until the next phase."""
        self._progress = printable(text), done

    def step(self, view: StepView) -> None:
        """Draws the numbers of the step, and notes that it is done."""
        self._view = view
        self._recent.append(view.step_s)
        reward = "-" if view.reward is None else f"{view.reward:.3f}"
        self._note(f"step {view.step + 1} done in {view.step_s:.1f} s, reward {reward}")

    def evaluation(self, view: EvalView) -> None:
        """A line above the panel, which stays."""
        self._live.console.print(eval_line(view))

    def warn(self, text: str) -> None:
        """A yellow line above the panel, which stays."""
        self._live.console.print(f"warning: {printable(text)}", style="yellow")

    def close(self) -> None:
        """Gives the terminal back without a summary, for what never became a run."""
        self._live.stop()
        atexit.unregister(self._live.stop)

    def finish(self, summary: RunSummary) -> None:
        """The summary in place of the panel."""
        self.close()
        for line in summary_lines(summary, self._run_dir, self._parts.seconds()):
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
        fields = [] if self._view is None else step_fields(self._view)
        left = time_left_s(self._recent, total - done)
        elapsed = time.monotonic() - self._started_s
        for name, value in [*fields, ("elapsed", duration(elapsed)), ("left", duration(left))]:
            numbers.add_row(Text(name, style="dim"), Text(value, style="bold"))
        parts: list[Any] = [Text(self._headline), ProgressBar(total=total, completed=done), numbers]
        parts.append(Text(f"now: {self._phase}"))
        if self._progress is not None:
            text, share = self._progress
            parts.extend((Text(f"{text}: {share:.0%}"), ProgressBar(total=1.0, completed=share)))
        parts.extend(Text(event, style="dim") for event in self._events)
        title = "shoal" if self._view is None else f"shoal  step {done}/{total}"
        return Panel(Group(*parts), title=Text(title), subtitle=Text(str(self._run_dir or "")))
