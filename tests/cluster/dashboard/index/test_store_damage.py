"""Files that are missing, broken or foreign: what there is is shown, what is wrong is said."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from cluster.dashboard.index.store import RunStore
from cluster.record.run_directory import RunDirectory
from tests.cluster.dashboard.small_run import make_run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return make_run(tmp_path / "runs" / "a")


@pytest.fixture
def store(run: RunDirectory) -> Iterator[RunStore]:
    store = RunStore(run.path)
    store.refresh()
    yield store
    store.close()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no table at all", "truncated", "foreign"])
def test_a_broken_rollouts_file_is_named_and_tried_again(
    run: RunDirectory, store: RunStore, content: bytes | str
) -> None:
    path = run.path / "rollouts" / "step-000001.parquet"
    whole = path.read_bytes()
    if content == "foreign":
        pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), path)
    else:
        path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    os.utime(run.path / "rollouts")
    store.refresh()
    assert [problem.file for problem in store.problems()] == ["rollouts/step-000001.parquet"]
    assert store.table_steps("train") == [0, 2]
    assert store.progress().ready
    path.write_bytes(whole)
    assert "rollouts" in store.refresh()
    assert store.problems() == ()
    assert store.num_rollouts() == 21


def test_an_older_table_without_answers_and_with_other_columns(run: RunDirectory, store: RunStore) -> None:
    path = run.path / "rollouts" / "step-000001.parquet"
    table = pyarrow.parquet.read_table(path)
    keep = [name for name in table.column_names if name in ("group_id", "sample_index", "completion_text", "reward")]
    pyarrow.parquet.write_table(table.select(keep).append_column("new", [[1] * len(table)]), path)
    os.utime(run.path / "rollouts")
    store.refresh()
    row = store.step_rows("train", 1)[0]
    assert (row.reward, row.answer, row.length, row.uid, row.correct, row.lag) == (1.0, "3", 0, "", None, None)
    assert len(store.group(row.address)) == 3


def test_no_files_at_all_and_every_file_missing(tmp_path: Path, run: RunDirectory) -> None:
    empty = RunStore(tmp_path / "nothing", index_path=tmp_path / "index.sqlite")
    empty.refresh()
    assert [problem.message for problem in empty.problems()] == ["is missing"]
    assert (empty.status(), empty.config(), empty.extent_s(), empty.actor_stats()) == ("stopped", None, None, [])
    assert empty.query("reward<1", "-gap", 0, 10).total == 0
    assert empty.step_rows("train", 0) == []
    empty.close()
    for name in ("config.yaml", "metrics.jsonl", "evaluations.jsonl", "events.jsonl", "ledger.jsonl"):
        (run.path / name).unlink()
    shutil.rmtree(run.path / "checkpoints")
    store = RunStore(run.path)
    store.refresh()
    assert store.num_rollouts() == 21
    assert store.ledger_anomalies()["trained_without_consumption"] == 6
    store.close()


@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "vocabulary.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b"[1, 2]", b"a: [" * 500, b"[" * 100_000])
def test_broken_small_files(run: RunDirectory, store: RunStore, name: str, content: bytes) -> None:
    (run.path / name).write_bytes(content)
    store.refresh()
    assert [problem.file for problem in store.problems()] == [name]
    assert (store.vocabulary(), store.summary()) == (None, None)


def test_lines_that_make_no_sense_are_problems(run: RunDirectory, store: RunStore) -> None:
    for name in ("events", "ledger", "metrics", "evaluations"):
        with (run.path / f"{name}.jsonl").open("a") as file:
            file.write('{"kind": 3, "group_id": null, "step": "x"}\n{{\n{"torn": ')
    store.refresh()
    files = [problem.file for problem in store.problems()]
    assert sorted(files) == sorted(
        f"{name}.jsonl" for name in ("events", "ledger", "metrics", "evaluations") for _ in "ab"
    )
    assert store.ledger_counts()["consumed"] == 6


def test_links_out_of_the_run_are_not_followed(run: RunDirectory, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.move(run.path / "rollouts", outside)
    (run.path / "rollouts").symlink_to(outside)
    shutil.move(run.path / "metrics.jsonl", tmp_path / "metrics.jsonl")
    (run.path / "metrics.jsonl").symlink_to(tmp_path / "metrics.jsonl")
    store = RunStore(run.path)
    store.refresh()
    assert (store.num_rollouts(), store.metrics().steps) == (0, [])
    store.close()
