from pathlib import Path
from typing import Any

import pytest

from cluster.dashboard.files import tail
from cluster.dashboard.index.store import RunStore
from cluster.dashboard.views.ledger_view import (
    CHECKS,
    NOT_JUDGED,
    balance_of,
    checks_of,
    ledger_groups,
    ledger_page,
    prompt_page,
)
from tests.cluster.dashboard.small_runs import QUESTIONS, START_S, open_store, write_run, write_step

GOOD = dict.fromkeys(CHECKS, 0)


def test_page_of_a_finished_run(tmp_path: Path) -> None:
    answer = ledger_page(open_store(write_run(tmp_path / "run").path))
    assert answer["counts"] == {"pending": 0, "leased": 0, "sampled": 0, "scored": 0, "consumed": 6, "rejected": 1}
    assert answer["reasons"] == {"equal_rewards": 1}
    assert answer["balance"] == {"dispatched": 7, "trained": 6, "rejected": 1, "in_flight": 0, "ok": True}
    assert answer["groups"] == "ccccccr"
    assert [check["ok"] for check in answer["checks"]] == [True] * (len(CHECKS) + 1)
    assert answer["checks"][0]["text"] == "Each of the 6 trained groups was consumed by one training step, once."
    assert answer["checks"][-1]["text"] == "7 dispatched = 6 trained + 1 rejected + 0 in flight."
    hardest, easiest = answer["prompts"]["hardest"], answer["prompts"]["easiest"]
    assert answer["prompts"]["total"] == 2
    # the second question was all wrong in step 0, and half right in the two after it
    assert [(p["question"], p["num_groups"]) for p in hardest] == [(QUESTIONS[1], 3), (QUESTIONS[0], 3)]
    assert hardest[0]["pass_rate"] == pytest.approx(1 / 3)
    assert easiest[0]["pass_rate"] == pytest.approx(1 / 2)
    assert easiest[0]["last"]["step"] == 2


def test_a_group_that_is_consumed_twice_fails_its_check(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    first = run.read_log("ledger")[0]["group_id"]
    run.append_ledger({"time_s": START_S + 90, "group_id": first, "state": "consumed", "attempt": 1, "step": 2})
    checks = {check["name"]: check for check in ledger_page(open_store(run.path))["checks"]}
    assert checks["consumed once"]["ok"] is False
    assert checks["consumed once"]["text"].startswith("1 of 6 trained groups")


def test_rollouts_that_the_ledger_does_not_know_fail_theirs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False)
    ledger = run.log_path("ledger")
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(line for line in lines if '"step":2' not in line))
    answer = ledger_page(open_store(run.path))
    checks = {check["name"]: check["ok"] for check in answer["checks"]}
    assert checks["in the ledger"] is False
    assert checks["balance"] is False
    assert answer["balance"]["ok"] is False
    assert answer["balance"]["in_flight"] == 2


def test_late_results_and_commits_are_no_states_of_groups(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    without = ledger_page(open_store(write_run(tmp_path / "without").path))
    first = run.read_log("ledger")[0]["group_id"]
    late = {"time_s": START_S + 90, "group_id": first, "event": "late_result_refused", "attempt": 1}
    for line in (late, late, {"time_s": START_S + 91, "event": "committed", "step": 3, "checkpoint": "step-00000003"}):
        run.append_ledger(line)
    store = open_store(run.path)
    answer = ledger_page(store)
    assert [p for p in store.problems() if p.file == "ledger.jsonl"] == []
    assert (answer["counts"], answer["groups"]) == (without["counts"], without["groups"])
    assert (answer["late_results"], without["late_results"]) == (2, 0)
    assert (store.ledger_events().num_late, store.ledger_events().late_groups) == (2, (first,))
    assert answer["late"] == [{"group_id": first, "attempt": 1, "time_s": START_S + 90}] * 2
    (check,) = [check for check in answer["checks"] if check["name"] == "late results"]
    assert check["ok"]
    assert check["text"].startswith("2 results of attempts that had been given up")
    assert [line.get("state", line.get("event")) for line in store.ledger_history(first)] == [
        *("leased", "sampled", "scored", "consumed"),
        *("late_result_refused", "late_result_refused"),
    ]


def test_groups_that_are_leased_again_say_why(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False)
    facts = {"group_id": "000100-00000000000000aa", "worker": "sampler-0"}
    run.append_ledger({**facts, "time_s": START_S + 40, "state": "leased", "attempt": 1, "deadline_s": START_S + 70})
    page = ledger_groups(open_store(run.path), 6, 10)
    assert [(g["group_id"], g["state"], g["deadline_s"]) for g in page["groups"]] == [
        ("009999-00000000000000ff", "rejected", None),
        (facts["group_id"], "leased", START_S + 70),
    ]
    lost = {"group_id": facts["group_id"], "state": "pending", "attempt": 1, "reason": "sampler-0 died"}
    run.append_ledger({**lost, "time_s": START_S + 41})
    waiting = ledger_page(open_store(run.path))["retried"]
    assert (waiting["total"], waiting["groups"][0]["attempt"]) == (1, 1)  # that of the lease that was given up
    run.append_ledger({**facts, "time_s": START_S + 42, "state": "leased", "attempt": 2, "worker": "sampler-1"})
    assert ledger_page(open_store(run.path))["retried"]["groups"] == [
        {
            "group_id": facts["group_id"],
            "attempt": 2,
            "worker": "sampler-1",
            "given_up_by": "sampler-0",
            "reason": "sampler-0 died",
            "time_s": START_S + 41,
        }
    ]


def test_groups_are_paged_in_order(tmp_path: Path) -> None:
    store = open_store(write_run(tmp_path / "run").path)
    everything = ledger_groups(store, 0, 100)
    assert everything["total"] == 7
    assert [g["state"][0] for g in everything["groups"]] == list(ledger_page(store)["groups"])
    part = ledger_groups(store, 2, 2)["groups"]
    assert part == everything["groups"][2:4]
    assert (part[0]["step"], part[0]["worker"], part[0]["first_s"]) == (1, "sampler-0", START_S + 10)
    assert everything["groups"][-1]["reason"] == "equal_rewards"
    assert ledger_groups(store, 100, 10)["groups"] == []


def test_a_prompt_over_the_run(tmp_path: Path) -> None:
    store = open_store(write_run(tmp_path / "run").path)
    uid = ledger_page(store)["prompts"]["hardest"][0]["uid"]
    answer = prompt_page(store, uid)
    assert answer is not None
    assert (answer["uid"], answer["question"]) == (uid, QUESTIONS[1])
    assert [(v["step"], v["epoch"], v["pass_rate"]) for v in answer["history"]] == [
        (0, 0, 0.0),
        (1, 1, 0.5),
        (2, 2, 0.5),
    ]
    assert prompt_page(store, "no-such-prompt") is None


def test_a_run_that_just_began_has_nothing_and_no_fault(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", num_steps=0, finished=False)
    answer = ledger_page(open_store(run.path))
    assert answer["groups"] == ""
    assert all(check["ok"] for check in answer["checks"])
    assert answer["checks"][-1]["text"] == "No group has been dispatched yet."
    write_step(run, 0)
    assert ledger_page(open_store(run.path))["groups"] == "cc"


def test_what_is_still_being_read_is_said() -> None:
    checks = checks_of({}, {}, indexed=False)
    assert [check["ok"] for check in checks] == [True] * len(CHECKS)
    assert {check["text"] for check in checks} == {NOT_JUDGED}
    failed = checks_of({"consumed": 9}, {**GOOD, "mixed_attempts": 2}, indexed=True)
    assert [c["text"] for c in failed if not c["ok"]] == ["2 groups have completions from more than one attempt."]


def test_nothing_is_judged_while_a_run_is_first_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_CHUNK_BYTES", 400)  # the ledger takes many refreshes, the rollouts two
    run = write_run(tmp_path / "run", num_steps=6)
    store = RunStore(run.path)
    seen = 0
    while not store.progress().ready:
        store.refresh(max_s=0.0)
        page = ledger_page(store)
        assert [check["name"] for check in page["checks"] if not check["ok"]] == []
        assert store.ledger_anomalies().keys() <= CHECKS.keys()
        seen += "still being read" in page["checks"][-1]["text"]
    assert seen > 3
    assert ledger_page(store)["balance"]["dispatched"] == 13
    assert set(store.ledger_anomalies().values()) == {0}
    store.close()


def test_a_count_without_a_sentence_is_shown_all_the_same() -> None:
    (check,) = checks_of({}, {"lost_in_space": 3}, indexed=True)
    assert check == {"name": "lost in space", "ok": False, "text": "lost in space: 3 groups"}


@pytest.mark.parametrize(
    ("own", "summary", "live", "ok"),
    [
        ({}, None, True, True),
        ({"dispatched": 4, "trained": 3, "unaccounted": 0}, None, True, True),  # it went on since
        ({"dispatched": 9, "trained": 3, "unaccounted": 0}, None, True, False),
        ({"dispatched": 4, "trained": 3, "unaccounted": 1}, None, True, False),
        ({}, {"groups_dispatched": 5, "groups_trained": 3}, False, True),
        ({}, {"groups_dispatched": 6, "groups_trained": 3}, False, False),
        ({}, {"groups_dispatched": 5, "groups_trained": 2}, False, False),
    ],
)
def test_balance_is_held_against_the_runs_own_counts(own: Any, summary: Any, live: bool, ok: bool) -> None:
    balance = balance_of({"consumed": 3, "rejected": 1, "leased": 1}, own, summary, live=live)
    assert (balance["dispatched"], balance["in_flight"], balance["ok"]) == (5, 1, ok)
    assert ("; but " in balance["text"]) is not ok
