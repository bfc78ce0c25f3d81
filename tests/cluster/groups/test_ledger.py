from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import LedgerError
from cluster.groups.ledger import Ledger, LedgerState
from cluster.types import RejectReason


def new_ledger(state: LedgerState | None = None) -> tuple[Ledger, list[Mapping[str, object]]]:
    journal: list[Mapping[str, object]] = []
    return Ledger(journal.append, lambda: 12.5, state), journal


def test_the_life_of_a_group_is_counted_and_written() -> None:
    ledger, journal = new_ledger()
    assert ledger.lease("g", "sampler-1") == 1
    assert (ledger.dispatched, ledger.in_flight) == (1, 1)
    ledger.sampled("g", 1, policy_version=3)
    ledger.scored("g", 1)
    ledger.consume("g", 1, step=7)
    ledger.check()
    assert (ledger.dispatched, ledger.trained, ledger.in_flight, ledger.rejected) == (1, 1, 0, {})
    common = {"time_s": 12.5, "group_id": "g", "attempt": 1}
    assert journal == [
        {**common, "state": "leased", "worker": "sampler-1"},
        {**common, "state": "sampled", "policy_version": 3},
        {**common, "state": "scored"},
        {**common, "state": "consumed", "step": 7},
    ]


@pytest.mark.parametrize("num_moves", [0, 1, 2])
def test_a_group_can_be_rejected_from_every_open_state(num_moves: int) -> None:
    ledger, journal = new_ledger()
    ledger.lease("g", "s")
    moves: list[Callable[[], object]] = [lambda: ledger.sampled("g", 1, 0), lambda: ledger.scored("g", 1)]
    for move in moves[:num_moves]:
        move()
    ledger.reject("g", 1, RejectReason.EQUAL_REWARDS)
    ledger.check()
    assert (ledger.rejected, ledger.in_flight) == ({"equal_rewards": 1}, 0)
    assert journal[-1]["reason"] == "equal_rewards"


def test_steps_cannot_be_skipped_or_repeated() -> None:
    ledger, _ = new_ledger()
    ledger.lease("g", "s")
    with pytest.raises(LedgerError, match="group g cannot become scored: it is leased"):
        ledger.scored("g", 1)
    with pytest.raises(LedgerError, match="cannot become consumed: it is leased"):
        ledger.consume("g", 1, 0)
    ledger.sampled("g", 1, 0)
    with pytest.raises(LedgerError, match="cannot become consumed: it is sampled"):
        ledger.consume("g", 1, 0)


def test_what_came_to_its_end_does_not_come_twice() -> None:
    ledger, _ = new_ledger()
    for group_id in ("trained", "rejected"):
        ledger.lease(group_id, "s")
        ledger.sampled(group_id, 1, 0)
        ledger.scored(group_id, 1)
    ledger.consume("trained", 1, 0)
    ledger.reject("rejected", 1, RejectReason.TOO_FEW_SCORED)
    with pytest.raises(LedgerError, match="group trained is not in flight: it came twice"):
        ledger.consume("trained", 1, 1)
    for group_id in ("trained", "rejected"):
        with pytest.raises(LedgerError, match=f"group {group_id} was leased to s after its end"):
            ledger.lease(group_id, "s")
    with pytest.raises(LedgerError, match="never leased"):
        ledger.sampled("other", 1, 0)
    assert (ledger.dispatched, ledger.trained, ledger.rejected) == (2, 1, {"too_few_scored": 1})


def test_a_lease_that_is_running_is_not_given_twice() -> None:
    ledger, journal = new_ledger()
    ledger.lease("g", "s")
    with pytest.raises(LedgerError, match="leased to t while it is leased: it would be sampled twice"):
        ledger.lease("g", "t")
    assert (ledger.dispatched, len(journal)) == (1, 1)


def test_a_resumed_run_leases_again_and_refuses_the_attempt_before() -> None:
    before, _ = new_ledger()
    for group_id in ("leased", "sampled", "scored"):
        before.lease(group_id, "s")
    before.sampled("sampled", 1, 0)
    before.sampled("scored", 1, 0)
    before.scored("scored", 1)
    state = before.state()
    assert state.open_groups == {"leased": ("pending", 1), "sampled": ("pending", 1), "scored": ("scored", 1)}
    ledger, _ = new_ledger(state)
    ledger.check()
    assert ledger.lease("sampled", "s") == 2
    assert ledger.dispatched == 3
    # Of the process before: its attempts were given up with it.
    assert not ledger.sampled("sampled", 1, 0)
    assert not ledger.sampled("leased", 1, 0)
    assert ledger.late_results == 2
    with pytest.raises(LedgerError, match="a result of attempt 1 came, but attempt 2 is leased"):
        ledger.reject("sampled", 1, RejectReason.EQUAL_REWARDS)
    ledger.consume("scored", 1, 4)
    assert (ledger.trained, ledger.in_flight) == (1, 2)


def test_a_late_result_is_refused_and_counted_and_changes_nothing() -> None:
    ledger, journal = new_ledger()
    ledger.lease("g", "slow", deadline_s=60.0)
    leased_s = journal[-1]["time_s"]
    assert isinstance(leased_s, float)
    assert journal[-1]["deadline_s"] == leased_s + 60.0
    ledger.requeue("g", 1, "sampler slow did not answer")
    assert not ledger.sampled("g", 1, 0), "given up, and not leased again yet"
    assert ledger.lease("g", "other") == 2
    assert not ledger.sampled("g", 1, 0)
    assert ledger.sampled("g", 2, 1)
    assert not ledger.sampled("g", 1, 0)
    ledger.scored("g", 2)
    ledger.consume("g", 2, 0)
    assert not ledger.sampled("g", 1, 0), "after its end"
    ledger.check()
    assert (ledger.dispatched, ledger.trained, ledger.in_flight, ledger.late_results) == (1, 1, 0, 4)
    states = [line["state"] for line in journal if "state" in line]
    assert states == ["leased", "pending", "leased", "sampled", "scored", "consumed"]
    refused = [line for line in journal if line.get("event") == "late_result_refused"]
    assert [line["attempt"] for line in refused] == [1, 1, 1, 1]
    assert ledger.state().late_results == 4


def test_a_group_that_is_given_up_too_often_is_rejected_from_pending() -> None:
    ledger, _ = new_ledger()
    ledger.lease("g", "s")
    ledger.requeue("g", 1, "the engine failed")
    ledger.reject("g", 1, RejectReason.SAMPLING_FAILED)
    ledger.check()
    assert ledger.rejected == {"sampling_failed": 1}


def test_a_state_that_does_not_balance_is_found() -> None:
    ledger, _ = new_ledger(LedgerState(dispatched=3, trained=1, rejected={"equal_rewards": 1}))
    with pytest.raises(LedgerError, match="3 groups dispatched, 1 trained, 1 rejected, 0 in flight"):
        ledger.check()


def test_a_change_that_cannot_be_written_does_not_happen() -> None:
    def full(_: Mapping[str, object]) -> None:
        raise OSError("disk is full")

    ledger = Ledger(full, lambda: 0.0, LedgerState(dispatched=1, open_groups={"g": ("scored", 1)}))
    for change in (lambda: ledger.consume("g", 1, 0), lambda: ledger.lease("h", "s")):
        with pytest.raises(OSError, match="full"):
            change()
    assert ledger.state() == LedgerState(dispatched=1, open_groups={"g": ("scored", 1)})
    ledger.check()


EVENTS = st.tuples(
    st.sampled_from(["lease", "sampled", "scored", "consume", "reject", "resume"]),
    st.integers(0, 4),
    st.integers(1, 3),
)


def apply(ledger: Ledger, event: str, group_id: str, attempt: int) -> None:
    match event:
        case "lease":
            ledger.lease(group_id, "s")
        case "sampled":
            ledger.sampled(group_id, attempt, 0)
        case "scored":
            ledger.scored(group_id, attempt)
        case "consume":
            ledger.consume(group_id, attempt, 0)
        case "reject":
            ledger.reject(group_id, attempt, RejectReason.NOTHING_TO_TRAIN)
        case _:
            raise AssertionError(event)


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=60))
def test_the_account_balances_after_any_sequence_of_events(events: list[Any]) -> None:
    ledger, journal = new_ledger()
    terminal: dict[str, str] = {}
    for event, number, attempt in events:
        group_id = f"g{number}"
        if event == "resume":
            # A run that goes on never sees an id again that came to its end.
            if not terminal:
                ledger = Ledger(journal.append, lambda: 0.0, ledger.state())
            continue
        lines, num_late = len(journal), ledger.late_results
        try:
            apply(ledger, event, group_id, attempt)
        except LedgerError:
            assert len(journal) == lines, "a refused change left a line"
            continue
        if event == "sampled" and group_id in terminal:
            assert ledger.late_results == num_late + 1, "what comes after the end is refused, and counted"
            continue
        assert group_id not in terminal
        if event in ("consume", "reject"):
            terminal[group_id] = event
        ledger.check()
        assert ledger.trained == sum(end == "consume" for end in terminal.values())
        assert sum(ledger.rejected.values()) == sum(end == "reject" for end in terminal.values())
