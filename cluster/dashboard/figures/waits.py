"""Who waited for whom, and what a training step spent its time on. Pure functions over spans.

A span begins when the work before it has ended: scoring after sampling, training after scoring, a sync after training,
sampling after a sync (`AFTER`), and each after what its own actor had to do first. So a gap in an actor's lane is
explained from its end backwards: the span that ended the gap could begin when its predecessor ended, which could begin
when its own predecessor ended, and so on until the gap's start. Each stretch is charged to the actor that worked, or
was late to begin, in it.

    learner-0   |train 3|................gap................|train 4|
    sampler-0            |sync|  |generate----------|                     the learner waited for sampler-0,
    reward-0                                        |score|               and a little for reward-0

The same walk from the end of one training step to the end of the one before is the step's critical path: making
anything shorter that is not on it would not have made the step shorter.
"""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cluster.dashboard.figures.coverage import covered
from cluster.dashboard.figures.lanes import IDLE_KINDS, SHARED_KINDS, role_of
from cluster.dashboard.records import WAIT, Span
from cluster.types import EventKind
from cluster.types import EventKind as _K

AFTER: Mapping[str, tuple[str, ...]] = {
    # Scoring: another group for one that it rejected.
    _K.GENERATE: (_K.SYNC, _K.TRAIN, _K.EVAL, _K.SAVE, _K.SCORE),
    _K.SCORE: (_K.GENERATE,),
    _K.ACCUMULATE: (_K.SCORE, _K.ACCUMULATE, _K.SYNC),
    _K.TRAIN: (_K.SCORE, _K.ACCUMULATE),
    # Scoring: a sync may drain what is being sampled.
    _K.SYNC: (_K.TRAIN, _K.SCORE, _K.EVAL, _K.SAVE),
    _K.EVAL: (_K.SYNC, _K.TRAIN, _K.SAVE),
    _K.SAVE: (_K.EVAL, _K.SYNC, _K.TRAIN),
}
"""Kind -> the kinds whose end lets it begin."""
SLACK_S = 1e-3
"""Clocks of two processes: a span may seem to begin this much before its predecessor ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a chain of work: the actor worked, or was about to, from `start_s` to `end_s`."""

    actor: str
    kind: str
    """Of the work; `wait` where it could have begun and had not yet."""
    start_s: float
    end_s: float
    id: int
    """Of the span that was worked on, or was late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A gap in an actor's lane."""

    actor: str
    start_s: float
    end_s: float
    shares: Mapping[str, float]
    """Other actor -> seconds of the gap that it took."""
    step: int | None = None
    """Of what came after the gap."""

    @property
    def on(self) -> str:
        """Whom it waited for most; "" where the spans do not tell."""
        return max(self.shares, key=lambda actor: self.shares[actor], default="")


class Chains:
    """Finds what each span had to wait for. Spans of all actors; those without a duration are left out."""

    def __init__(self, spans: Iterable[Span]) -> None:
        by_kind: dict[str, list[Span]] = defaultdict(list)
        for span in spans:
            if span.kind not in IDLE_KINDS and span.end_s > span.start_s:
                by_kind[span.kind].append(span)
                if span.kind in SHARED_KINDS:
                    by_kind[_queue(span)].append(span)
        self._spans = {kind: sorted(found, key=lambda s: s.end_s) for kind, found in by_kind.items()}
        self._ends = {kind: [s.end_s for s in found] for kind, found in self._spans.items()}

    def before(self, span: Span, time_s: float) -> Span | None:
        """The last to end at or before `time_s` of the spans after which one of this kind may begin. Ranks and samplers
        that are served together end together: of those `span`'s own actor is taken, else the first by name."""
        found = self._last_of(_queue(span), time_s)  # what it stood in line behind
        for kind in AFTER.get(span.kind, ()):
            found += self._last_of(kind, time_s)
        last_s = max((s.end_s for s in found), default=0.0)
        together = [s for s in found if s.end_s >= last_s - SLACK_S]
        return min(together, key=lambda s: (s.actor != span.actor, s.actor, -s.end_s), default=None)

    def _last_of(self, kind: str, time_s: float) -> list[Span]:
        """The last to end of a kind, with those that ended at the same time."""
        found: list[Span] = []
        place = bisect_right(self._ends.get(kind, []), time_s + SLACK_S) - 1
        while place >= 0 and (not found or self._spans[kind][place].end_s >= found[0].end_s - SLACK_S):
            # Not one that began at the same time: it cannot have been waited for, and the walk must get on.
            if self._spans[kind][place].start_s < time_s:
                found.append(self._spans[kind][place])
            place -= 1
        return found

    def walk(self, span: Span, until_s: float) -> list[Stretch]:
        """The work that led to `span`, backwards from its start to `until_s`. Between a predecessor's end and a
        span's start, the span's own actor was late to begin: that time is charged to it."""
        stretches: list[Stretch] = []
        current, time_s = span, span.start_s
        while time_s > until_s:
            earlier = self.before(current, time_s)
            ended_s = max(until_s, min(earlier.end_s, time_s)) if earlier is not None else until_s
            if time_s > ended_s:
                stretches.append(_stretch(current, ended_s, time_s, late=True))
            if earlier is None or earlier.end_s <= until_s:
                break
            started_s = max(until_s, earlier.start_s)
            stretches.append(_stretch(earlier, started_s, ended_s))
            current, time_s = earlier, started_s
        return stretches


def waits_of(
    actor: str, spans: Sequence[Span], chains: Chains, start_s: float, end_s: float, *, cut_s: float = math.inf
) -> list[Wait]:
    """The gaps between an actor's spans from `start_s` to `end_s`, in order, of each what is before `cut_s`; what is
    after its last span is none, for nothing shows that it waited for something. Spans of kind `wait` and `down` are in
    the lane already."""
    own = sorted((span for span in spans if span.kind != EventKind.INSTANT), key=lambda s: s.start_s)
    starts = [span.start_s for span in own]
    waits: list[Wait] = []
    at_s = start_s
    for busy_from, busy_to in covered(own, start_s, end_s):
        if busy_from > at_s and at_s < cut_s:
            following = own[bisect_right(starts, busy_from) - 1]
            waits.append(_wait(actor, at_s, following, chains, cut_s))
        at_s = busy_to
    return waits


def recorded_waits(spans: Iterable[Span]) -> list[Wait]:
    """Spans of kind `wait`, as the run wrote them: whom for is in `extra["for"]`."""
    found = []
    for span in spans:
        if span.kind == WAIT:
            on = str(span.extra.get("for", ""))
            shares = {on: span.end_s - span.start_s} if on else {}
            found.append(Wait(actor=span.actor, start_s=span.start_s, end_s=span.end_s, shares=shares, step=span.step))
    return found


def totals(waits: Iterable[Wait]) -> list[tuple[str, str, float]]:
    """(who, for whom, seconds), longest first."""
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for wait in waits:
        for on, seconds in wait.shares.items():
            sums[wait.actor, on] += seconds
    return sorted(((who, on, seconds) for (who, on), seconds in sums.items()), key=lambda row: (-row[2], row[:2]))


def critical_path(step: int, spans: Sequence[Span], chains: Chains) -> list[Stretch]:
    """The chain of work from the end of the training step before to the end of `step`, in order of time. Empty when
    the step's training is not among the spans; from the first work that is known when there is no step before."""
    trained = [span for span in spans if span.kind == EventKind.TRAIN and span.step == step]
    if not trained:
        return []
    last = max(trained, key=lambda s: s.end_s)
    earlier = [s.end_s for s in spans if s.kind == EventKind.TRAIN and s.step is not None and s.step < step]
    known_s = min(s.start_s for s in spans)
    until_s = min(max(earlier, default=known_s), last.start_s)
    path = chains.walk(last, until_s)
    return [*reversed(path), _stretch(last, last.start_s, last.end_s)]


def _wait(actor: str, start_s: float, following: Span, chains: Chains, cut_s: float) -> Wait:
    shares: dict[str, float] = defaultdict(float)
    for stretch in chains.walk(following, start_s):
        if stretch.actor != actor and stretch.start_s < cut_s:
            shares[stretch.actor] += min(stretch.end_s, cut_s) - stretch.start_s
    # Ranks of the learner train together: that they began at once is no waiting for one another.
    others = {on: s for on, s in shares.items() if role_of(on) != "learner" or role_of(actor) != "learner"}
    end_s = min(following.start_s, cut_s)
    return Wait(actor=actor, start_s=start_s, end_s=end_s, shares=others, step=following.step)


def _queue(span: Span) -> str:
    """A name for the work of one kind in one actor, unlike any kind."""
    return f"{span.kind} of {span.actor}"


def _stretch(span: Span, start_s: float, end_s: float, *, late: bool = False) -> Stretch:
    kind = WAIT if late else span.kind
    return Stretch(actor=span.actor, kind=kind, start_s=start_s, end_s=end_s, id=span.id)
