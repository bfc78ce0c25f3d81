"""Finding runs: what counts as one, how they are named, and what is known of one that nobody opened."""

import os
import time
from pathlib import Path

import pytest

from cluster.dashboard.views.frame import run_info
from cluster.dashboard.views.runs import MAX_DEPTH, RunInfos, check_roots, find_runs
from rollout.errors import ConfigError
from tests.cluster.dashboard.small_runs import START_S, open_store, write_run


def fake_run(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "metrics.jsonl").write_text('{"step":0,"reward/mean":0.5}\n')
    return path


def test_runs_below_folders_and_run_directories_themselves(tmp_path: Path) -> None:
    a = fake_run(tmp_path / "runs" / "a")
    b = fake_run(tmp_path / "runs" / "deep" / "er" / "b")
    c = fake_run(tmp_path / "elsewhere" / "c")
    fake_run(a / "superseded" / "000")  # within a run: not a run of its own
    fake_run(tmp_path / "runs" / ".hidden")
    (tmp_path / "runs" / "empty").mkdir()
    os.symlink(a, tmp_path / "runs" / "link")
    assert find_runs([tmp_path / "runs", c, a]) == {"a": a, "b": b, "c": c}


def test_runs_deeper_than_the_limit_are_not_looked_for(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*"x" * MAX_DEPTH)
    fake_run(deep)
    fake_run(tmp_path.joinpath(*"y" * (MAX_DEPTH + 1)))
    assert list(find_runs([tmp_path]).values()) == [deep]


def test_equal_names_get_their_folders_and_odd_characters_go(tmp_path: Path) -> None:
    one, two = fake_run(tmp_path / "x" / "run"), fake_run(tmp_path / "y" / "run")
    odd = fake_run(tmp_path / "a,b?c#d%e\n")
    assert find_runs([tmp_path]) == {"x~run": one, "y~run": two, "a_b_c_d_e_": odd}
    same = fake_run(tmp_path / "a;b?c#d%e\n")
    assert set(find_runs([tmp_path]).values()) == {one, two, odd, same}


def test_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    os.makedirs(os.fsencode(tmp_path) + b"/\xff")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")) / "config.yaml").write_text("{}")
    assert list(find_runs([tmp_path])) == ["_udcff"]


def test_what_is_given_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no folder .*nothing; give run directories"):
        check_roots([tmp_path / "nothing"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file; give run directories"):
        check_roots([tmp_path / "file"])
    check_roots([tmp_path])


def test_the_cheap_information_is_that_of_the_opened_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one")
    cheap = RunInfos().info("one", run.path)
    full = run_info("one", open_store(run.path))
    assert cheap["num_rollouts"] is None
    assert full["num_rollouts"] == 32
    assert {**cheap, "num_rollouts": 32} == full
    assert cheap["started_s"] == START_S
    assert cheap["updated_s"] > START_S  # the files' time
    assert (cheap["step"], cheap["accuracy_before"], cheap["status"]) == (3, 0.5, "finished")
    assert cheap["accuracy_step"] == 3  # after the last step, and not before the first
    assert cheap["step_ended_s"] is None  # these steps have no time of their end


def test_the_end_of_the_last_step_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one")
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "time/ended_s": 1700000100.5}\n')
    assert RunInfos().info("one", run.path)["step_ended_s"] == START_S + 100.5


def test_a_run_with_broken_files_is_listed(tmp_path: Path) -> None:
    run = tmp_path / "broken"
    run.mkdir()
    (run / "config.yaml").write_bytes(b"\xff\xfe: [")
    (run / "metrics.jsonl").write_text('{"step":0}\n{"step":1,"reward/mean":0.25}\n{"step":2,"rew')
    (run / "summary.json").write_text("{")
    (run / "evaluations.jsonl").write_text("null\n[]\n")
    info = RunInfos().info("broken", run)
    assert (info["step"], info["reward"], info["steps"], info["accuracy"], info["model"]) == (2, 0.25, None, None, None)


def test_two_hundred_runs_are_listed_in_no_time_once_they_were_read(tmp_path: Path) -> None:
    for number in range(200):
        fake_run(tmp_path / f"run-{number}")
    infos, runs = RunInfos(), find_runs([tmp_path])
    assert len(runs) == 200
    first = [infos.info(name, path) for name, path in runs.items()]
    started = time.process_time()
    again = [infos.info(name, path) for name, path in runs.items()]
    assert time.process_time() - started < 0.2
    assert again == first
    (runs["run-7"] / "metrics.jsonl").write_text('{"step":5}\n')
    assert infos.info("run-7", runs["run-7"])["step"] == 6
