"""What is remembered of a live run, and what is read of one whose rollouts nobody asks for."""

import dataclasses
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster.dashboard.index.store import RunStore
from cluster.dashboard.web import stream
from cluster.dashboard.web.memo import MAX_COMPUTE_AGE_S
from cluster.dashboard.web.open_run import ASKED_S, OpenRun
from tests.cluster.dashboard.served import serving, wait_until
from tests.cluster.dashboard.small_runs import write_run, write_step


def test_what_is_dear_to_compute_is_at_most_three_seconds_old(tmp_path: Path) -> None:
    run = OpenRun(name="run", path=tmp_path, revision=1, status="live")
    results = iter((1, 2))

    def compute() -> int:
        end = time.thread_time() + 0.02  # at a thousandth of a processor: 20 s
        while time.thread_time() < end:
            pass
        return next(results)

    begun = time.monotonic()
    assert run.remember("findings", ("metrics",), compute) == 1
    assert (kept := run.memo.known("findings")) is not None
    assert 0 < kept.due_s - begun < MAX_COMPUTE_AGE_S + 0.5 < 4
    run.seen["metrics"] = 2
    assert run.remember("findings", ("metrics",), compute) == 1
    run.status = "finished"
    assert run.remember("findings", ("metrics",), compute) == 2


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Any]:
    """A run of one step that somebody writes."""
    run = write_run(tmp_path / "live", num_steps=1, finished=False)
    descriptor = os.open(run.path / "run.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield run
    os.close(descriptor)


def test_rollouts_wait_until_somebody_asks(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_UNASKED_SHARE", 1e-9)  # one file, and then none for a long time
    with serving([live.path.parent]) as served, served.events("/api/stream?run=live"):
        assert served.get("/api/runs/live")["info"]["num_rollouts"] == 12  # of a step and the first evaluation
        for step in range(1, 5):
            write_step(live, step)
            wait_until(lambda step=step: served.get("/api/runs/live")["info"]["step"] == step + 1, "it is followed")
        with served.follower.use("live") as run:
            assert run.store is not None
            assert run.store.progress().files_later >= 3
            assert run.store.table_steps("train") != [0, 1, 2, 3, 4]
        frame = served.get("/api/runs/live")
        assert frame["info"]["num_rollouts"] is None  # not known
        assert frame["index"]["ready"]  # nothing is being read
        assert frame["problems"] == []
        assert served.get("/api/runs/live/steps")["steps"] == [0, 1, 2, 3, 4]
        assert served.get("/api/runs/live")["info"]["num_rollouts"] == 4 + 5 * 8
        write_step(live, 5)  # who has just asked is shown what comes
        wait_until(lambda: served.get("/api/runs/live")["info"]["num_rollouts"] == 4 + 6 * 8, "it is read")
        (live.path / "summary.json").write_text(json.dumps({"status": "finished"}))


def test_a_step_that_is_in_the_metrics_is_never_said_to_be_missing(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that follows a run asks for a step as soon as the frame names it, also in the midst of a look."""
    begun, go_on = threading.Event(), threading.Event()
    read_index = RunStore._refresh_index

    def slowly(store: RunStore, *args: Any) -> set[str]:
        if store.metrics().steps[-1] == 1 and not go_on.is_set():
            begun.set()
            assert go_on.wait(20)
        return read_index(store, *args)

    with serving([live.path.parent]) as served, served.events("/api/stream?run=live"), ThreadPoolExecutor(1) as pool:
        assert len(served.get("/api/runs/live/steps/train/0")["groups"]) == 2
        monkeypatch.setattr(RunStore, "_refresh_index", slowly)
        write_step(live, 1)
        assert begun.wait(20)
        assert served.get("/api/runs/live")["scrubber"]["steps"] == [0, 1]
        answer = pool.submit(served.get, "/api/runs/live/steps/train/1")
        time.sleep(0.3)  # long enough for an answer that does not wait
        go_on.set()
        assert len(answer.result()["groups"]) == 2
        (live.path / "summary.json").write_text(json.dumps({"status": "finished"}))


def test_who_has_waited_too_long_is_shown_what_there_is_until_all_is_read(
    live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "FIRST_LOOK_S", 0.2)
    go_on = threading.Event()
    read_index = RunStore._refresh_index

    def slowly(store: RunStore, deadline_s: float, max_files: int | None) -> set[str]:
        if store.metrics().steps[-1] == 0 or go_on.is_set():
            return read_index(store, deadline_s, max_files)
        time.sleep(0.05)  # and reads nothing: there is always more to read
        store._folder.progress = dataclasses.replace(store._folder.progress, files_total=99)
        return {"rollouts"}

    with serving([live.path.parent]) as served, served.events("/api/stream?run=live"):
        assert served.get("/api/runs/live/steps")["steps"] == [0]
        monkeypatch.setattr(RunStore, "_refresh_index", slowly)
        write_step(live, 1)
        wait_until(lambda: served.get("/api/runs/live")["info"]["step"] == 2, "it is looked at")
        served.get("/api/runs/live/steps")  # waits
        for _ in range(5):
            begun_s = time.monotonic()
            assert served.get("/api/runs/live/steps")["steps"] == [0]
            assert time.monotonic() - begun_s < 0.2
        go_on.set()
        wait_until(lambda: served.get("/api/runs/live/steps")["steps"] == [0, 1], "it is read")
        with served.follower.use("live") as run:
            wait_until(lambda: not run.is_waited_out, "all is read")
        (live.path / "summary.json").write_text(json.dumps({"status": "finished"}))


def test_all_rollouts_are_read_when_the_run_ends(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_UNASKED_SHARE", 1e-9)
    with serving([live.path.parent]) as served, served.events("/api/stream?run=live"):
        assert served.get("/api/runs/live")["info"]["status"] == "live"
        for step in range(1, 5):
            write_step(live, step)
        wait_until(lambda: served.get("/api/runs/live")["info"]["step"] == 5, "it is followed")
        (live.path / "run.lock").unlink()
        (live.path / "summary.json").write_text(json.dumps({"status": "finished"}))
        wait_until(lambda: served.get("/api/runs/live")["info"]["num_rollouts"] == 4 + 5 * 8, "all are read")


def test_the_newest_are_read_first_and_nothing_is_judged_before_all_are_there(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", num_steps=1)
    store = RunStore(run.path)
    store.refresh()
    judged = store.ledger_anomalies()
    for step in range(1, 5):
        write_step(run, step)
    assert "rollouts" not in store.refresh(max_files=0)
    assert (store.progress().files_later, store.progress().ready, store.progress().complete) == (4, True, False)
    assert "rollouts" in store.refresh(max_files=1)
    assert store.table_steps("train") == [0, 4]
    assert (store.progress().files_later, store.ledger_anomalies()) == (3, judged)
    store.refresh()
    assert store.table_steps("train") == [0, 1, 2, 3, 4]
    assert store.progress().complete
    assert set(store.ledger_anomalies().values()) == {0}
    store.close()


def test_who_follows_rollouts_is_shown_all_however_slow_the_steps_are(tmp_path: Path) -> None:
    run = OpenRun(name="run", path=tmp_path, revision=1)
    assert run.wants_rollouts(0.0)
    run.was_complete, run.status = True, "live"
    assert not run.wants_rollouts(1e6)
    run.asked_s, run.rollouts_s = 1e6, 1e6 - 500
    assert run.wants_rollouts(1e6 + 500)  # nothing has changed since it asked
    run.rollouts_s = 1e6 + 500
    assert not run.wants_rollouts(run.rollouts_s + 0.1)  # until it asks for what changed
    run.asked_s = run.rollouts_s + 1
    assert run.wants_rollouts(run.asked_s + ASKED_S / 2)
    run.status = "finished"
    assert run.wants_rollouts(1e9)


def test_news_are_computed_at_once_however_young_the_answer_is(tmp_path: Path) -> None:
    run = OpenRun(name="run", path=tmp_path, revision=1, status="live")
    answers = iter(range(3))
    for news, answer in (((1,), 0), ((1,), 0), ((2,), 1), ((2,), 1)):
        assert run.remember("doctor", (), lambda: next(answers), news=news) == answer


def test_a_request_that_comes_during_a_look_is_not_lost(tmp_path: Path) -> None:
    """The follower's thread writes the time of the next look when a look ends; a wish of meanwhile outlives that."""
    run = OpenRun(name="run", path=tmp_path, revision=1)
    assert run.is_due(5.0)
    run.wanted.clear()  # as the follower's thread does before it looks
    run.wanted.set()  # a request, while it looks
    run.due_s = 100.0
    assert run.is_due(5.0)
