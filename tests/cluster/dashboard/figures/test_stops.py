from typing import Any

from cluster.dashboard.figures.stops import sessions, stops_of
from cluster.dashboard.records import Span
from tests.cluster.dashboard.span_store import span


def instant(at_s: float, name: str, id: int, **extra: Any) -> Span:
    return span("instant", "controller", at_s, at_s, id=id, name=name, **extra)


def resumed(at_s: float, id: int) -> Span:
    return instant(at_s, "resumed", id, text="from step-000004")


def times(stops: list[Span]) -> list[tuple[float, float]]:
    return [(stop.start_s, stop.end_s) for stop in stops]


def test_a_stop_is_from_the_last_sign_of_the_old_processes_to_the_resume() -> None:
    (stop,) = stops_of([resumed(100, 7)], {7: 40.0})
    assert (stop.kind, stop.id, stop.start_s, stop.end_s) == ("stopped", 7, 40.0, 100)
    assert stop.extra == {"name": "stopped, resumed from step-000004"}
    # A warning of them is a sign too, and what the new ones say of a damaged checkpoint is none.
    signs = [instant(45, "warning", 5), instant(99, "checkpoint_set_aside", 6), resumed(100, 7)]
    assert times(stops_of(signs, {7: 40.0})) == [(45, 100)]


def test_each_session_has_signs_of_its_own() -> None:
    instants = [instant(3, "warning", 0), resumed(10, 2), instant(12, "warning", 3), resumed(20, 4), resumed(30, 5)]
    # The third one came before anything ended: from the second resume on nothing is known but that.
    assert times(stops_of(instants, {2: 8.0, 4: 11.0})) == [(8, 10), (12, 20), (20, 30)]


def test_a_run_that_begins_again_without_a_line_of_before_was_not_stopped() -> None:
    assert stops_of([resumed(10, 0)], {}) == []
    assert stops_of([instant(3, "warning", 0)], {}) == []
    # Nor one whose clock went back.
    assert stops_of([resumed(10, 5)], {5: 11.0}) == []


def test_sessions_are_what_stops_leave() -> None:
    stops = [span("stopped", "controller", 10, 20), span("stopped", "controller", 30, 35)]
    assert sessions(stops, 0, 40) == [(0, 10), (20, 30), (35, 40)]
    assert sessions(stops, 12, 32) == [(20, 30)]
    assert sessions(stops, 12, 18) == []
    assert sessions(stops, 20, 25) == [(20, 25)]
    assert sessions([], 1, 2) == [(1, 2)]
