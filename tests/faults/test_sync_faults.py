"""Faults of runs that sample ahead on two samplers: a late answer is refused, and a killed sampler is made up for."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.faults import faults
from tests.faults.faults import Faults
from tests.integration import runs

pytestmark = pytest.mark.faults

AHEAD = (
    "steps=6",
    "eval.at_start=false",
    "eval.at_end=false",
    "deterministic=false",
    "max_policy_lag=1",
    "rollout.num_engines=2",
    "rollout.prompts_per_step=2",
)
NUM_GROUPS = 12
LEASE_S = 6


def test_an_answer_after_the_end_of_its_lease_is_refused(tmp_path: Path) -> None:
    """The sampler is stopped (SIGSTOP) with a group, goes on (SIGCONT) when its lease was given up, and answers."""
    path = tmp_path / "run"
    fault = Faults.at("sampler", step=2, event="serving").do("hang")
    # `keep`: a weight sync that came first would end what was given up, and there would be no late answer.
    words = (
        "rollout.on_weight_sync=keep",
        f"rollout.group_deadline_s={LEASE_S}",
        "recovery.unhealthy_after=100",
        "recovery.probe_every_s=300",
    )
    run = faults.start(path, fault, "tiny", *AHEAD, *words)
    runs.wait_until(lambda: faults.ledger(path, "pending") != [], run)
    struck = faults.struck(path)
    assert faults.ledger(path, "pending")[0]["time_s"] - struck["time_s"] >= LEASE_S - 1.0
    os.kill(struck["pid"], signal.SIGCONT)
    assert run.wait() == 0, run.output()

    given_up = {(line["group_id"], line["attempt"]) for line in faults.ledger(path, "pending")}
    lines = runs.read_lines(path / "ledger.jsonl")
    refused = [(e["group_id"], e["attempt"]) for e in lines if e.get("event") == "late_result_refused"]
    assert len(refused) >= 1
    assert sorted(refused) == sorted(given_up), "what was given up is refused, once each"
    metrics = runs.read_lines(path / "metrics.jsonl")
    assert metrics[-1]["groups/late_results"] == len(refused)
    trained = {line["group_id"]: line["attempt"] for line in faults.ledger(path, "consumed")}
    assert all(trained[group_id] > attempt for group_id, attempt in refused)
    faults.assert_exactly_once(path, num_groups=NUM_GROUPS)
    assert run.left_behind() == []


@pytest.mark.parametrize("event", ["serving", "syncing"])
def test_only_unfinished_groups_are_sampled_again_when_one_of_two_is_killed(event: Any, tmp_path: Path) -> None:
    path = tmp_path / "run"
    fault = Faults.at("sampler", 1, step=2, event=event).do("kill")
    run = faults.start(path, fault, "tiny", *AHEAD)
    assert run.wait() == 0, run.output()
    assert faults.struck(path)["victim"] == "sampler-1"
    faults.assert_exactly_once(path, num_groups=NUM_GROUPS)
    leases = {(line["group_id"], line["attempt"]): line["worker"] for line in faults.ledger(path, "leased")}
    given_up = [(line["group_id"], line["attempt"]) for line in faults.ledger(path, "pending")]
    assert {leases[lease] for lease in given_up} <= {"sampler-1"}
    assert len(leases) == NUM_GROUPS + len(given_up)
    assert not faults.states(path, "sampler-0"), "nothing happened to the other"
    assert max(line["lag/max"] for line in runs.read_lines(path / "metrics.jsonl")) <= 1.0
    assert run.left_behind() == []
