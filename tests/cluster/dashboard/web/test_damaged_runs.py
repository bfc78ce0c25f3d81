"""Every file of a run, damaged in every way, before the dashboard opens it and while it has it open: each address
answers, what is intact is shown, and what is not is named."""

import contextlib
import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.dashboard.files.encoding import encode
from cluster.dashboard.index.store import RunStore
from cluster.dashboard.views.runs import RunInfos
from cluster.dashboard.web.endpoints import Asked, Download, endpoint_of
from cluster.dashboard.web.open_run import OpenRun
from cluster.dashboard.web.params import RequestError
from tests.cluster.dashboard import damage
from tests.cluster.dashboard.damage import (
    CHECKPOINT,
    DAMAGE,
    EVALUATION,
    FILES,
    FOLDER_DAMAGE,
    FOLDERS,
    MANIFEST,
    TABLE,
)
from tests.cluster.dashboard.served import serving, wait_until
from tests.cluster.dashboard.small_runs import write_run, write_step

CASES = [(file, kind) for file in FILES for kind in DAMAGE]
FOLDER_CASES = [(folder, kind) for folder in FOLDERS for kind in FOLDER_DAMAGE]
STEP_ROWS, EVALUATION_ROWS = 8, 4
ALL_ROWS = 3 * STEP_ROWS + 2 * EVALUATION_ROWS


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("whole") / "run"
    damage.make_whole_run(path)
    return path


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    shutil.copytree(whole, tmp_path / "run", symlinks=True)
    (tmp_path / "outside").mkdir()
    return tmp_path / "run"


def hurt(run: Path, name: str, kind: str) -> None:
    if kind == "unreadable" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    kinds = FOLDER_DAMAGE if name in FOLDERS else DAMAGE
    kinds[kind](run / name, run.parent / "outside")


def answers(store: RunStore) -> dict[str, Any]:
    """Address -> answer, as the server would send it, None for a 404. Anything that a view raises fails the test, as it
    would be a 500."""
    opened = OpenRun(name="run", path=store.path, revision=1, store=store)
    found: dict[str, Any] = {}
    for address, key in damage.addresses().items():
        path, _, query = address.partition("?")
        matched = endpoint_of(path.split("/") if path else [])
        assert matched is not None
        endpoint, parts = matched
        values = dict(pair.split("=") for pair in query.split("&")) if query else {}
        try:
            answer = endpoint.view(Asked(run=opened, store=store, parts=parts, values=values))
            assert not isinstance(answer, Download)
            found[address] = answer if isinstance(answer, dict) else json.loads("".join(answer))
        except RequestError as error:
            if error.status != 404:
                raise
            found[address] = None
        else:
            assert key in found[address]
            encode(found[address])
    return found


def named(found: dict[str, Any]) -> set[str]:
    """The files that the frame names as damaged or missing."""
    return {problem["file"] for problem in found[""]["problems"]}


def is_harmless(name: str, kind: str) -> bool:
    """Whether a user misses nothing, so that nothing need be said."""
    if name in damage.UNREAD:
        return True
    if kind == "missing":
        return name in damage.OPTIONAL
    return kind == "foreign" and name in ("summary.json", "config.yaml")  # another version's: shown as it is


def check(run: Path, name: str, kind: str, found: dict[str, Any]) -> None:
    """What is intact is shown, what is not is named, and nothing else is."""
    wanted = CHECKPOINT if name == MANIFEST else name
    if is_harmless(name, kind):
        assert named(found) == set()
    elif name == "rollouts" and kind == "missing":
        assert named(found) == {"rollouts/step-000000.parquet", EVALUATION}
    elif name == "rollouts":
        assert named(found) >= {"rollouts"}
    else:
        assert named(found) == {wanted}
    gone = {TABLE: STEP_ROWS, EVALUATION: EVALUATION_ROWS, "rollouts": ALL_ROWS}.get(name, 0)
    rows = ALL_ROWS - gone
    if name in (TABLE, EVALUATION) and rows != found[""]["info"]["num_rollouts"]:
        assert kind == "random within", "only where the bytes that were hit are not those of a column that is read"
    else:
        assert found[""]["info"]["num_rollouts"] == rows
    if name not in (TABLE, "rollouts"):
        assert found["steps"]["steps"] == [0, 1, 2]
        assert all(found[address] is not None for address in found if address.startswith(("steps/train", "groups/tr")))
    elif name == TABLE and kind != "random within":
        assert found["steps"]["steps"] == [0, 2]
        assert found["steps/train/1"] is None
        assert found["steps/train/2"]["groups"][0]["reward_mean"] == 0.5
    if name != "metrics.jsonl":
        assert found["metrics?names=reward/mean"]["x"]["step"] == [0, 1, 2]
    if name != "events.jsonl":
        assert found["timeline"]["extent"] is not None
    if name != "ledger.jsonl":
        assert found["ledger"]["counts"]["consumed"] == 6
    if name != "config.yaml":
        assert found["config"]["config"]["steps"] == 5
    elif kind == "foreign":
        assert found["config"]["note"]


@pytest.fixture(autouse=True)
def ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run of a minute ago is taken for a live one where its lock is missing."""
    monkeypatch.setattr("cluster.dashboard.files.liveness.LIVE_S", 0.0)


def test_a_whole_run_has_no_problems(run: Path) -> None:
    store = RunStore(run)
    store.refresh()
    found = answers(store)
    store.close()
    assert named(found) == set()
    assert [address for address, answer in found.items() if answer is None] == []
    assert found[""]["info"]["num_rollouts"] == ALL_ROWS


@pytest.mark.parametrize(("name", "kind"), CASES + FOLDER_CASES)
def test_damaged_before_it_is_opened(run: Path, name: str, kind: str) -> None:
    hurt(run, name, kind)
    encode(RunInfos().info("run", run))  # the list of runs, which opens none
    store = RunStore(run)
    store.refresh()
    found = answers(store)
    store.close()
    check(run, name, kind, found)


# Of a log that only ever grows, bytes that change while its size stays are not looked for: what was read, is kept.
GROWN = [(name, "random within") for name in FILES if name.endswith(".jsonl")]


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES + FOLDER_CASES if case not in GROWN])
def test_damaged_while_it_is_open_and_healed(run: Path, name: str, kind: str, tmp_path: Path) -> None:
    store = RunStore(run)
    store.refresh()
    before = answers(store)
    shutil.copytree(run, tmp_path / "kept", symlinks=True)
    hurt(run, name, kind)
    os.utime(run / "rollouts") if (run / "rollouts").is_dir() else None
    answers(store)  # between the damage and the next look at the files
    store.refresh()
    found = answers(store)
    check(run, name, kind, found)
    for folder in ("rollouts", "checkpoints", "tensorboard"):
        remove(run / folder)
        shutil.copytree(tmp_path / "kept" / folder, run / folder)
    remove(run / name) if name not in FOLDERS and "/" not in name else None
    shutil.copytree(tmp_path / "kept", run, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".index"))
    store.refresh()
    after = answers(store)
    store.close()
    assert named(after) == set()
    assert after["overview"] == before["overview"]
    assert after["ledger"] == before["ledger"]


@contextlib.contextmanager
def held(run: Path) -> Iterator[None]:
    """As long as this lasts, somebody writes the run."""
    with (run / damage.RUN_LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.chmod(0o755)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def test_over_http_a_damaged_run_answers_and_hides_no_other(tmp_path: Path) -> None:
    """Every file of a run at once, with the server's own threads; the run beside it is as it was."""
    damage.make_whole_run(tmp_path / "runs" / "ill")
    write_run(tmp_path / "runs" / "well")
    for name in FILES:
        (tmp_path / "runs" / "ill" / name).write_bytes(b"\x00\xff{[\n" * 100)
    (tmp_path / "runs" / "ill" / "config.yaml").write_bytes(b"[" * 60_000)
    with serving([tmp_path / "runs"]) as server:
        infos = {info["run"]: info for info in server.get("/api/runs")["runs"]}
        assert (infos["ill"]["step"], infos["well"]["step"]) == (0, 3)
        for address in damage.addresses():
            reply = server.ask(f"/api/runs/ill/{address}".rstrip("/"))
            assert reply.status in (200, 404), (address, reply.body)
            assert server.ask(f"/api/runs/well/{address}".rstrip("/")).status == 200
        assert server.ask("/api/compare?runs=ill,well").status == 200
        frame = server.get("/api/runs/ill")
        named = {problem["file"] for problem in frame["problems"]}
        unread = {*damage.UNREAD, MANIFEST}
        assert named == {name for name in FILES if name not in unread} | {CHECKPOINT}
        assert frame["doctor"]["warning"] + frame["doctor"]["error"] >= 1


def test_a_run_that_is_written_in_halves_of_lines(tmp_path: Path) -> None:
    """Half a line, a look, the other half: nobody ever sees half a step, a problem, or the same step twice."""
    run = write_run(tmp_path / "runs" / "live", num_steps=1, finished=False)
    shutil.copytree(run.path, tmp_path / "whole")
    whole = type(run)(tmp_path / "whole")
    for step in range(1, 4):
        write_step(whole, step)
    seen: list[dict[str, Any]] = []
    with held(run.path), serving([tmp_path / "runs"]) as server, server.events("/api/stream?run=live"):
        writer = threading.Thread(target=write_slowly, args=(whole.path, run.path))
        writer.start()
        while writer.is_alive():
            seen.append(server.get("/api/runs/live") | {"rows": server.get("/api/runs/live/rollouts?limit=1")["total"]})
        writer.join()
        wait_until(lambda: server.get("/api/runs/live")["info"]["step"] == 4, "all lines are read")
        last = server.get("/api/runs/live")
        assert last["problems"] == []
        assert last["info"]["num_rollouts"] == 4 * STEP_ROWS + EVALUATION_ROWS
        assert last["scrubber"]["steps"] == [0, 1, 2, 3]
        assert server.get("/api/runs/live/ledger")["counts"]["consumed"] == 8
        lanes = server.get("/api/runs/live/timeline")["lanes"]
        assert sum(span.get("count", 1) for lane in lanes for span in lane["spans"] if span["kind"] == "train") == 4
    assert len(seen) > 5
    logs = [problem for frame in seen for problem in frame["problems"] if problem["file"].endswith(".jsonl")]
    assert logs == []
    steps = [frame["info"]["step"] for frame in seen]
    assert steps == sorted(steps)
    assert {frame["rows"] % STEP_ROWS for frame in seen} == {EVALUATION_ROWS}, "a table is shown whole or not at all"


def write_slowly(source: Path, target: Path) -> None:
    """What `source` has more than `target`, in pieces that end anywhere: first the tables, in place, then the logs."""
    for table in sorted((source / "rollouts").iterdir()):
        if not (target / "rollouts" / table.name).exists():
            append(target / "rollouts" / table.name, table.read_bytes(), parts=4)
    for name in ("ledger", "events", "metrics"):
        data = (source / f"{name}.jsonl").read_bytes()
        append(target / f"{name}.jsonl", data[(target / f"{name}.jsonl").stat().st_size :], parts=9)


def append(path: Path, data: bytes, parts: int) -> None:
    size = -(-len(data) // parts)
    for at in range(0, len(data), size):
        with path.open("ab") as file:
            file.write(data[at : at + size])
        time.sleep(0.06)


def test_a_torn_last_line_is_named_once_nobody_writes_any_more(run: Path) -> None:
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 3, "reward/mean": 0.')
    store = RunStore(run)
    with held(run):
        store.refresh()
        assert (store.status(), store.problems()) == ("live", ())
    assert store.refresh() == {"metrics"}
    assert [(p.file, p.message) for p in store.problems()] == [
        ("metrics.jsonl", "ends within a line: its last 29 bytes are left out")
    ]
    assert store.refresh() == frozenset()
    store.close()
