"""The log of a run and its files of stacks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.dashboard.index.store import RunStore
from cluster.dashboard.views import run_log as file
from cluster.dashboard.views.run_log import run_log, stack_page
from cluster.record.instants import run_instant
from cluster.record.run_directory import RunDirectory
from cluster.types import Event, EventKind, Instant
from tests.cluster.dashboard.small_run import make_run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = make_run(tmp_path / "a")
    run.append_event(run_instant(Instant.WARNING, "the disk is nearly full", step=1))
    extra = {"name": Instant.STATE, "state": "dead", "before": "healthy", "reason": "it ended"}
    run.append_event(Event(kind=EventKind.INSTANT, actor="sampler-0", start_s=50.0, end_s=50.0, step=2, extra=extra))
    run.write_stacks({"sampler-0": "Thread 1\n  in f\n", "controller": "Thread 2\n"})
    return run


@pytest.fixture
def store(run: RunDirectory) -> Iterator[RunStore]:
    store = RunStore(run.path)
    store.refresh()
    yield store
    store.close()


def test_what_happened_is_told_in_order(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    page = run_log(store)
    assert [
        (entry["actor"], entry["what"], entry["severity"], entry["text"], entry["step"]) for entry in page["entries"]
    ] == [
        ("controller", "warning", "warning", "the disk is nearly full", 1),
        ("sampler-0", "state", "info", "healthy -> dead: it ended", 2),
    ]
    assert page["left_out"] == 0
    monkeypatch.setattr(file, "MAX_ENTRIES", 1)
    page = run_log(store)
    assert ([entry["what"] for entry in page["entries"]], page["left_out"]) == (["state"], 1)


def test_stacks_are_listed_and_read(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [(each["name"], each["bytes"]) for each in run_log(store)["stacks"]] == [
        ("000-controller.txt", 9),
        ("000-sampler-0.txt", 16),
    ]
    assert stack_page(store, "000-controller.txt") == {
        "name": "000-controller.txt",
        "text": "Thread 2\n",
        "is_cut": False,
    }
    monkeypatch.setattr(file, "MAX_STACK_BYTES", 6)
    assert stack_page(store, "000-controller.txt") == {"name": "000-controller.txt", "text": "Thread", "is_cut": True}


def test_nothing_outside_the_folder_is_read(run: RunDirectory, store: RunStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    (run.path / "stacks" / "link.txt").symlink_to(secret)
    assert [each["name"] for each in run_log(store)["stacks"]] == ["000-controller.txt", "000-sampler-0.txt"]
    for name in ("link.txt", "../config.yaml", "..", "", "nothing.txt", "../../secret.txt"):
        assert stack_page(store, name) is None
    (run.path / "stacks").rename(tmp_path / "moved")
    (run.path / "stacks").symlink_to(tmp_path / "moved")
    assert run_log(store)["stacks"] == []
    assert stack_page(store, "000-controller.txt") is None
