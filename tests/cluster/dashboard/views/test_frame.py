"""The frame: how far a run is, when it will end, and the marks on the scrubber."""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.dashboard.views.frame import frame
from cluster.types import Event, EventKind
from tests.cluster.dashboard.small_runs import START_S, open_store, write_run


def test_a_live_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one", num_steps=3, finished=False, steps=10)
    instants = [("resumed", "from step-00000002", 2), ("warning", "disk is filling up", None), ("note", "nothing", 1)]
    for name, text, step in instants:
        extra = {"name": name, "text": text}
        run.append_event(
            Event(kind=EventKind.INSTANT, actor="controller", start_s=START_S, end_s=START_S, step=step, extra=extra)
        )
    store = open_store(run.path)
    findings: list[dict[str, Any]] = [
        {"severity": "warning", "title": "Completions are cut off", "since_step": 1},
        {"severity": "error", "title": "A group is missing", "since_step": None},
        {"severity": "warning"},
        {"severity": "info", "title": "The reward does not rise", "since_step": 0},
    ]
    page = frame("one", store, revision=7, findings=findings)
    step_s = store.metrics().columns["time/step_s"][-1]
    assert step_s is not None
    assert page["eta_s"] == pytest.approx(7 * step_s, abs=5)  # ten steps, three are done, each took as long
    assert (page["revision"], page["info"]["status"], page["info"]["step"], page["info"]["steps"]) == (7, "live", 3, 10)
    assert page["doctor"] == {"error": 1, "warning": 2, "info": 1}
    assert page["scrubber"]["reward"] == [0.25, 0.5, 0.5]
    assert [(mark["kind"], mark["step"], mark["text"]) for mark in page["scrubber"]["marks"]] == [
        ("eval", 0, "evaluated: 50.0% right"),
        ("alert", 1, "doctor: Completions are cut off"),
        ("alert", 2, "controller: warning, disk is filling up"),
        ("restart", 2, "controller: resumed, from step-00000002"),
    ]


def test_the_estimate_counts_what_the_step_took_so_far(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one", num_steps=3, finished=False, steps=10)
    store = open_store(run.path)
    for spent_s, eta_s in ((0, 70.0), (4, 66.0), (30, 60.0), (90, None)):  # each step took 10 s
        ended_s = time.time() - spent_s
        os.utime(run.path / "metrics.jsonl", (ended_s, ended_s))
        found = frame("one", store, revision=1, findings=[])["eta_s"]
        assert found == (None if eta_s is None else pytest.approx(eta_s, abs=1.0))


def test_an_ended_run_and_one_that_has_nothing_yet(tmp_path: Path) -> None:
    ended = frame("one", open_store(write_run(tmp_path / "one").path), revision=1, findings=[])
    assert (ended["eta_s"], ended["info"]["status"], ended["info"]["accuracy"]) == (None, "finished", 0.75)
    empty = tmp_path / "empty"
    empty.mkdir()
    page = frame("empty", open_store(empty), revision=1, findings=[])
    assert page["scrubber"] == {"steps": [], "reward": [], "marks": []}
    info = page["info"]
    assert (info["step"], info["reward"], info["accuracy"], info["model"], info["num_rollouts"]) == (
        0,
        None,
        None,
        None,
        0,
    )


def test_a_long_run_is_thinned_out_and_its_last_step_is_there(tmp_path: Path) -> None:
    run = write_run(tmp_path / "long", num_steps=0, finished=False)
    for step in range(2501):
        run.append_metrics(step, {"reward/mean": step / 2500})
    scrubber = frame("long", open_store(run.path), revision=1, findings=[])["scrubber"]
    assert scrubber["steps"] == [*range(0, 2501, 3), 2500]
    assert (scrubber["reward"][:2], scrubber["reward"][-1]) == ([0.0, 3 / 2500], 1.0)


def test_deaths_resumes_and_alerts_of_the_supervisor_are_marks(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", finished=False)
    states = [("sampler-0", {"name": "state", "state": state, "reason": "r"}) for state in ("DEAD", "STALE", "HEALTHY")]
    facts = [("controller", {"name": name, "text": "t"}) for name in ("resumed", "stall", "checkpoint_set_aside")]
    for actor, extra in (*states, *facts):
        run.append_event(
            Event(kind=EventKind.INSTANT, actor=actor, start_s=START_S, end_s=START_S, step=1, extra=extra)
        )
    marks = frame("run", open_store(run.path), revision=1, findings=[])["scrubber"]["marks"]
    assert sorted((mark["kind"], mark["text"]) for mark in marks if mark["kind"] in ("restart", "alert")) == [
        ("alert", "controller: checkpoint_set_aside, t"),
        ("alert", "controller: stall, t"),
        ("restart", "controller: resumed, t"),
        ("restart", "sampler-0: dead, r"),
    ]


def test_a_warning_is_marked_at_the_step_in_which_it_came(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", num_steps=0, finished=False)
    for step in range(4):
        run.append_metrics(step, {"reward/mean": 0.5, "time/ended_s": START_S + 10 * (step + 1)})
    for at_s, own in ((5.0, None), (25.0, None), (95.0, None), (5.0, 9)):
        extra = {"name": "warning", "text": f"{at_s} {own}"}
        event = Event(
            kind=EventKind.INSTANT, actor="controller", start_s=START_S + at_s, end_s=START_S + at_s, step=own
        )
        run.append_event(dataclasses.replace(event, extra=extra))
    marks = frame("run", open_store(run.path), revision=1, findings=[])["scrubber"]["marks"]
    assert [
        (mark["step"], mark["text"].removeprefix("controller: warning, ")) for mark in marks if mark["kind"] == "alert"
    ] == [
        (0, "5.0 None"),
        (2, "25.0 None"),
        (3, "95.0 None"),
        (3, "5.0 9"),  # it names a step that was never taken
    ]
