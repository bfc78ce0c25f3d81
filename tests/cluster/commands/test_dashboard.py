"""The command `shoal dashboard` as a process, and the dashboard that `shoal train --dashboard` starts beside a run."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import cli
from cluster.commands import dashboard as cli_dashboard
from cluster.commands.dashboard import dashboard_beside
from tests.cluster.dashboard.served import wait_until
from tests.cluster.dashboard.small_runs import write_run

NEVER_LOADED = ("ray", "vllm", "torch", "transformers", "deepspeed", "datasets")
START_S, MAX_RSS_KB = 10.0, 300_000


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cluster.cli", "dashboard", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=10) as response:
        return json.load(response)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_run(tmp_path / "runs" / "one", num_steps=1)
    return tmp_path / "runs"


@pytest.fixture
def dashboard(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = start(str(folder), "--port", "0")
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()


def test_it_prints_its_address_serves_and_ends_on_ctrl_c(dashboard: tuple[subprocess.Popen[str], str]) -> None:
    process, address = dashboard
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    assert [info["run"] for info in get(f"{address}api/runs")["runs"]] == ["one"]
    for page in ("", "/overview", "/steps/train/0", "/timeline", "/config"):
        get(f"{address}api/runs/one{page}")
    status = Path(f"/proc/{process.pid}/status").read_text()
    rss = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert rss is not None
    assert int(rss[1]) < MAX_RSS_KB
    with urllib.request.urlopen(f"{address}api/stream?run=one", timeout=10) as page:
        assert page.readline().startswith(b"id: ")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert b"one" in page.read()  # the end of an answer that is whole, though a page was listening
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_it_loads_nothing_of_the_training(folder: Path) -> None:
    code = (
        "import sys; import cluster.dashboard.web.server, cluster.dashboard.index.store, "
        "cluster.dashboard.exports.report, cluster.dashboard.exports.sql; "
        f"print([name for name in {NEVER_LOADED!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "[]\n"


def test_help_and_other_commands_do_not_load_the_server() -> None:
    code = (
        "import sys; from cluster.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('starlette', 'uvicorn', 'duckdb', 'sqlite3', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.endswith("[]\n")


def test_mistakes_are_one_sentence_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dashboard", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.startswith(f"shoal: there is no folder {tmp_path}/nothing; give run directories")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["dashboard", str(tmp_path), "--port", str(port)]) == 2
    assert capsys.readouterr().err == (
        f"shoal: port {port} of 127.0.0.1 is in use, perhaps by another dashboard; "
        "choose another with --port (0: any)\n"
    )
    assert cli.main(["dashboard", str(tmp_path), "--host", "no.such.host.invalid"]) == 2
    assert cli.main(["dashboard", str(tmp_path), "--port", "70000"]) == 2
    assert capsys.readouterr().err.endswith("shoal: --port is 70000, allowed: 0 (any that is free) to 65535\n")


def test_beyond_loopback_the_address_has_a_token(folder: Path) -> None:
    process = start(str(folder), "--port", "0", "--token")
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        port = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=[\w-]{43}", address)
        assert port is not None
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(f"http://127.0.0.1:{port[1]}/api/runs")
    finally:
        process.kill()
        process.communicate()


def test_beside_a_run_it_lives_as_long_as_the_run(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with dashboard_beside(folder / "two"):
        line = capfd.readouterr().out
        match = re.fullmatch(r"dashboard: (http://127\.0\.0\.1:\d+/)#/r/two\n", line)
        assert match is not None, line
        write_run(folder / "two", num_steps=1, finished=False)
        wait_until(lambda: len(get(f"{match[1]}api/runs")["runs"]) == 2, "the new run is found")
    with pytest.raises(urllib.error.URLError):
        get(f"{match[1]}api/runs")


def test_it_ends_when_the_process_that_started_it_is_killed(folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from cluster.commands.dashboard import dashboard_beside\n"
        f"with dashboard_beside(Path({str(folder / 'two')!r})): time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        address = parent.stdout.readline().split()[1].split("#")[0]
        assert get(f"{address}api/runs")["folders"] == [str(folder)]
    finally:
        parent.kill()
        parent.communicate()

    def gone() -> bool:
        try:
            get(f"{address}api/runs")
        except OSError:
            return True
        return False

    wait_until(gone, "the dashboard has ended")


def test_a_run_goes_on_without_a_dashboard_that_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_dashboard, "_free_port", lambda: 99_999)
    done = []
    with dashboard_beside(tmp_path / "runs" / "one"):
        done.append(1)
    assert done == [1]
    assert "the dashboard did not start; the run goes on without it" in capfd.readouterr().err


def test_train_starts_it_only_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    beside: list[Path] = []

    class Beside:
        def __init__(self, path: Path) -> None:
            self.path = path

        def __enter__(self) -> None:
            beside.append(self.path)

        def __exit__(self, *_: object) -> None:
            beside.append(self.path)

    def train(*_: object, **__: object) -> SimpleNamespace:
        seen.append(len(beside))
        return SimpleNamespace(status="finished")

    seen: list[int] = []
    monkeypatch.setattr(cli, "dashboard_beside", Beside)
    monkeypatch.setattr(cli, "_late", lambda module, name: train)
    run = tmp_path / "one"
    assert cli.main(["train", "quickstart", "--run-dir", str(run)]) == 0
    assert cli.main(["train", "quickstart", "--run-dir", str(run), "--dashboard"]) == 0
    assert (seen, beside) == ([0, 1], [run, run])


def test_it_answers_within_seconds_of_its_start(folder: Path) -> None:
    started = time.monotonic()
    process = start(str(folder), "--port", "0", env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert get(f"{address}api/runs/one")["info"]["step"] == 1
        assert time.monotonic() - started < START_S
    finally:
        process.kill()
        process.communicate()
