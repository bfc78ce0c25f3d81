"""`shoal watch`: what a terminal shows of a run of another process."""

import io
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import cli
from cluster.dashboard.exports import watch as watch_file
from cluster.dashboard.exports.watch import look_lines, run_to_watch, watch
from cluster.dashboard.exports.watched_run import WatchedRun, curve
from cluster.record.instants import run_instant
from cluster.record.run_directory import RunDirectory
from cluster.record.run_lock import run_lock
from cluster.types import Instant
from rollout.errors import ConfigError
from tests.cluster.dashboard.served import wait_until
from tests.cluster.dashboard.small_run import make_run
from tests.cluster.dashboard.small_runs import write_run, write_step


def test_a_curve_is_drawn_from_the_least_to_the_greatest() -> None:
    assert curve([0.0, 1.0]) == "▁█"
    assert curve([0.0, None, 7.0, 3.0]) == "▁ █▄"
    assert curve([2.0, 2.0]) == "▁▁"
    assert curve([None]) == ""
    assert curve([0.0, 1.0, 4.0, 5.0], points=2) == "▁█"  # means 0.5 and 4.5


def test_a_look_has_what_the_files_have(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    look = WatchedRun(tmp_path / "a").look()
    fields = dict(look.fields)
    assert (look.name, look.status, look.steps_done) == ("a", "finished", 3)
    assert fields["reward"] == "0.500"  # rewards 1, 0, 1, 0
    assert fields["version"] == "3"  # of the weights after it
    assert "left" not in fields
    assert [line.split(":")[0] for line in look.evaluations] == [f"held-out accuracy after {n} steps" for n in (0, 3)]
    assert look.actors == ()  # nobody is at work any more
    assert dict(look.curves)["reward"] == "0.25 ▁██ 0.5"  # of the first step one group is all wrong


def test_other_peoples_text_is_harmless(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    run.append_event(run_instant(Instant.WARNING, "look\x1b[2J \u202ehere"))
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"kind": 3, "actor": ["x"], "extra": {"text": {}}}\n[1]\n{"torn')
    run.append_metrics(3, {"reward/mean": float("nan")})
    look = WatchedRun(run.path).look()
    assert look.notes[-1].endswith("controller: look here")
    assert all("\x1b" not in line and "\u202e" not in line for line in look_lines(look))
    assert look.fields[-2][0] == "elapsed"
    for name in ("config.yaml", "metrics.jsonl", "events.jsonl"):
        (run.path / name).unlink()
    assert WatchedRun(run.path).look().steps_done == 0


def test_a_folder_stands_for_its_live_run(tmp_path: Path) -> None:
    old, new = (RunDirectory.existing(write_run(tmp_path / name, num_steps=1).path) for name in ("old", "new"))
    os.utime(old.path / "metrics.jsonl", (1, 1))
    assert run_to_watch(tmp_path).name == "new"
    with run_lock(old.path):
        assert run_to_watch(tmp_path).name == "old"
    assert run_to_watch(old.path) == old.path
    assert new.path.is_dir()
    with pytest.raises(ConfigError, match="is no run and has none in it"):
        run_to_watch(tmp_path / "nothing")


def test_each_new_step_is_a_line_where_there_is_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_file, "POLL_S", 0.02)
    run = write_run(tmp_path / "a", num_steps=1, finished=False)
    out, looks = io.StringIO(), []
    with run_lock(tmp_path / "a"):
        thread = threading.Thread(target=lambda: looks.append(watch(tmp_path / "a", out)))
        thread.start()
        wait_until(lambda: "step 1/" in out.getvalue(), "the first look")
        write_step(run, 1)
        wait_until(lambda: "step 2/" in out.getvalue(), "the step that came")
    thread.join(20)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("a: live, step 1/")
    assert any(line.strip().startswith("sampler-0") for line in lines)
    assert lines[-1] == "a: stopped"
    assert looks[0] == replace(looks[0], status="stopped", steps_done=2)


def test_the_panel_follows_the_run_and_ctrl_c_leaves_it(tmp_path: Path) -> None:
    """In a real terminal: the panel shows the step that came while it was open."""
    run = write_run(tmp_path / "a", num_steps=1, finished=False)
    ours, theirs = pty.openpty()
    shown = ""
    with run_lock(tmp_path / "a"):
        # As a terminal starts it: what a script starts in the background ignores Ctrl-C, and so do its children.
        code = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from cluster.cli import main
raise SystemExit(main(["watch", {str(tmp_path)!r}]))
"""
        words = [sys.executable, "-c", code]
        child = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
        os.close(theirs)
        try:
            shown = _read_until(ours, "step 1/", shown)
            write_step(run, 1)
            shown = _read_until(ours, "step 2/", shown)
            child.send_signal(signal.SIGINT)
            assert child.wait(20) == 0
        finally:
            child.kill()
            child.wait()
            os.close(ours)
    assert "sampler-0" in shown
    assert "Traceback" not in shown


def _read_until(descriptor: int, wanted: str, shown: str) -> str:
    while wanted not in shown:
        ready, _, _ = select.select([descriptor], [], [], 40.0)
        assert ready, shown
        shown += os.read(descriptor, 65536).decode(errors="replace")
    return shown


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a")
    assert cli.main(["watch", str(tmp_path / "a"), "--once"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("a: finished, step 3/")
    assert cli.main(["watch", str(tmp_path / "no")]) == 2
