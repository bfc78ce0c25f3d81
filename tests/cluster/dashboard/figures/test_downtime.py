from typing import Any

from cluster.dashboard.figures.downtime import downtimes, with_spans
from cluster.dashboard.records import Span
from cluster.dashboard.views.timeline import timeline
from tests.cluster.dashboard.span_store import SpanStore, numbered, span


def state(actor: str, at_s: float, name: str, **extra: Any) -> Span:
    return span("instant", actor, at_s, at_s, name="state", state=name, **extra)


SPANS = numbered(
    [
        span("generate", "sampler-0", 100, 110, "g0"),
        span("generate", "sampler-1", 100, 119, "g1"),
        state("sampler-0", 112, "SUSPECT"),
        state("sampler-0", 113, "DEAD", reason="its process ended"),
        state("sampler-0", 113.1, "RESTARTING"),
        state("sampler-0", 116, "DEAD", reason="it could not start"),
        state("sampler-0", 116.1, "RESTARTING"),
        state("sampler-0", 120, "STALE"),
        state("sampler-0", 121, "HEALTHY"),
        span("instant", "controller", 125, 125, name="resumed"),
        state("sampler-1", 131, "DEAD"),
        span("train", "learner-0", 132, 140, "g0", "g1", step=0),
    ]
)


def test_down_is_from_the_first_death_to_health_or_to_the_end() -> None:
    instants = [s for s in SPANS if s.kind == "instant"]
    first, second = downtimes(instants, (), run_end_s=140.0)
    assert (first.actor, first.kind, first.start_s, first.end_s) == ("sampler-0", "down", 113, 121)
    assert first.extra == {"reason": "its process ended"}
    assert instants[1].id == first.id
    assert (second.actor, second.start_s, second.end_s, second.extra) == ("sampler-1", 131, 140, {})


def test_a_resume_ends_what_was_down_before() -> None:
    instants = [s for s in SPANS if s.kind == "instant"]
    resumed = span("instant", "controller", 135, 135, name="resumed", id=99)
    every = [*instants, resumed, state("sampler-1", 137, "DEAD")]
    for stops, ended_s in (([], 135), ([span("stopped", "controller", 133, 135, id=99)], 133)):
        assert [(down.actor, down.start_s, down.end_s) for down in downtimes(every, stops, run_end_s=140.0)] == [
            ("sampler-0", 113, 121),
            ("sampler-1", 131, ended_s),  # stopped, it is not down
            ("sampler-1", 137, 140),
        ]


def test_only_what_touches_the_window_is_put_into_the_lanes() -> None:
    instants = [s for s in SPANS if s.kind == "instant"]
    down = downtimes(instants, (), run_end_s=140.0)
    lanes = with_spans({"sampler-0": []}, down, 122.0, 128.0)
    assert lanes == {"sampler-0": []}
    lanes = with_spans({"sampler-0": []}, down, 120.0, 135.0)
    assert {actor: len(own) for actor, own in lanes.items()} == {"sampler-0": 1, "sampler-1": 1}


def test_the_timeline_draws_it_with_its_reason_and_share() -> None:
    answer = timeline(SpanStore(SPANS), None, None, 1000)  # type: ignore[arg-type]
    lanes = {lane["actor"]: lane for lane in answer["lanes"]}
    (bar,) = [bar for bar in lanes["sampler-0"]["spans"] if bar["kind"] == "down"]
    assert (bar["start"], bar["end"], bar["label"]) == (113, 121, "its process ended")
    # Between 121, the last that is known of its processes, and 125 the run was stopped.
    assert [(stop["start"], stop["end"]) for stop in answer["stops"]] == [(121, 125)]
    assert lanes["sampler-0"]["utilisation"]["down"] == 8 / 36
    assert lanes["sampler-1"]["utilisation"]["down"] == 9 / 36
