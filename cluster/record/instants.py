"""What happened to the run as a whole, as instants of events.jsonl."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from cluster.configuration.redact import redact_text
from cluster.record.append_log import RunWriteError
from cluster.record.reporter import Reporter
from cluster.record.run_directory import RunDirectory
from cluster.run_files import checkpoint_step
from cluster.types import Event, EventKind, Instant, now_s


def run_instant(name: Instant, text: str, *, step: int | None = None, facts: Mapping[str, Any] | None = None) -> Event:
    """Something that happens now. `facts` are what `Instant` says that `extra` has besides the text."""
    at_s = now_s()
    extra = {"name": name, "text": redact_text(text), **(facts or {})}
    return Event(kind=EventKind.INSTANT, actor="controller", start_s=at_s, end_s=at_s, step=step, extra=extra)


def checkpoint_instant(name: Instant, checkpoint: str, reason: str) -> Event:
    """A checkpoint that is not there to go on from: which, and why."""
    facts = {"checkpoint": checkpoint, "checkpoint_step": checkpoint_step(checkpoint), "reason": redact_text(reason)}
    return run_instant(name, f"{checkpoint}: {reason}", facts=facts)


def append_if_possible(run: RunDirectory, event: Event) -> None:
    """An event that tells of a fault: a disk that cannot take it is told to the person, by whoever writes next."""
    with suppress(RunWriteError):
        run.append_event(event)


def warner(run: RunDirectory, reporter: Reporter) -> Callable[[str], None]:
    """Tells a warning to the person and to the record."""

    def warn(text: str) -> None:
        reporter.warn(text)
        append_if_possible(run, run_instant(Instant.WARNING, text))

    return warn
