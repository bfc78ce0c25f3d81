"""Files that are missing, broken or foreign: what there is is shown, what is wrong is said."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from cluster.dashboard.index import rollout_folder
from cluster.dashboard.index.ingest_rollouts import FileKey, insert_file
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


def with_components(path: Path, texts: list[str]) -> None:
    """The file with other components in its first rows."""
    table = pyarrow.parquet.read_table(path)
    column = [*texts, *table.column("components").to_pylist()[len(texts) :]]
    place = table.schema.get_field_index("components")
    pyarrow.parquet.write_table(table.set_column(place, "components", pyarrow.array(column)), path)


def test_names_and_numbers_that_no_index_holds_cost_nothing_but_themselves(run: RunDirectory, store: RunStore) -> None:
    path = run.path / "rollouts" / "step-000001.parquet"
    with_components(
        path, [r'{"\ud800": 0.25, "math": 1}', '{"math": 1' + "0" * 400 + ', "format": 0.5}', '{"\\u0000": 2}']
    )
    os.utime(run.path / "rollouts")
    store.refresh()
    assert store.problems() == ()
    assert store.num_rollouts() == 21
    found = [dict(row.components) for row in store.query("step=1", "", 0, 9).rows]
    for components in ({r"\ud800": 0.25, "math": 1.0}, {"format": 0.5}, {"\0": 2.0}):
        assert components in found
    assert store.query(r"reward.\ud800=0.25", "", 0, 9).total == 1


def test_what_cannot_be_indexed_costs_its_file_alone(
    run: RunDirectory, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:

    def insert_or_fail(connection: Any, key: FileKey, content: Any, *, version: int) -> None:
        insert_file(connection, key, content, version=version)  # some of it is there by then
        if key.name == "step-000001.parquet":
            "\ud800".encode()

    monkeypatch.setattr(rollout_folder, "insert_file", insert_or_fail)
    for name in ("step-000001.parquet", "step-000002.parquet"):
        os.utime(run.path / "rollouts" / name)
    os.utime(run.path / "rollouts")
    store.refresh()
    (problem,) = store.problems()
    assert problem.file == "rollouts/step-000001.parquet"
    assert problem.message.startswith("has a value that cannot be indexed: UnicodeEncodeError: 'utf-8' codec")
    assert store.table_steps("train") == [0, 2]
    assert store.query("step=1", "", 0, 9).total == 0
    assert store.progress().ready


def test_after_a_defect_the_next_refresh_begins_anew(
    run: RunDirectory, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patched:
        patched.setattr(rollout_folder, "insert_file", fail)
        os.utime(run.path / "rollouts" / "step-000001.parquet")
        os.utime(run.path / "rollouts")
        for _ in range(3):  # the same each time: whoever follows the run tells it once
            with pytest.raises(RuntimeError, match="a defect"):
                store.refresh()
    store.refresh()
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
