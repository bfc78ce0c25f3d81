"""What the list of runs shows of a run that nobody has opened, besides its figures: the reward as a curve, and what the
doctor finds in its metrics. Of the rollouts, the events and the ledger, for which a run is opened, it knows nothing.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.dashboard.doctor.diagnose import SEVERITIES, diagnose
from cluster.dashboard.doctor.facts import Facts
from cluster.dashboard.figures.series import column, thin
from cluster.dashboard.figures.settings import flattened
from cluster.dashboard.figures.thresholds import facts_of
from cluster.dashboard.files.liveness import MARKS, run_status
from cluster.dashboard.files.metric_log import MetricLog
from cluster.dashboard.files.small_files import read_checkpoints
from cluster.dashboard.records import MetricTable
from cluster.dashboard.views.frame import RunFacts
from cluster.dashboard.views.runs import file_stamp, read_facts
from cluster.run_files import CHECKPOINTS, log_name

CURVE_POINTS = 40
MAX_LOG_BYTES = 8 << 20
"""Longer logs are read when the run is opened: reading this one takes a tenth of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """One run, seen from afar."""

    curve: Sequence[float | None]
    """Mean reward over the steps, in at most CURVE_POINTS."""
    doctor: Mapping[str, int] | None
    """Severity -> findings; None where the log is too long to be read for a list."""
    config: Mapping[str, Any]
    """Dotted key -> value."""


class Glances:
    """Those of all runs, each made again only when its files changed. Not for several threads at once."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[object, ...], Glance]] = {}

    def of(self, path: Path, *, until_s: float, facts: RunFacts | None = None) -> Glance | None:
        """None where it is not known and it is later than `until_s` (monotonic seconds) already. `facts`: what its
        small files say, where somebody has read them."""
        stamp = tuple(file_stamp(path / mark) for mark in (*MARKS, log_name("evaluations")))
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            if time.monotonic() > until_s:
                return None
            known = self._known[path] = (stamp, read_glance(path, facts))
        return known[1]


def read_glance(path: Path, facts: RunFacts | None = None) -> Glance:
    """From the small files of a run, whole or torn; of these are the `facts`, read here unless they are given."""
    facts = facts or read_facts(path)
    metrics, evaluations = (MetricLog(path / log_name(name)) for name in ("metrics", "evaluations"))
    config = flattened(facts.config or {})
    stamps = [file_stamp(path / log_name(name)) for name in ("metrics", "evaluations")]
    if sum(stamp[1] for stamp in stamps if stamp is not None) > MAX_LOG_BYTES:
        return Glance(curve=(), doctor=None, config=config)
    for log in (metrics, evaluations):
        log.refresh()
    table, held_out, summary = metrics.table(), evaluations.table(), facts.summary or {}
    checkpoints, _ = read_checkpoints(path / CHECKPOINTS)
    found = diagnose(
        Facts(
            table=table,
            limits=facts_of(facts.config, table),
            status=run_status(path, facts.summary),
            config=facts.config,
            held_out=column(held_out, "eval/pass_at_1"),
            evaluations=held_out,
            problems=(*metrics.problems(), *evaluations.problems()),
            error=str(summary.get("error", "")),
            error_type=str(summary.get("error_type", "")),
            saved_step=checkpoints[-1].step if checkpoints else None,
            evaluated_at=held_out.steps[-1] if held_out.steps else None,
            now_s=time.time(),
            written_s=facts.updated_s,
        )
    )
    return Glance(curve=reward_curve(table), doctor=counts(finding.severity for _, finding in found), config=config)


def reward_curve(table: MetricTable) -> list[float | None]:
    """The mean reward, in as many points as a curve of an inch can show."""
    cut = thin(table.steps, points=CURVE_POINTS, from_step=None, to_step=None)
    return [None if value is None else round(value, 4) for value in cut.mean(column(table, "reward/mean"))]


def counts(severities: Iterable[str]) -> dict[str, int]:
    """How many there are of each."""
    found = list(severities)
    return {severity: found.count(severity) for severity in SEVERITIES}


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all runs, sorted."""
    keys = sorted({key for config in configs for key in config})
    first = configs[0] if configs else {}
    return [key for key in keys if any(config.get(key) != first.get(key) for config in configs)]
