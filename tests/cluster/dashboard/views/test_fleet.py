from pathlib import Path
from typing import Any

import pytest

from cluster.dashboard.records import LedgerEntry
from cluster.dashboard.views.fleet import fleet, flight_of, last_error, state_of
from cluster.record.run_directory import RunDirectory
from cluster.types import Event, EventKind
from tests.cluster.dashboard.small_runs import START_S, open_store, write_run
from tests.cluster.dashboard.span_store import span

NOTHING = flight_of({}, [], 2)


def entry(group_id: str, state: str, worker: str = "sampler-0", attempt: int = 1) -> LedgerEntry:
    return LedgerEntry(
        group_id=group_id, state=state, attempt=attempt, worker=worker, step=None, reason="", first_s=0.0, last_s=1.0
    )


def cards(run: RunDirectory) -> dict[str, dict[str, Any]]:
    return {card["actor"]: card for card in fleet(open_store(run.path))["actors"]}


def instant(run: RunDirectory, actor: str, time_s: float, **facts: Any) -> None:
    run.append_event(Event(kind=EventKind.INSTANT, actor=actor, start_s=time_s, end_s=time_s, extra=facts))


def test_cards_of_a_finished_run(tmp_path: Path) -> None:
    found = cards(write_run(tmp_path / "run"))
    assert list(found) == ["learner-0", "sampler-0", "sampler-1", "reward-0"]
    assert {card["state"] for card in found.values()} == {"ended"}
    assert [found[actor]["groups"] for actor in found] == [6, 3, 3, 6]
    assert found["sampler-0"]["policy_version"] == 3
    # 4 samples x 4 tokens, one sample of MIXED has 8: 20 tokens in 2 s
    assert found["sampler-0"]["spark"] == [10.0, 10.0, 10.0]
    assert found["sampler-0"]["tokens_per_s"] == 10.0
    # the run's events take 28 s: 3 x 4 s of training
    assert found["learner-0"]["busy"] == pytest.approx(12 / 28)
    assert found["learner-0"]["last_event"] == {"kind": "train", "end_s": START_S + 27}
    assert found["reward-0"]["spark"] == []
    assert found["reward-0"]["last_error"] == ""


def test_recorded_states_restarts_and_errors(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False)
    instant(run, "controller", START_S + 0.5, name="resumed", text="from step-00000002")
    instant(run, "sampler-0", START_S + 1, name="state", state="HEALTHY")
    instant(run, "sampler-1", START_S + 2, name="state", state="DEAD", reason="no answer for 30 s")
    instant(run, "sampler-1", START_S + 3, name="state", state="RESTARTING")
    instant(run, "sampler-1", START_S + 3.5, name="state", state="DEAD", reason="no answer for 30 s")
    instant(run, "sampler-1", START_S + 4, name="state", state="RESTARTING")
    instant(run, "sampler-1", START_S + 5, name="state", state="HEALTHY")
    instant(run, "reward-0", START_S + 6, name="warning", text="a child was killed")
    found = cards(run)
    assert (found["sampler-0"]["state"], found["sampler-0"]["last_error"]) == ("HEALTHY", "")
    assert (found["sampler-1"]["state"], found["sampler-1"]["restarts"]) == ("HEALTHY", 2)
    assert (found["controller"]["restarts"], found["sampler-0"]["restarts"]) == (1, 0)
    assert found["sampler-1"]["last_error"] == "no answer for 30 s"
    assert found["reward-0"]["last_error"] == "a child was killed"


def test_restarts_are_counted_from_the_states_that_a_supervisor_records(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False)
    for number, state in enumerate(
        ("SUSPECT", "DEAD", "RESTARTING", "STALE", "HEALTHY", "DEAD", "RESTARTING", "STALE")
    ):
        reason = {"DEAD": "its process ended", "STALE": "it has started"}.get(state, "")
        instant(run, "sampler-1", START_S + number, name="state", state=state, reason=reason)
    found = cards(run)
    assert (found["sampler-1"]["restarts"], found["sampler-0"]["restarts"]) == (2, 0)
    assert (found["sampler-1"]["state"], found["sampler-1"]["last_error"]) == ("STALE", "its process ended")


def test_a_live_run_is_busy_where_something_is_in_flight(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False)
    line = {"time_s": START_S + 40, "group_id": "000100-00000000000000aa", "attempt": 2, "worker": "sampler-1"}
    run.append_ledger({**line, "state": "leased"})
    found = cards(run)
    assert {actor: card["state"] for actor, card in found.items()} == {
        "learner-0": "idle",
        "sampler-0": "idle",
        "sampler-1": "busy",
        "reward-0": "idle",
    }
    assert found["sampler-1"]["retried"] == 1


def test_states_of_before_a_resume_are_history(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False, recovery__max_restarts=3)
    instant(run, "sampler-1", START_S + 2, name="state", state="DEAD", before="HEALTHY", reason="killed")
    instant(run, "sampler-1", START_S + 3, name="state", state="RESTARTING", before="DEAD", reason="restart 1")
    instant(run, "sampler-1", START_S + 4, name="state", state="DEAD", before="RESTARTING", reason="killed again")
    assert fleet(open_store(run.path))["restarts"] == {"used": 1, "most": 3}
    assert cards(run)["sampler-1"]["state"] == "DEAD"
    instant(run, "controller", START_S + 5, name="resumed", text="from step-00000002")
    card = cards(run)["sampler-1"]
    assert (card["state"], card["restarts"], card["num_changes"]) == ("idle", 1, 3)
    assert [(change["before"], change["state"], change["reason"]) for change in card["changes"]] == [
        ("RESTARTING", "DEAD", "killed again"),
        ("DEAD", "RESTARTING", "restart 1"),
        ("HEALTHY", "DEAD", "killed"),
    ]
    assert fleet(open_store(run.path))["restarts"] == {"used": 0, "most": 3}


def test_a_card_lists_the_leases_with_attempt_and_deadline(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False)
    for number in range(10):
        line = {"time_s": START_S + 40, "group_id": f"0001{number:02d}-00000000000000aa", "worker": "sampler-1"}
        run.append_ledger({**line, "state": "leased", "attempt": 1, "deadline_s": START_S + 100 + number})
    again = {"group_id": "000100-00000000000000aa", "worker": "sampler-1"}
    run.append_ledger({**again, "time_s": START_S + 101, "state": "pending", "attempt": 1, "reason": "too late"})
    run.append_ledger({**again, "time_s": START_S + 102, "state": "leased", "attempt": 2, "deadline_s": START_S + 162})
    card = cards(run)["sampler-1"]
    assert (card["num_leases"], len(card["leases"]), card["retried"]) == (10, 8, 1)
    assert card["leases"][0] == {"group_id": again["group_id"], "attempt": 2, "deadline_s": START_S + 162}
    assert (card["leases"][1]["attempt"], card["leases"][1]["deadline_s"]) == (1, START_S + 101)
    assert (cards(run)["sampler-0"]["leases"], cards(run)["reward-0"]["num_leases"]) == ([], 0)


def test_an_empty_run_has_no_cards(tmp_path: Path) -> None:
    empty = open_store(write_run(tmp_path / "run", num_steps=0, finished=False).path)
    assert fleet(empty) == {"actors": [], "restarts": {"used": 0, "most": 10}}


def test_the_learner_is_busy_when_a_whole_batch_is_scored() -> None:
    for scored, state in ((1, "idle"), (2, "busy"), (3, "busy")):
        flight = flight_of({"scored": scored}, [], 2)
        assert state_of("learner-0", status="live", recorded="", flight=flight) == state
    assert state_of("reward-1", status="live", recorded="", flight=flight_of({"sampled": 1}, [], 2)) == "busy"
    assert state_of("controller", status="live", recorded="", flight=NOTHING) == "busy"


def test_leases_name_their_sampler() -> None:
    flight = flight_of({"leased": 1}, [entry("a", "leased", "sampler-3"), entry("b", "consumed", "sampler-4")], 8)
    assert flight.leases == {"sampler-3": ["a"]}
    assert state_of("sampler-3", status="live", recorded="", flight=flight) == "busy"
    assert state_of("sampler-4", status="live", recorded="", flight=flight) == "idle"


@pytest.mark.parametrize(
    ("status", "recorded", "state"),
    [
        ("live", "SUSPECT", "SUSPECT"),
        ("failed", "HEALTHY", "ended"),
        ("failed", "DEAD", "DEAD"),
        ("stopped", "", "ended"),
    ],
)
def test_state(status: Any, recorded: str, state: str) -> None:
    assert state_of("sampler-0", status=status, recorded=recorded, flight=NOTHING) == state


def test_the_error_of_the_run_is_told_with_the_actor_that_failed() -> None:
    error = "generate: sampler-1, group 3: no answer after 600 s"
    assert last_error([], error, is_its=True) == error
    assert last_error([], error, is_its=False) == ""
    warned = [span("instant", "sampler-1", 1, 1, name="error", text="out of memory")]
    assert last_error(warned, error, is_its=True) == "out of memory"
