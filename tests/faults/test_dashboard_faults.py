"""A run that five clients watch, whose dashboard is then killed: it does not know of either."""

import re
import threading
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.faults import faults
from tests.integration import runs

pytestmark = pytest.mark.faults

CLIENTS = 5


def listen(address: str, heard: list[str]) -> None:
    """Reads changes of all runs from the stream until it ends."""
    try:
        with urllib.request.urlopen(f"{address}api/stream", timeout=120) as stream:
            heard.extend(line.decode() for line in stream if line.startswith(b"data:"))
    except OSError:
        return  # the end of a dashboard that is killed


def test_a_run_whose_dashboard_is_killed_ends_the_same(undisturbed: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = faults.start(path, (), "tiny", *faults.SHORT, "--dashboard")
    runs.wait_until(lambda: re.search(r"^dashboard: (\S+)#", run.output(), re.MULTILINE) is not None, run)
    address = re.findall(r"^dashboard: (\S+)#", run.output(), re.MULTILINE)[0]
    heard: list[list[str]] = [[] for _ in range(CLIENTS)]
    clients = [threading.Thread(target=listen, args=(address, lines), daemon=True) for lines in heard]
    for client in clients:
        client.start()
    run.wait_for_steps(1)
    # What is made of the rollouts has them read: the index of a live run.
    with urllib.request.urlopen(f"{address}api/runs/run/rollouts?limit=5", timeout=30) as answer:
        assert b"group_id" in answer.read()
    children = psutil.Process(run.process.pid).children()
    (dashboard,) = [child for child in children if "dashboard" in child.cmdline() and "--parent" in child.cmdline()]
    dashboard.kill()
    assert len(runs.read_lines(path / "metrics.jsonl")) < 6, "it was killed before the run's end"
    assert run.wait() == 0, run.output()
    for client in clients:
        client.join(timeout=10)
    assert all(heard), "each client was told of changes until then"
    faults.assert_same_end(path, undisturbed)
    faults.assert_exactly_once(path)
    assert run.left_behind() == []
