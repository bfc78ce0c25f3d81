"""The index: kept, removed or made elsewhere; made in slices; without what is heavy."""

import shutil
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.dashboard.index.store import RunStore
from tests.cluster.dashboard.million_run import write_run
from tests.cluster.dashboard.small_run import add_step, group, make_run
from tests.cluster.examples import opened


def test_the_index_is_kept_removed_or_made_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = RunStore(run.path)
    first.refresh()
    second = RunStore(run.path)  # another dashboard of the same run
    second.refresh()
    assert second.num_rollouts() == first.num_rollouts() == 21
    assert len(list((tmp_path / "cache").rglob("dashboard.sqlite"))) == 1
    second.close()
    first.close()
    again = RunStore(run.path)
    assert again.refresh() == {"config", "summary", "vocabulary", "metrics", "evaluations"}  # nothing is indexed anew
    assert again.num_rollouts() == 21
    again.close()
    index = run.path / ".index" / "dashboard.sqlite"
    for damage in (b"not a database", index.read_bytes()[:5000], b""):
        for file in index.parent.glob("dashboard.sqlite*"):
            file.unlink()
        index.write_bytes(damage)
        store = RunStore(run.path)
        store.refresh()
        assert store.num_rollouts() == 21
        store.close()
    connection = sqlite3.connect(index)
    connection.execute("pragma user_version = 1")
    connection.close()
    store = RunStore(run.path)
    assert "rollouts" in store.refresh()
    store.close()


def test_indexing_in_slices(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 4096)
    store = RunStore(tmp_path / "run")
    done: list[int] = []
    while not store.progress().ready or not done:
        store.refresh(max_s=0.0)
        done.append(store.progress().files_done)
    assert done[0] < 8
    assert (done[-1], store.num_rollouts()) == (8, 4096)
    assert store.table_steps("train")[0] == 0
    store.close()


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 600)
    code = (
        "import sys; from pathlib import Path; from cluster.dashboard.index.store import RunStore\n"
        "store = RunStore(Path(sys.argv[1])); store.refresh(); page = store.query('reward<1 & \"the\"', '-gap', 0, 5)\n"
        "assert page.total > 100; assert len(store.group(page.rows[0].address)) == 8\n"
        "print([m for m in ('pandas', 'ray', 'torch', 'vllm', 'transformers', 'deepspeed') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_an_index_that_somebody_removes_is_made_anew(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    store = RunStore(run.path)
    store.refresh()
    shutil.rmtree(run.path / ".index")
    assert store.refresh() == {"events", "ledger", "rollouts"}
    assert store.query("correct", "", 0, 5).total == 7
    store.close()


def test_many_threads_ask_while_the_run_is_indexed(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 8192)
    store = RunStore(tmp_path / "run")
    totals: list[int] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            totals.append(store.query("question~1 & therefore | uid~3", "question", 0, 5).total)
            store.step_rows("train", 3)
            store.prompt_stats("hardest", 3)
            store.ledger_anomalies()

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask) for _ in range(8)]
        while not store.progress().ready or not store.num_rollouts():
            store.refresh(max_s=0.01)
        done.set()
        for one in asked:
            one.result(timeout=60)
    assert store.query("question~1 & therefore | uid~3", "question", 0, 5).total >= max(totals) > 0
    store.close()


def test_the_folder_of_a_run_that_was_removed_is_not_made_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    store = RunStore(run.path)
    store.refresh()
    shutil.rmtree(run.path)
    store.refresh()
    store.refresh()
    assert not run.path.exists()
    store.close()
    assert not run.path.exists()


def test_a_text_is_found_again_after_the_index_was_made_anew(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_step(run, 3)
    store = RunStore(run.path)
    store.refresh()
    assert store.query('"answer is"', "", 0, 5).total == 18
    store.query('"<script>"', "", 0, 5)
    (run.path / "rollouts" / "step-000000.parquet").unlink()
    run.write_rollouts(0, [opened(group(0))])  # other files, in another order: other lengths behind the same ids
    shutil.rmtree(run.path / ".index")
    store.refresh()
    assert store.query('"answer is"', "", 0, 5).total == 16
    assert store.query('"<script>"', "", 0, 5).total == 8
    store.close()
