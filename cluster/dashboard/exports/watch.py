"""`shoal watch RUN`: a run that goes on elsewhere, live in the terminal; a line for each step where there is none."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cluster.dashboard.exports.watched_run import Look, WatchedRun, status_of
from cluster.dashboard.files.liveness import run_times
from cluster.dashboard.views.runs import find_runs, is_run
from cluster.record.terminal_text import can_redraw
from rollout.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

POLL_S = 1.0


def run_to_watch(path: Path) -> Path:
    """The run itself, or of a folder with runs a live one, else the one that was written last. Raises ConfigError."""
    if is_run(path):
        return path
    runs = list(find_runs([path]).values()) if path.is_dir() else []
    if not runs:
        raise ConfigError(
            f"{path} is no run and has none in it; give the folder that `shoal train` made, or its parent"
        )
    return max(runs, key=lambda run: (status_of(run) == "live", run_times(run)[1] or 0.0))


def watch(path: Path, out: TextIO, *, once: bool = False) -> Look:
    """Shows the run until it ends, and returns the last look. A run that has ended is shown once."""
    run = WatchedRun(path)
    return _watch_panel(run, out, once=once) if can_redraw(out) else _watch_lines(run, out, once=once)


def look_lines(look: Look) -> list[str]:
    """Everything of a look, as lines."""
    of = "" if look.num_steps is None else f"/{look.num_steps}"
    lines = [f"{look.name}: {look.status}, step {look.steps_done}{of}"]
    lines += [f"  {name:<14} {value}" for name, value in (*look.fields, *look.curves) if value != "-"]
    lines += [f"  {line}" for line in look.evaluations]
    lines += [f"  {name:<14} {what}" for name, what in look.actors]
    lines += [f"  {note}" for note in look.notes]
    return [*lines, f"  error: {look.error}"] if look.error else lines


def _watch_lines(run: WatchedRun, out: TextIO, *, once: bool) -> Look:
    look = run.look()
    for line in look_lines(look):
        print(line, file=out)
    while look.status == "live" and not once:
        out.flush()
        time.sleep(POLL_S)
        before, look = look, run.look()
        if look.steps_done > before.steps_done:
            fields = "  ".join(f"{name} {value}" for name, value in look.fields if value != "-")
            print(f"step {look.steps_done}{'' if look.num_steps is None else f'/{look.num_steps}'}  {fields}", file=out)
        for line in [*_new(look.evaluations, before.evaluations), *_new(look.notes, before.notes)]:
            print(line, file=out)
    if not once:
        print(f"{look.name}: {look.status}{f', {look.error}' if look.error else ''}", file=out)
    out.flush()
    return look


def _watch_panel(run: WatchedRun, out: TextIO, *, once: bool) -> Look:
    from rich.console import Console
    from rich.live import Live

    console = Console(file=out, markup=False, highlight=False, emoji=False)
    look = run.look()
    if once or look.status != "live":
        console.print(panel(look))
        return look
    with Live(panel(look), console=console, refresh_per_second=2) as live:
        while look.status == "live":
            time.sleep(POLL_S)
            look = run.look()
            live.update(panel(look))
    return look


def panel(look: Look) -> "RenderableType":
    """A look as it is drawn."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    numbers = Table.grid(padding=(0, 2))
    for name, value in (*look.fields, *look.curves):
        numbers.add_row(Text(name, style="dim"), Text(value, style="bold"))
    parts: list[Any] = [ProgressBar(total=look.num_steps or 1, completed=look.steps_done), numbers]
    parts += [Text(line) for line in look.evaluations]
    actors = Table.grid(padding=(0, 2))
    for name, what in look.actors:
        actors.add_row(Text(name, style="dim"), Text(what))
    parts += [actors] if look.actors else []
    parts += [Text(note, style="dim") for note in look.notes]
    parts += [Text(f"error: {look.error}", style="red")] if look.error else []
    of = "" if look.num_steps is None else f"/{look.num_steps}"
    return Panel(Group(*parts), title=Text(f"{look.name}  step {look.steps_done}{of}"), subtitle=Text(look.status))


def _new(now: tuple[str, ...], before: tuple[str, ...]) -> list[str]:
    return [line for line in now if line not in before]
