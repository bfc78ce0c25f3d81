"""What the doctor's rules look at, gathered from a run once, and what a rule answers."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from cluster.dashboard.figures.derived import metric
from cluster.dashboard.figures.samplers import rates
from cluster.dashboard.figures.series import Values, column, thin
from cluster.dashboard.figures.settings import Setting, setting, written
from cluster.dashboard.figures.thresholds import RunFacts, facts_of
from cluster.dashboard.files.liveness import run_times
from cluster.dashboard.records import MetricTable, Problem, RolloutRow, RunStatus, Span
from cluster.dashboard.views.fault_records import given_up
from reward.types import RewardOutcome

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

Severity = Literal["error", "warning", "info"]
Keep = Literal["greatest", "least", "mean"]
LAST_STEPS_READ, EARLIER_STEPS_READ = 10, 30
"""Whose rollouts are looked at: the last ones, and as many before them, evenly spread. More would tell little more, and
a run has thousands."""
MAX_POINTS = 400
"""Of a chart: as wide as a card is."""
REPEATING = 0.5
"""A completion repeats itself when this share of its 4-grams occurred before in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The evidence as a line over steps."""

    title: str
    step: Sequence[int]
    values: Values
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A page that shows it: page, parts of its path and parameters, as the page's addresses have them."""

    label: str
    page: str
    parts: tuple[str | int, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem: what, since when, why it is believed, what may cause it, what to try."""

    severity: Severity
    title: str
    evidence: str
    """One sentence with numbers."""
    since_step: int | None = None
    causes: tuple[str, ...] = ()
    """The likeliest first."""
    attempts: tuple[str, ...] = ()
    """What to try, the cheapest first; `key` is a key of the configuration."""
    chart: Chart | None = None
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """The same answer to the same question, judged right in one completion and wrong in another."""

    group_id: str
    answer: str
    num_right: int
    num_wrong: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDigest:
    """What the rules need of the rollouts of one training step."""

    step: int
    num_groups: int
    gaps: Mapping[str, float]
    """Sampler -> mean k3 of its completions."""
    lags: Mapping[str, int]
    """Sampler -> largest lag of its completions."""
    repeating: float
    """Share of the completions that repeat themselves."""
    conflicts: tuple[Conflict, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that the rules look at. Anything may be missing: they then have nothing to say."""

    table: MetricTable
    limits: RunFacts
    status: RunStatus = "finished"
    config: Mapping[str, Any] | None = None
    digests: tuple[StepDigest, ...] = ()
    """In order of steps; not of every step."""
    paces: Mapping[str, Values] = field(default_factory=dict)
    """Sampler -> [N] tokens per second while it sampled."""
    held_out: Values = ()
    """Pass@1 of each evaluation, in order."""
    evaluations: MetricTable = field(default_factory=lambda: MetricTable(steps=(), columns={}))
    rewards_failed_with: str = ""
    """What a failed reward said last."""
    anomalies: Mapping[str, int] = field(default_factory=dict)
    """What the ledger's journal and the rollouts contradict each other in -> how many groups."""
    instants: tuple[Span, ...] = ()
    """What happened to the run and its actors, in order."""
    problems: tuple[Problem, ...] = ()
    error: str = ""
    """What ended a failed run."""
    error_type: str = ""
    """Class of that error; "" where it is not on record."""
    num_late: int = 0
    """Answers of the journal that were refused."""
    num_dispatched: int = 0
    """Groups of the journal."""
    num_retried: int = 0
    """Groups whose lease was given up."""
    retried_for: str = ""
    """Why it was, of the newest of them."""
    saved_step: int | None = None
    """Training steps in the newest checkpoint; None where there is none."""
    evaluated_at: int | None = None
    """Training steps before the last evaluation."""
    now_s: float = 0.0
    """Unix time."""
    written_s: float | None = None
    """Unix time at which one of its files was last written."""

    @property
    def steps(self) -> Sequence[int]:
        """Training steps on record."""
        return self.table.steps

    def values(self, name: str) -> Values:
        """[N] a recorded or derived metric."""
        return metric(self.table, self.limits, name)

    def chart(self, title: str, name: str, threshold: float | None = None, keep: Keep = "greatest") -> Chart:
        """A recorded or derived metric as a chart; see `chart_of`."""
        return self.chart_of(title, self.values(name), threshold, keep)

    def chart_of(self, title: str, values: Values, threshold: float | None = None, keep: Keep = "greatest") -> Chart:
        """[N] values as a chart. Of many steps each point is the greatest of those that it stands for, or the least:
        a mean would hide the spike, or the fall, that the finding is about. It is right for what is a trend."""
        points = thin(self.steps, points=MAX_POINTS, from_step=None, to_step=None)
        shown = {"greatest": points.greatest, "least": points.least, "mean": points.mean}[keep](values)
        return Chart(title=title, step=points.first(self.steps), values=shown, threshold=threshold)

    def setting(self, key: str, kind: type[Setting]) -> Setting:
        """A value of the configuration; its default where an older run has none."""
        return setting(self.config, key, kind)

    def written(self, key: str, kind: type[Setting]) -> Setting | None:
        """A value of the configuration; None where it is not known."""
        return written(self.config, key, kind)


def gather(store: "RunStore") -> Facts:
    """The facts of a run as it is now."""
    config, table = store.config(), store.metrics()
    limits = facts_of(config, table)
    return Facts(
        table=table,
        limits=limits,
        status=store.status(),
        config=config,
        digests=tuple(_digests(store)),
        paces=rates(store.actor_stats(), table.steps),
        held_out=column(store.evaluations(), "eval/pass_at_1"),
        evaluations=store.evaluations(),
        rewards_failed_with=_last_failure(store, metric(table, limits, "reward/failed_share")),
        anomalies={name: count for name, count in store.ledger_anomalies().items() if count},
        instants=tuple(store.instants()),
        problems=store.problems(),
        error=str((store.summary() or {}).get("error", "")),
        error_type=str((store.summary() or {}).get("error_type", "")),
        **_of_faults(store),
    )


def _of_faults(store: "RunStore") -> dict[str, Any]:
    events, checkpoints, evaluated = store.ledger_events(), store.checkpoints(), store.evaluations().steps
    newest = [given_up(store.ledger_history(group_id)) for group_id in events.retried_groups[:1]]
    return {
        "num_late": events.num_late,
        "num_dispatched": sum(store.ledger_counts().values()),
        "num_retried": events.num_retried,
        "retried_for": next((str(lines[-1].get("reason", "")) for lines in newest if lines), ""),
        "saved_step": checkpoints[-1].step if checkpoints else None,
        "evaluated_at": evaluated[-1] if evaluated else None,
        "now_s": time.time(),
        "written_s": run_times(store.path)[1],
    }


def digest(step: int, rows: Sequence[RolloutRow]) -> StepDigest:
    """Of the rollouts of a step."""
    gaps: dict[str, list[float]] = {}
    lags: dict[str, int] = {}
    for row in rows:
        if row.k3 is not None:
            gaps.setdefault(row.worker, []).append(row.k3)
        if row.lag is not None:
            lags[row.worker] = max(row.lag, lags.get(row.worker, 0))
    return StepDigest(
        step=step,
        num_groups=len({row.group_id for row in rows}),
        gaps={worker: math.fsum(values) / len(values) for worker, values in gaps.items()},
        lags=lags,
        repeating=sum(row.repetition > REPEATING for row in rows) / len(rows) if rows else 0.0,
        conflicts=tuple(_conflicts(rows)),
    )


def _last_failure(store: "RunStore", failed_share: Values) -> str:
    """What the newest failed reward said; "" where there was none."""
    if not any(failed_share):
        return ""
    page = store.query(f"outcome!={RewardOutcome.OK}", "-step", 0, 1)
    if not page.rows:
        return ""
    record = store.rollout(page.rows[0].address, page.rows[0].sample_index)
    return "" if record is None else record.detail


def _conflicts(rows: Sequence[RolloutRow]) -> Iterator[Conflict]:
    judged: dict[tuple[str, str], Counter[bool]] = {}
    for row in rows:
        if row.answer is not None and row.correct is not None:
            judged.setdefault((row.group_id, row.answer), Counter())[row.correct] += 1
    for (group_id, answer), counts in judged.items():
        if len(counts) > 1:
            yield Conflict(group_id=group_id, answer=answer, num_right=counts[True], num_wrong=counts[False])


_READ: "WeakKeyDictionary[RunStore, dict[tuple[int, int], StepDigest]]" = WeakKeyDictionary()
"""Store -> stamp of a step's rollouts in the index -> their digest. Not by the file's own time: a resumed run may have
replaced it, and the index, which the digest is made from, not followed yet."""


def _digests(store: "RunStore") -> Iterator[StepDigest]:
    known, kept = _READ.get(store, {}), {}
    stamps = store.table_stamps("train")
    for step in _spread(list(stamps)):
        found = known.get(stamps[step]) or digest(step, store.step_rows("train", step))
        kept[stamps[step]] = found
        yield found
    _READ[store] = kept


def _spread(steps: Sequence[int]) -> list[int]:
    """The last steps, and some of those before: the same ones as the run grows, so that what was read serves again."""
    last, earlier = steps[-LAST_STEPS_READ:], steps[:-LAST_STEPS_READ]
    every = 1
    while len(earlier) > EARLIER_STEPS_READ * every:
        every *= 2
    return [*(step for step in earlier if step % every == 0), *last]
