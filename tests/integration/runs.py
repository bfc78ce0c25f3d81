"""Real runs of the command line, and what to look at when they have ended."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

TAG = "SHOAL_TEST_RUN"
"""Environment variable that every process of a run inherits: who still has it afterwards was left behind."""
SECRET = "planted-secret-3f9c1e77"
"""Value of a secret-looking environment variable of every run: no file may have it."""
RUN_DEADLINE_S = 300.0
REPOSITORY = Path(__file__).parents[2]
SHORT = ("steps=7", "eval.num_prompts=8", "eval.num_samples=2", "rollout.prompts_per_step=4")


@dataclass
class Run:
    """A `shoal` process."""

    process: "subprocess.Popen[str]"
    tag: str
    log: Path
    path: Path
    started_s: float = field(default_factory=time.monotonic)

    def wait(self) -> int:
        """Exit code; the processes of the run are ended in any case."""
        try:
            return self.process.wait(timeout=RUN_DEADLINE_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()

    def output(self) -> str:
        return self.log.read_text()

    def wait_for_steps(self, count: int) -> None:
        """Returns when `count` training steps are recorded."""
        wait_until(lambda: len(read_lines(self.path / "metrics.jsonl")) >= count, self)

    def left_behind(self, grace_s: float = 60.0) -> list[str]:
        """Command lines of processes that carry the run's tag after `grace_s`. Ray's own agent, of a job that is killed
        while the agent still starts, looks for its parent once it is imported: half a minute on a busy machine."""
        deadline = time.monotonic() + grace_s
        while (found := tagged(self.tag)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found


def start(
    path: Path,
    *words: str,
    command: str = "train",
    module: str = "cluster.cli",
    folder: Path = REPOSITORY,
    cluster: str | None = None,
) -> Run:
    """Starts `shoal train WORDS --run-dir PATH` in the background: or another command, or another program that takes
    the command among its words. In another `folder` it starts as the console script does, which does not have the
    folder where it is started on its path. With a `cluster` it joins the Ray at that address."""
    tag = uuid.uuid4().hex
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment |= {TAG: tag, "HF_HUB_OFFLINE": "1", "SHOAL_TEST_API_KEY": SECRET}
    if cluster is not None:
        environment |= {"RAY_ADDRESS": cluster, "RAY_AUTH_MODE": "token"}
    log = path.parent / f"{path.name}-{tag[:6]}.log"
    place = () if "--resume" in words or command != "train" else ("--run-dir", str(path))
    arguments = words if module != "cluster.cli" else (command, *words)
    options = ["-m"] if folder == REPOSITORY else ["-P", "-m"]
    if folder != REPOSITORY:
        environment["PYTHONPATH"] = str(REPOSITORY)
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, *options, module, *arguments, *place, "--debug"],
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=environment,
        )
    return Run(process=process, tag=tag, log=log, path=path)


def train(path: Path, *words: str, folder: Path = REPOSITORY) -> Run:
    """A whole run; fails with its output unless it ends with exit code 0."""
    run = start(path, *words, folder=folder)
    code = run.wait()
    assert code == 0, run.output()
    return run


def stop(run: Run, number: signal.Signals) -> int:
    """Sends a signal to the program alone; returns the exit code when nothing of the run is left."""
    run.process.send_signal(number)
    code = run.wait()
    assert run.left_behind() == [], run.output()
    return code


def wait_until(condition: Callable[[], bool], run: Run) -> None:
    while not condition():
        assert run.process.poll() is None, f"the run ended early:\n{run.output()}"
        assert time.monotonic() - run.started_s < RUN_DEADLINE_S, run.output()
        time.sleep(0.02)


def tagged(tag: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TAG) == tag and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[:200])
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found


def listening(tag: str) -> set[str]:
    """Addresses on which processes that carry the tag take connections, those of IPv4 as such."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get(TAG) == tag:
                found |= {c.laddr.ip for c in process.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN}
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return {address.removeprefix("::ffff:") for address in found}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; none while it is not there."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def summary(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "summary.json").read_text())
    return found
