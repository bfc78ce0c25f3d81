"""Runs in which everything failed: in order for the checker of the fault tests, and told by every page's answer."""

import asyncio
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.config import CheckpointConfig
from cluster.dashboard.doctor.diagnose import doctor_page
from cluster.dashboard.index.store import RunStore
from cluster.dashboard.views.fault_records import troubles
from cluster.dashboard.views.fleet import fleet
from cluster.dashboard.views.ledger_view import ledger_page
from cluster.dashboard.views.timeline import timeline
from cluster.record.instants import checkpoint_instant
from cluster.record.run_directory import RunDirectory
from cluster.record.run_lock import run_lock
from cluster.types import Instant
from cluster.weights.checkpointing import Checkpoints
from tests.cluster.dashboard.faulty_run import KILLED, STARTED_S, FaultyRun, write_ended, write_live
from tests.cluster.dashboard.served import serving, wait_until
from tests.cluster.dashboard.small_runs import open_store
from tests.cluster.dashboard.span_store import span
from tests.cluster.fakes import FakeLearner, fleet_of
from tests.cluster.weights.test_checkpointing import state_at
from tests.faults.checker import check_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ended` and `live`."""
    path = tmp_path_factory.mktemp("faulty")
    write_ended(path / "ended")
    write_live(path / "live")
    return path


@pytest.fixture(scope="module")
def ended(folder: Path) -> Iterator[RunStore]:
    store = open_store(folder / "ended")
    yield store
    store.close()


@pytest.mark.parametrize("run", ["ended", "live"])
def test_the_checker_of_the_fault_tests_finds_nothing(folder: Path, run: str) -> None:
    assert check_run(folder / run) == []


def test_the_checker_looks_at_the_groups_that_were_sampled_again(folder: Path, tmp_path: Path) -> None:
    run = RunDirectory(Path(shutil.copytree(folder / "ended", tmp_path / "run")))
    lines = run.read_log("ledger")
    again = [line for line in lines if line.get("attempt") == 2 and line["state"] == "leased"]
    assert [line["group_id"][:6] for line in again] == ["000004", "000006", "000008"]
    again[0]["worker"] = "sampler-9"
    run.log_path("ledger").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (problem, *_) = check_run(run.path)
    assert "000004" in problem
    assert "attempt 2 by sampler-9" in problem


def test_fleet_tells_states_restarts_and_leases(ended: RunStore) -> None:
    answer = fleet(ended)
    cards = {card["actor"]: card for card in answer["actors"]}
    assert answer["restarts"] == {"used": 3, "most": 3}
    assert {actor: card["restarts"] for actor, card in cards.items() if card["restarts"]} == {
        "learner-1": 1,
        "sampler-1": 1,
        "reward-0": 1,
    }
    assert [change["state"] for change in cards["sampler-1"]["changes"]] == ["HEALTHY", "STALE", "RESTARTING", "DEAD"]
    assert [change["state"] for change in cards["sampler-0"]["changes"]] == ["DEAD", "HEALTHY", "SUSPECT"]
    assert {actor for actor, card in cards.items() if card["state"] == "DEAD"} == {"sampler-0"}
    (lease,) = cards["sampler-1"]["leases"]
    assert (lease["group_id"][:6], lease["attempt"], lease["deadline_s"]) == ("000019", 1, STARTED_S + 634)
    assert (cards["sampler-1"]["retried"], cards["sampler-0"]["retried"]) == (2, 1)
    assert cards["learner-1"]["last_error"] == f"train: learner-1 failed on step 5: {KILLED}"


def test_ledger_tells_late_answers_requeued_groups_and_checkpoints(ended: RunStore) -> None:
    page = ledger_page(ended)
    assert (page["counts"]["pending"], page["counts"]["leased"], page["counts"]["consumed"]) == (2, 1, 18)
    assert page["balance"]["ok"]
    assert page["late_results"] == 2
    late = [(each["group_id"][:6], each["attempt"], each["time_s"] - STARTED_S) for each in page["late"]]
    assert late == [("000008", 1, 95.0), ("000006", 1, 95.0)]
    assert page["retried"]["total"] == 5
    groups = [(g["group_id"][:6], g["attempt"], g["worker"], g["given_up_by"]) for g in page["retried"]["groups"]]
    assert groups == [
        ("000020", 1, "sampler-0", "sampler-0"),
        ("000018", 1, "sampler-0", "sampler-0"),
        ("000008", 2, "sampler-1", "sampler-0"),
        ("000006", 2, "sampler-1", "sampler-0"),
        ("000004", 2, "sampler-0", "sampler-1"),
    ]
    saved = page["checkpoints"]
    assert saved["newest"] == {"name": "step-00000002", "step": 2}
    assert (saved["steps_done"], saved["trained_held"], saved["trained"]) == (6, 6, 18)
    assert [(t["what"], t["step"], t["time_s"] - STARTED_S) for t in saved["troubles"]] == [
        ("set aside", 4, 537.0),
        ("not written", 6, 574.0),
        ("not written", 6, 576.0),
    ]
    assert "learner-0.bin is not as it was written" in saved["troubles"][0]["reason"]


def test_timeline_has_when_each_was_down(ended: RunStore) -> None:
    lanes = {lane["actor"]: lane for lane in timeline(ended, None, None, 4000)["lanes"]}
    down = {
        actor: [(bar["start"] - STARTED_S, bar["end"] - STARTED_S) for bar in lane["spans"] if bar["kind"] == "down"]
        for actor, lane in lanes.items()
    }
    assert {actor: spans for actor, spans in down.items() if spans} == {
        "learner-1": [(537.0, 567.0)],
        "sampler-0": [(576.0, 576.0)],
        "sampler-1": [(14.0, 20.0)],
        "reward-0": [(106.0, 111.0)],
    }
    labels = [bar["label"] for bar in lanes["controller"]["spans"] if bar["kind"] == "instant"]
    assert any(label.startswith("stall: no group was scored and no step trained for 400 s") for label in labels)
    assert any(label.startswith("checkpoint_set_aside: step-00000004") for label in labels)


def test_doctor_names_every_fault(folder: Path, ended: RunStore) -> None:
    found = {finding["rule"]: finding["severity"] for finding in doctor_page(ended)["findings"]}
    faults = {
        "run_ended_badly": "error",
        "restarts_nearly_used": "error",
        "checkpoint_not_written": "error",
        "steps_skipped": "error",
        "run_stalled": "warning",
        "checkpoint_set_aside": "warning",
        "grader_fails": "warning",
        "leases_given_up": "warning",
        "actors_restarted": "info",
        "late_results_refused": "info",
    }
    assert {rule: severity for rule, severity in found.items() if rule != "truncated"} == faults
    with run_lock(folder / "live"):
        live = open_store(folder / "live")
        found = {finding["rule"]: finding["severity"] for finding in doctor_page(live)["findings"]}
        live.close()
    changed = {"restarts_nearly_used": "warning", "checkpoint_not_written": "warning", "actors_down": "warning"}
    del faults["run_ended_badly"]
    assert {rule: severity for rule, severity in found.items() if rule != "truncated"} == {**faults, **changed}


class SlowLearner(FakeLearner):
    async def save(self, directory: str) -> None:  # type: ignore[override]
        await asyncio.sleep(60)


def test_a_save_that_hangs_is_told_as_one_that_was_not_written(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    checkpoints = Checkpoints(
        tmp_path,
        CheckpointConfig(deadline_s=0.05),
        warn=lambda text: None,
        on_not_written=lambda name, why: told.append((name, why)),
    )
    assert asyncio.run(checkpoints.save(fleet_of(learners=[SlowLearner([])]), state_at(7))) is None
    event = checkpoint_instant(Instant.CHECKPOINT_NOT_WRITTEN, *told[0])
    (trouble,) = troubles([span("instant", "controller", 9.0, 9.0, **event.extra)])
    assert (trouble.what, trouble.step, trouble.at_s) == ("not written", 7, 9.0)
    assert trouble.reason.startswith("save: learner-0 did not finish")


def test_a_last_save_that_hangs_is_told_while_it_does(tmp_path: Path) -> None:
    path = tmp_path / "run"
    faulty = FaultyRun(path, started_s=time.time() - 200.0, steps=2)
    faulty.sync()
    faulty.step()
    faulty.step()
    with run_lock(path):
        for silent_s, told in ((10.0, False), (95.0, True)):
            for file in path.glob("*.*"):
                os.utime(file, (time.time() - silent_s,) * 2)
            store = open_store(path)
            found = {finding["rule"]: finding["evidence"] for finding in doctor_page(store)["findings"]}
            store.close()
            assert ("last_checkpoint_hangs" in found) == told
    # On a busy machine a second more has passed.
    assert re.match(
        r"All 2 steps are done, and nothing was written for 9\d s; there is no", found["last_checkpoint_hangs"]
    )
    assert "given up after 600 s" in found["last_checkpoint_hangs"]


def test_what_a_stalled_run_says_last_is_told_though_nothing_follows(tmp_path: Path) -> None:
    """The doctor's answer is kept while nothing that it reads changes; an instant is news by itself."""
    path = tmp_path / "live"
    faulty = write_live(path)

    def stalls(served: Any) -> list[str]:
        findings = served.get("/api/runs/live/doctor")["findings"]
        return [finding["evidence"] for finding in findings if finding["rule"] == "run_stalled"]

    with run_lock(path), serving([tmp_path]) as served:
        wait_until(lambda: len(stalls(served)) == 1, "the first stall")
        assert "for 400 s" in stalls(served)[0]
        faulty.stall()
        wait_until(lambda: "It is stall number 2" in stalls(served)[0], "the second stall")
