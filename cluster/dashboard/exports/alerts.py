"""What somebody who is not looking should be told of a run: what the doctor found, that it stalls, that it ended."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.config import AlertConfig, AlertKind
from cluster.configuration.redact import redact_text
from cluster.dashboard.doctor.diagnose import SEVERITIES, doctor_page
from cluster.dashboard.records import Span
from cluster.dashboard.views.runs import is_run
from cluster.record.terminal_text import duration, printable
from cluster.run_files import SUMMARY
from cluster.types import Instant

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

POLL_S, UNBORN_POLL_S = 15.0, 1.0
"""Between two looks. A look reads what is new and runs the doctor's rules; the second while there is no run yet."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One message."""

    kind: AlertKind
    run: str
    """Name of its folder."""
    text: str
    """One or two sentences, without secrets and control characters."""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What a program may go by: of a finding `rule`, `severity`, `since_step`; of an end `status`, `num_steps`."""


class AlertWatch:
    """Remembers what was told, so that nothing is told twice."""

    def __init__(self, name: str, config: AlertConfig) -> None:
        self._name = name
        self._config = config
        self._known: dict[str, str] = {}
        self._last_stall_s = -math.inf
        """Not how many there were: a run that goes on from a checkpoint has taken back what came after it."""
        self._summary: tuple[int, int] | None = None

    def begin(self, store: "RunStore") -> None:
        """Takes what is there already for told: a run that goes on has told it before, and `shoal doctor` says it."""
        self._known = {rule: finding["severity"] for rule, finding in self._findings(store).items()}
        self._last_stall_s = max((stall.start_s for stall in _stalls(store)), default=-math.inf)
        self._summary = _summary_stamp(store)

    def look(self, store: "RunStore", *, is_over: bool, error: str | None = None) -> list[Alert]:
        """What is new. `is_over`: nobody writes the run any more, which is told too; `error`: what ended it."""
        stalls = [stall for stall in _stalls(store) if stall.start_s > self._last_stall_s]
        new = [self._stalled(stall.extra) for stall in stalls]
        self._last_stall_s = max((stall.start_s for stall in stalls), default=self._last_stall_s)
        for rule, finding in self._findings(store).items():
            if _is_worse(finding["severity"], self._known.get(rule)):
                self._known[rule] = finding["severity"]
                new.append(self._found(finding))
        if is_over:
            new.append(self._ended(store) if error is None else self._failed(store, error))
        return [alert for alert in new if alert.kind in self._config.on]

    def never_began(self, error: str) -> list[Alert]:
        """Of a run that ended before it had any file."""
        facts = {"status": "failed", "num_steps": 0}
        alert = self._alert("end", f"failed before its first step: {error}", facts)
        return [alert] if alert.kind in self._config.on else []

    def _findings(self, store: "RunStore") -> dict[str, Any]:
        """Rule -> what it found, of those that are severe enough."""
        least = SEVERITIES.index(self._config.severity)
        found = doctor_page(store)["findings"]
        return {one["rule"]: one for one in found if SEVERITIES.index(one["severity"]) <= least}

    def _found(self, finding: Mapping[str, Any]) -> Alert:
        since = "" if finding["since_step"] is None else f", since step {finding['since_step']}"
        text = f"{finding['severity']}: {finding['title']}{since}. {finding['evidence']}"
        return self._alert("finding", text, {name: finding[name] for name in ("rule", "severity", "since_step")})

    def _stalled(self, extra: Mapping[str, Any]) -> Alert:
        return self._alert("stall", f"stalled: {extra.get('text', '')}", {"idle_s": extra.get("idle_s")})

    def _ended(self, store: "RunStore") -> Alert:
        status, summary, num_steps = store.status(), store.summary() or {}, len(store.metrics().steps)
        text = f"{status} after {num_steps} steps"
        if (wall_s := summary.get("wall_s")) is not None:
            text += f" in {duration(wall_s)}"
        accuracies = [summary.get(f"accuracy_{when}") for when in ("before", "after")]
        if None not in accuracies:
            text += f", accuracy before {accuracies[0]:.1%}, after {accuracies[1]:.1%}"
        if summary.get("error"):
            text += f"; error: {summary['error']}"
        if status == "stopped":
            text += "; its process is gone without a summary"
        return self._alert("end", text, {"status": status, "num_steps": num_steps})

    def _failed(self, store: "RunStore", error: str) -> Alert:
        """As the run says it; as the command says it where the run has no summary of this time: it failed before it had
        anything to add, and what is there tells of the time before."""
        if _summary_stamp(store) not in (None, self._summary):
            return self._ended(store)
        num_steps = len(store.metrics().steps)
        text = f"could not go on after {num_steps} steps: {error}"
        return self._alert("end", text, {"status": "failed", "num_steps": num_steps})

    def _alert(self, kind: AlertKind, text: str, facts: Mapping[str, Any]) -> Alert:
        whole = " ".join(printable(redact_text(f"{self._name}: {text}")).split())
        return Alert(kind=kind, run=self._name, text=whole, facts=facts)


def follow(
    run: Path,
    config: AlertConfig,
    *,
    wait: Callable[[float], bool],
    send: Callable[[Alert], None],
    errors: Sequence[str] = (),
) -> AlertWatch:
    """Looks at the run every POLL_S, until `wait`, which waits for so long, says that the run is over; then once more.
    The run need not be there yet. `errors`: what ended the command, once it is known."""
    from cluster.dashboard.index.store import RunStore

    watch = AlertWatch(run.absolute().name, config)
    store = RunStore(run) if is_run(run) else None
    try:
        if store is not None:
            store.refresh()
            watch.begin(store)
        is_over = False
        while not is_over:
            is_over = wait(POLL_S if store is not None else UNBORN_POLL_S)
            if store is None and is_run(run):
                store = RunStore(run)
            if store is not None and run.is_dir():
                store.refresh()
                for alert in watch.look(store, is_over=is_over, error=next(iter(errors), None)):
                    send(alert)
    finally:
        if store is not None:
            store.close()
    return watch


def _is_worse(severity: str, known: str | None) -> bool:
    return known is None or SEVERITIES.index(severity) < SEVERITIES.index(known)


def _summary_stamp(store: "RunStore") -> tuple[int, int] | None:
    """Another where the summary is another; None for none."""
    try:
        status = (store.path / SUMMARY).lstat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _stalls(store: "RunStore") -> list[Span]:
    return [instant for instant in store.instants() if instant.extra.get("name") == Instant.STALL]
