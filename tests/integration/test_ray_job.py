"""`ray job submit` on a cluster that was started by hand, with token authentication left on."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration import runs

pytestmark = pytest.mark.integration

START_DEADLINE_S = 90.0
BIN = Path(sys.executable).parent


@dataclass
class Head:
    """A Ray head of this test alone."""

    address: str
    env: dict[str, str]
    tag: str

    def job(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(BIN / "ray"), "job", words[0], "--address", self.address, *words[1:]],
            env=self.env,
            cwd=runs.REPOSITORY,
            text=True,
            capture_output=True,
            timeout=runs.RUN_DEADLINE_S,
            check=False,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """`ray start --head --block` on loopback and ports of its own, ended with all its processes."""
    tag, port, dashboard = os.urandom(8).hex(), free_port(), free_port()
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    env |= {"PATH": f"{BIN}:{os.environ['PATH']}", runs.TAG: tag, "HF_HUB_OFFLINE": "1", "RAY_AUTH_MODE": "token"}
    # Or it listens on every address, wherever it is told to be (`cluster.fleet.ray_session`).
    env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    log = tmp_path_factory.mktemp("ray") / "head.log"
    places = ["--node-ip-address", "127.0.0.1", "--port", str(port), "--dashboard-port", str(dashboard)]
    subprocess.run([str(BIN / "ray"), "get-auth-token", "--generate"], env=env, capture_output=True, check=False)
    with log.open("w") as out:
        process = subprocess.Popen(
            [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus", "4", "--disable-usage-stats", *places],
            env=env,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    head = Head(address=f"http://127.0.0.1:{dashboard}", env=env, tag=tag)
    try:
        deadline = time.monotonic() + START_DEADLINE_S
        while head.job("list").returncode != 0:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(1.0)
        assert runs.listening(tag) == {"127.0.0.1"}
        yield head
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=30)


def submit(head: Head, path: Path, *words: str, wait: bool = True) -> "subprocess.CompletedProcess[str]":
    entry = ["python", "-m", "cluster.cli", "train", *words]
    if "--resume" not in words:
        entry += ["--run-dir", str(path)]
    name = ["--submission-id", path.name]
    return head.job("submit", *name, *([] if wait else ["--no-wait"]), "--working-dir", ".", "--", *entry)


def test_job_ends_with_the_same_weights_as_local_mode(head: Head, reference: runs.Run, tmp_path: Path) -> None:
    path = tmp_path / "job-whole"
    done = submit(head, path, "tiny", *runs.SHORT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert runs.summary(path)["weights_digest"] == runs.summary(reference.path)["weights_digest"]
    assert "step 7/7" in done.stdout, "the log is readable without the live view"


def test_failed_job_has_the_exit_code_of_the_run(head: Head, tmp_path: Path) -> None:
    done = submit(head, tmp_path / "job-bad", "no-such-recipe")
    assert done.returncode != 0
    assert "no-such-recipe" in done.stdout + done.stderr


def test_stopped_job_leaves_nothing_running_and_resumes(head: Head, reference: runs.Run, tmp_path: Path) -> None:
    path = tmp_path / "job-stopped"
    assert submit(head, path, "tiny", *runs.SHORT, wait=False).returncode == 0
    deadline = time.monotonic() + runs.RUN_DEADLINE_S
    while len(runs.read_lines(path / "metrics.jsonl")) < 2:
        assert time.monotonic() < deadline, head.job("logs", path.name).stdout
        time.sleep(0.05)
    assert head.job("stop", path.name).returncode == 0
    deadline = time.monotonic() + 30.0
    while actors := [line for line in runs.tagged(head.tag) if "Worker" in line or "cluster.cli" in line]:
        assert time.monotonic() < deadline, actors
        time.sleep(0.2)
    assert list((path / "checkpoints").glob("step-*")), "a checkpoint was written"
    run = runs.start(path, "--resume", str(path))
    assert run.wait() == 0, run.output()
    assert runs.summary(path)["weights_digest"] == runs.summary(reference.path)["weights_digest"]
