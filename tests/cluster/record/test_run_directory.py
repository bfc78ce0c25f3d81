"""The files of a run: what is written is read back, a resumed run has each step once, nothing is lost."""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from cluster.configuration.loading import load_config
from cluster.record import run_directory
from cluster.record.append_log import RunDirectoryError, RunWriteError, write_atomically
from cluster.record.run_directory import RunDirectory
from cluster.run_files import LOGS
from cluster.types import Event, EventKind, RunSummary
from reward.types import RewardOutcome
from rollout.types import FinishReason, VersionSpan
from tests.cluster.examples import completion, failed, ok, opened, scored, values_of


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs" / "a", load_config("tiny"))


def table(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def test_a_new_run_has_its_configuration(run: RunDirectory) -> None:
    assert run.read_config() == load_config("tiny")
    assert run.checkpoints_path.is_dir()
    assert run.read_summary() is None


def test_a_folder_with_something_in_it_is_refused(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="is a run that never began"):
        RunDirectory.create(run.path, load_config("tiny"))
    run.append_metrics(0, {"reward/mean": 1.0})
    with pytest.raises(RunDirectoryError, match="exists and is not empty; choose another name, or continue"):
        RunDirectory.create(run.path, load_config("tiny"))
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="is a file, where the run directory would be"):
        RunDirectory.create(tmp_path / "file", load_config("tiny"))
    with pytest.raises(RunDirectoryError, match="cannot make the run directory"):
        RunDirectory.create(tmp_path / "file" / "below", load_config("tiny"))
    with pytest.raises(RunDirectoryError, match=r"is no run: it has no config\.yaml"):
        RunDirectory.open(tmp_path / "absent")


def test_secrets_are_not_written(tmp_path: Path) -> None:
    config = load_config("tiny", ["task.params.api_key=hunter2hunter2"])
    run = RunDirectory.create(tmp_path / "a", config)
    assert "hunter2" not in (run.path / "config.yaml").read_text()
    assert run.read_config().task.model_dump()["params"]["api_key"] == "<redacted>"


def test_logs_are_read_back(run: RunDirectory) -> None:
    run.append_metrics(0, {"reward/mean": 0.5, "train/loss": float("nan")})
    run.append_evaluation(0, {"eval/pass_at_1": 0.25})
    run.append_ledger({"group_id": "000000-ab", "state": "consumed", "step": 0})
    run.append_event(Event(kind=EventKind.TRAIN, actor="learner-0", start_s=1.0, end_s=2.5, step=0, ids=("000000-ab",)))
    assert run.read_log("metrics") == [{"step": 0, "reward/mean": 0.5, "train/loss": None}]
    assert run.read_log("evaluations") == [{"step": 0, "eval/pass_at_1": 0.25}]
    assert run.read_log("ledger") == [{"group_id": "000000-ab", "state": "consumed", "step": 0}]
    assert run.read_log("events") == [
        {
            "kind": "train",
            "actor": "learner-0",
            "start_s": 1,
            "end_s": 2.5,
            "step": 0,
            "ids": ["000000-ab"],
            "extra": {},
        }
    ]


def test_rollouts_hold_everything_that_training_used(run: RunDirectory) -> None:
    samples = (completion(0, version=4), completion(1, text="lone \ud800", finish=FinishReason.LENGTH))
    group = scored(7, [ok(1.0), failed(RewardOutcome.ERROR)], samples)
    key = (group.group_id, 0)
    path = run.write_rollouts(5, [opened(group)], {key: 0.75}, {key: values_of([-0.5, -0.25], [-1.0, -2.0])})
    assert path.name == "step-000005.parquet"
    first, second = table(path)
    assert first == {
        "step": 5,
        "group_id": "000007-5f1c09be12aa03d4",
        "uid": "5f1c09be12aa03d4",
        "index": 7,
        "epoch": 0,
        "task": "sums",
        "sample_index": 0,
        "prompt_text": "1 + 2",
        "question": "1 + 2",
        "completion_text": "3",
        "ground_truth": "3",
        "prompt_token_ids": [1, 2, 3],
        "teacher_prompt_token_ids": [],
        "teacher": "",
        "token_ids": [10, 11],
        "rollout_logprobs": [-0.5, -0.5],
        "policy_logprobs": [-0.5, -0.25],
        "ref_logprobs": [-1.0, -2.0],
        "entropies": [],
        "teacher_logprobs": [],
        "loss_mask": [True, True],
        "advantage": 0.75,
        "reward": 1.0,
        "components": '{"math":1.0}',
        "outcome": "ok",
        "detail": "",
        "verdicts": None,
        "correct": True,
        "answer": None,
        "rejected": "",
        "finish_reason": "stop",
        "min_policy_version": 4,
        "max_policy_version": 4,
        "episode": None,
        "version_spans": "[[4, 0, 2]]",
        "attempt": 1,
        "worker": "sampler-0",
        "reward_worker": "reward-0",
        "score_s": 0.25,
        "steps": "null",
    }
    assert second["completion_text"] == "lone \\ud800"
    assert (second["reward"], second["advantage"], second["correct"]) == (None, None, None)
    assert (second["outcome"], second["detail"], second["finish_reason"]) == ("error", "took too long", "length")
    assert second["policy_logprobs"] == []


def test_evaluation_rollouts_and_mixed_versions(run: RunDirectory) -> None:
    sample = completion(0, num_tokens=3)
    spans = (VersionSpan(policy_version=2, start=0, end=1), VersionSpan(policy_version=3, start=1, end=3))
    mixed = type(sample)(**{name: getattr(sample, name) for name in sample.__slots__} | {"version_spans": spans})
    path = run.write_eval_rollouts(4, [opened(scored(0, [ok(0.0)], [mixed]))])
    assert path.name == "eval-000004.parquet"
    (row,) = table(path)
    assert (row["min_policy_version"], row["max_policy_version"]) == (2, 3)
    assert row["version_spans"] == "[[2, 0, 1], [3, 1, 3]]"


def test_an_output_for_a_completion_that_is_not_there_is_a_defect(run: RunDirectory) -> None:
    group = scored(0, [ok(1.0)])
    with pytest.raises(AssertionError, match="not in the batch"):
        run.write_rollouts(0, [opened(group)], {}, {(group.group_id, 3): values_of([-0.5, -0.5])})


def fill(run: RunDirectory, steps: range) -> None:
    for step in steps:
        run.append_metrics(step, {"reward/mean": step / 10})
        run.append_event(Event(kind=EventKind.TRAIN, actor="learner-0", start_s=step, end_s=step + 1, step=step))
        run.append_event(Event(kind=EventKind.GENERATE, actor="sampler-0", start_s=step, end_s=step + 1))
        run.append_ledger({"group_id": f"g{step}", "state": "consumed", "step": step})
        run.write_rollouts(step, [opened(scored(step, [ok(1.0)]))])
        if step % 2 == 1:
            run.append_evaluation(step + 1, {"eval/pass_at_1": 0.5})
            run.write_eval_rollouts(step + 1, [opened(scored(step, [ok(1.0)]))])


def summary(**changes: Any) -> RunSummary:
    values: dict[str, Any] = {
        "status": "finished",
        "num_steps": 5,
        "policy_version": 5,
        "weights_digest": "ab12",
        "accuracy_before": None,
        "accuracy_after": 0.5,
        "wall_s": 61.0,
        "groups_dispatched": 10,
        "groups_trained": 8,
        "groups_rejected": {"too_old": 1},
        "groups_in_flight": 1,
    }
    return RunSummary(**values | changes)


def test_a_resumed_run_has_one_line_for_each_step_and_loses_none(run: RunDirectory) -> None:
    fill(run, range(5))
    run.write_summary(summary())
    resumed = RunDirectory.open(run.path)
    resumed.rewind(2)
    assert [line["step"] for line in resumed.read_log("metrics")] == [0, 1]
    assert [line["step"] for line in resumed.read_log("evaluations")] == [2]
    assert sorted(path.name for path in (run.path / "rollouts").iterdir()) == [
        "eval-000002.parquet",
        "step-000000.parquet",
        "step-000001.parquet",
    ]
    assert resumed.read_summary() is None
    fill(resumed, range(2, 5))
    assert [line["step"] for line in resumed.read_log("metrics")] == [0, 1, 2, 3, 4]
    old = run.path / "superseded" / "000"
    assert [json.loads(line)["step"] for line in (old / "metrics.jsonl").read_text().splitlines()] == [2, 3, 4]
    assert {path.name for path in old.glob("*.parquet")} == {
        "eval-000004.parquet",
        "step-000002.parquet",
        "step-000003.parquet",
        "step-000004.parquet",
    }
    assert (old / "summary.json").is_file()
    resumed.rewind(4)
    assert (run.path / "superseded" / "001" / "metrics.jsonl").read_text() == '{"step":4,"reward/mean":0.4}\n'


def test_lines_without_a_step_stay_unless_the_checkpoint_knows_where_to_cut(run: RunDirectory) -> None:
    fill(run, range(2))
    sizes = run.sizes()
    fill(run, range(2, 4))
    everything = {name: run.log_path(name).read_bytes() for name in LOGS}
    run.rewind(2, {"ledger": sizes["ledger"]})
    counts = Counter(line["kind"] for line in run.read_log("events"))
    assert counts == {"train": 2, "generate": 4}, "without the size of events.jsonl, only spans with a step go"
    run.rewind(2, sizes)
    assert Counter(line["kind"] for line in run.read_log("events"))["generate"] == 2
    kept, gone = run.log_path("ledger").read_bytes(), (run.path / "superseded/000/ledger.jsonl").read_bytes()
    assert kept + gone == everything["ledger"]
    assert len(kept) == sizes["ledger"]


def test_a_log_that_began_after_the_checkpoint_goes_whole(run: RunDirectory) -> None:
    """As of a run that was stopped in its first step: nothing of it is kept, lines without a step included."""
    sizes = run.sizes()
    assert sizes == dict.fromkeys(LOGS, 0)
    run.append_ledger({"group_id": "000000-a", "state": "leased", "attempt": 1})
    run.rewind(0, sizes)
    assert run.read_log("ledger") == []


class KilledError(BaseException):
    """Stands for a SIGKILL: nothing that the code does after it counts."""


def test_a_rewind_that_is_killed_is_done_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume may be killed too: whatever it came to, the next one ends with the same files, and nothing is lost."""

    def files_after(name: str, deadly: int) -> tuple[dict[str, bytes], int]:
        calls = itertools.count()

        def unless_killed(act: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                if next(calls) == deadly:
                    raise KilledError
                return act(*args)

            return call

        run = RunDirectory.create(tmp_path / name, load_config("tiny"))
        fill(run, range(2))
        sizes = run.sizes()
        fill(run, range(2, 4))
        before = {log: run.log_path(log).read_bytes() for log in LOGS}
        with monkeypatch.context() as patched:
            patched.setattr(run_directory, "write_atomically", unless_killed(write_atomically))
            patched.setattr(Path, "rename", unless_killed(Path.rename))
            try:
                run.rewind(2, sizes)
            except KilledError:
                patched.undo()
                RunDirectory.open(run.path).rewind(2, sizes)
        for log, data in before.items():
            gone = [path.read_bytes() for path in sorted(run.path.glob(f"superseded/*/{log}.jsonl"))]
            assert run.log_path(log).read_bytes() + (gone[0] if gone else b"") == data
        tables = {str(path.relative_to(run.path)): path.read_bytes() for path in run.path.glob("rollouts/*")}
        return tables | {log: run.log_path(log).read_bytes() for log in LOGS}, next(calls)

    whole, num_writes = files_after("whole", -1)
    assert num_writes > 8
    for deadly in range(num_writes):
        assert files_after(f"killed-{deadly}", deadly)[0] == whole


def test_rewinding_to_the_end_changes_nothing(run: RunDirectory) -> None:
    fill(run, range(2))
    run.rewind(2)
    assert not (run.path / "superseded").exists()


def test_a_torn_line_does_not_join_the_next_one(run: RunDirectory) -> None:
    run.append_metrics(0, {})
    with run.log_path("metrics").open("a") as file:
        file.write('{"step":1,"rew')
    resumed = RunDirectory.open(run.path)
    resumed.append_metrics(1, {})
    assert resumed.read_log("metrics") == [{"step": 0}, {"step": 1}]
    assert (run.path / "superseded/000/metrics.jsonl").read_text() == '{"step":1,"rew'


def test_summary_is_read_back_and_accounts_for_every_group(run: RunDirectory) -> None:
    run.write_summary(summary())
    assert run.read_summary() == summary()
    assert summary().unaccounted_groups() == 0
    assert summary(groups_trained=7).unaccounted_groups() == 1


def test_a_full_disk_while_writing_rollouts_says_so(run: RunDirectory) -> None:
    (run.path / "rollouts" / ".step-000000.parquet.tmp").symlink_to("/dev/full")
    with pytest.raises(RunWriteError, match=r"cannot write .*step-000000.parquet: No space left on device"):
        run.write_rollouts(0, [opened(scored(0, [ok(1.0)]))])
    assert list((run.path / "rollouts").glob("step-*.parquet")) == []
