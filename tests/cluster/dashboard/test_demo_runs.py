"""Demo runs: what is written is a run, the same one for the same seed, with its fault and no other."""

import json
import math
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow.parquet
import pytest

from cluster.dashboard.index.store import RunStore
from cluster.dashboard.views.timeline import timeline
from cluster.record.run_directory import RunDirectory
from cluster.record.run_lock import is_locked
from learner.saving.files import published, verify_manifest
from tests.cluster.dashboard.demo_faults import Kind, fault_step
from tests.cluster.dashboard.demo_runs import main, write_demo_run
from tests.cluster.dashboard.demo_text import PIECES, decode

STEPS = 16


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo(tmp_path_factory.mktemp("demo"), "healthy")


def demo(folder: Path, kind: Kind, *, seed: int = 0, steps: int = STEPS) -> Path:
    path = folder / kind
    write_demo_run(path, kind=kind, seed=seed, steps=steps)
    return path


def rows(path: Path, step: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pyarrow.parquet.read_table(path / f"rollouts/step-{step:06d}.parquet").to_pylist()
    return found


def metrics(path: Path) -> list[dict[str, Any]]:
    return RunDirectory(path).read_log("metrics")


def test_it_is_a_whole_run_that_was_stopped_once_and_resumed(healthy: Path) -> None:
    run = RunDirectory(healthy)
    assert [line["step"] for line in metrics(healthy)] == list(range(STEPS))
    assert [line["step"] for line in run.read_log("evaluations")] == [0, 4, 8, 12, 16]
    taken_back = (healthy / "superseded/000/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in taken_back] == [8, 9]
    assert [event["extra"]["name"] for event in run.read_log("events") if event["kind"] == "instant"] == ["resumed"]
    checkpoints = published(healthy / "checkpoints")
    assert [path.name for path in checkpoints] == ["step-00000012", "step-00000016"]
    for path in checkpoints:
        verify_manifest(path)
    summary = run.read_summary()
    assert summary is not None
    assert (summary.status, summary.num_steps, summary.unaccounted_groups()) == ("finished", STEPS, 0)
    assert run.read_config().rollout.num_engines == 2


def test_on_its_timeline_the_step_after_the_stop_took_what_its_metrics_say(healthy: Path, tmp_path: Path) -> None:
    store = RunStore(healthy, index_path=tmp_path / "index")
    store.refresh()
    answer = timeline(store, None, None, 4000)
    store.close()
    (stop,) = answer["stops"]
    assert stop["end"] - stop["start"] > 60  # the two steps that it took back, and 40 s of rest
    took = {step["step"]: step["end"] - step["start"] for step in answer["steps"]}
    assert took[8] == pytest.approx(metrics(healthy)[8]["time/step_s"], abs=0.5)
    assert max(took.values()) < 25
    assert max(path["end"] - path["start"] for path in answer["critical"]) < 25
    assert sum(row["seconds"] for row in answer["waits"] if row["actor"] == "learner-0") < sum(took.values()) / 2


def test_every_group_of_the_ledger_is_in_the_table_of_its_step(healthy: Path) -> None:
    last = {line["group_id"]: line for line in RunDirectory(healthy).read_log("ledger")}
    assert Counter(line["state"] for line in last.values())["consumed"] == 12 * STEPS
    assert {line["state"] for line in last.values()} == {"consumed", "rejected"}
    for step in range(STEPS):
        in_table = {row["group_id"] for row in rows(healthy, step) if row["advantage"] is not None}
        assert in_table == {group_id for group_id, line in last.items() if line.get("step") == step}


def test_metrics_follow_from_the_rollouts(healthy: Path) -> None:
    line, found = metrics(healthy)[3], [row for row in rows(healthy, 3) if row["advantage"] is not None]
    assert len(found) == 96
    assert line["reward/mean"] == pytest.approx(mean(row["reward"] for row in found if row["reward"] is not None))
    gaps = [
        p - r for row in found for p, r in zip(row["policy_logprobs"], row["rollout_logprobs"], strict=True)
    ]  # fmt: skip
    assert line["train/kl_rollout"] == pytest.approx(mean(math.expm1(gap) - gap for gap in gaps), rel=1e-3)
    assert line["train/max_abs_log_ratio"] == pytest.approx(max(map(abs, gaps)), rel=1e-4)
    assert line["train/entropy"] == pytest.approx(mean(e for row in found for e in row["entropies"]), rel=1e-4)


def test_tokens_are_the_text(healthy: Path) -> None:
    assert json.loads((healthy / "vocabulary.json").read_text()) == {"pieces": PIECES}
    for row in rows(healthy, 5):
        assert decode(row["token_ids"]) == row["completion_text"]
        assert len(row["token_ids"]) == len(row["rollout_logprobs"])
        if row["correct"]:
            assert row["answer"] == row["ground_truth"]


def test_the_seed_decides_everything(healthy: Path, tmp_path: Path) -> None:
    again, other = demo(tmp_path / "a", "healthy"), demo(tmp_path / "b", "healthy", seed=1, steps=4)
    for name in ("metrics.jsonl", "events.jsonl", "ledger.jsonl", "rollouts/step-000007.parquet"):
        assert (again / name).read_bytes() == (healthy / name).read_bytes()
    assert (other / "metrics.jsonl").read_bytes() != (healthy / "metrics.jsonl").read_bytes()


def test_entropy_collapse(healthy: Path, tmp_path: Path) -> None:
    sick, well = metrics(demo(tmp_path, "entropy_collapse")), metrics(healthy)
    assert sick[-1]["train/entropy"] < 0.1 * sick[0]["train/entropy"] < 0.3 * well[-1]["train/entropy"]
    assert sick[-1]["rollout/completion_tokens_mean"] < 0.7 * well[-1]["rollout/completion_tokens_mean"]
    assert mean(line["reward/equal_groups_fraction"] for line in sick[-3:]) > 0.7


def test_stale_weights(tmp_path: Path) -> None:
    path, at = demo(tmp_path, "stale_weights"), fault_step(STEPS)
    lines = metrics(path)
    assert lines[at - 1]["train/kl_rollout"] < 5e-4
    assert min(line["train/kl_rollout"] for line in lines[at:]) > 5e-3
    versions = {row["worker"]: row["max_policy_version"] for row in rows(path, STEPS - 1)}
    assert versions == {"sampler-0": STEPS - 1, "sampler-1": at - 1}
    gaps: dict[str, list[float]] = {"sampler-0": [], "sampler-1": []}
    for row in (row for row in rows(path, at) if row["advantage"] is not None):
        gaps[row["worker"]] += [
            abs(p - r) for p, r in zip(row["policy_logprobs"], row["rollout_logprobs"], strict=True)
        ]
    assert mean(gaps["sampler-1"]) > 10 * mean(gaps["sampler-0"])


def test_broken_grader(healthy: Path, tmp_path: Path) -> None:
    path = demo(tmp_path, "broken_grader")
    failed = Counter(row["outcome"] for step in range(fault_step(STEPS), STEPS) for row in rows(path, step))
    assert failed["error"] > 0.1 * failed.total()
    assert failed["timeout"] >= 5
    before = sum(metrics(path)[3][f"reward/outcome_{name}"] for name in ("error", "timeout"))
    assert before <= 1
    judged: dict[tuple[str, str], set[bool]] = {}
    for row in rows(path, STEPS - 1):
        if row["correct"] is not None and row["answer"] is not None:
            judged.setdefault((row["group_id"], row["answer"]), set()).add(row["correct"])
    assert sum(len(verdicts) == 2 for verdicts in judged.values()) >= 2
    # What is asked and answered is that of the healthy run: the fault is in the grader alone.
    assert metrics(path)[2]["rollout/completion_tokens"] == metrics(healthy)[2]["rollout/completion_tokens"]


def test_slow_sampler(tmp_path: Path) -> None:
    path = demo(tmp_path, "slow_sampler")
    lines, at = metrics(path), fault_step(STEPS)
    assert lines[at]["time/wait_s"] > 1.8 * lines[at - 1]["time/wait_s"]
    assert lines[at]["time/train_s"] == pytest.approx(lines[at - 1]["time/train_s"], rel=0.2)
    trained = {row["group_id"] for row in rows(path, at + 1)}
    took: dict[str, list[float]] = {"sampler-0": [], "sampler-1": []}
    for event in RunDirectory(path).read_log("events"):
        if event["kind"] == "generate" and event["ids"][0] in trained:
            took[event["actor"]].append((event["end_s"] - event["start_s"]) / event["extra"]["tokens"])
    assert mean(took["sampler-1"]) > 2.5 * mean(took["sampler-0"])


def test_a_live_run_grows_while_its_writer_holds_the_lock(tmp_path: Path) -> None:
    arguments = [str(tmp_path), "--kind", "healthy", "--steps", "3", "--live", "0.3"]
    began = time.time()
    writer = threading.Thread(target=main, args=(arguments,))
    writer.start()
    lengths = set()
    while writer.is_alive():
        events = tmp_path / "healthy/events.jsonl"
        if events.exists() and is_locked(tmp_path / "healthy"):
            lengths.add(len(events.read_bytes()))
        time.sleep(0.05)
    writer.join()
    assert len(lengths) >= 4
    assert is_locked(tmp_path / "healthy") is False
    spans = RunDirectory(tmp_path / "healthy").read_log("events")
    assert began - 1 < min(span["start_s"] for span in spans)
    assert 0.9 < max(span["end_s"] for span in spans) - min(span["start_s"] for span in spans) < 60
