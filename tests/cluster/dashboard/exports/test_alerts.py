"""Alerts: what is told of a run, once each, and the web address and command that get it."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from cluster import cli
from cluster.commands.alerts import alerts_beside
from cluster.config import AlertConfig
from cluster.configuration.loading import load_config
from cluster.configuration.redact import REDACTED
from cluster.dashboard.exports import alerts as alerts_file
from cluster.dashboard.exports.alert_delivery import check_alerts, deliver
from cluster.dashboard.exports.alerts import Alert, AlertWatch
from cluster.dashboard.index.store import RunStore
from cluster.record.instants import run_instant
from cluster.record.run_directory import RunDirectory
from cluster.record.run_lock import run_lock
from cluster.types import Instant, RunSummary
from rollout.errors import ConfigError
from tests.cluster.dashboard.served import wait_until
from tests.cluster.dashboard.small_run import make_run

SECRET = "T0001-B0002-hooksecret"
ALERT = Alert(kind="stall", run="a", text="a: stalled", facts={"idle_s": 5.0})


@dataclass
class Hook:
    """A server of loopback that takes messages, as its mode says."""

    port: int = 0
    mode: str = "ok"
    got: list[dict[str, Any]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/{SECRET}"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            if hook.mode == "hang":
                hook.release.wait(30)
            elif hook.mode == "drip":  # each byte within the deadline of a socket, the whole never
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nx: ")
                while not hook.release.wait(0.05):
                    self.wfile.write(b"x")
            elif hook.mode == "redirect":
                self.send_response(302)
                self.send_header("location", f"http://127.0.0.1:{hook.port}/elsewhere")
                self.end_headers()
            else:
                self.send_response(500 if hook.mode == "fail" else 200)
                self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    hook.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield hook
    hook.release.set()
    server.shutdown()
    server.server_close()


def texts(alerts: list[Alert]) -> list[tuple[str, str]]:
    return [(alert.kind, alert.text) for alert in alerts]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return make_run(tmp_path / "a")


def test_each_thing_is_told_once(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(alerts_file, "doctor_page", lambda store: {"findings": found})

    def finding(rule: str, severity: str) -> dict[str, Any]:
        return {"rule": rule, "severity": severity, "title": f"{rule}!", "since_step": 2, "evidence": "It is 3."}

    store = RunStore(run.path)
    store.refresh()
    found += [finding("old", "error")]
    watch = AlertWatch("a", AlertConfig(webhook="http://x"))
    watch.begin(store)
    assert watch.look(store, is_over=False) == []
    found += [finding("new", "warning"), finding("small", "info")]
    assert texts(watch.look(store, is_over=False)) == [("finding", "a: warning: new!, since step 2. It is 3.")]
    assert watch.look(store, is_over=False) == []
    found[1] = finding("new", "error")
    (worse,) = watch.look(store, is_over=False)
    assert worse.facts == {"rule": "new", "severity": "error", "since_step": 2}
    run.append_event(run_instant(Instant.STALL, "nothing for 60 s\x1b[2J", facts={"idle_s": 60.0}))
    store.refresh()
    assert texts(watch.look(store, is_over=False)) == [("stall", "a: stalled: nothing for 60 s")]
    assert watch.look(store, is_over=False) == []
    run.write_summary(_summary())
    store.refresh()
    assert texts(watch.look(store, is_over=True)) == [
        ("end", "a: failed after 3 steps in 1m05s, accuracy before 25.0%, after 50.0%; error: disk full")
    ]
    only = AlertWatch("a", AlertConfig(webhook="http://x", on=("stall",)))
    assert [alert.kind for alert in only.look(store, is_over=True)] == ["stall"]
    store.close()


def _summary() -> RunSummary:
    return RunSummary(
        status="failed",
        num_steps=3,
        wall_s=65.0,
        accuracy_before=0.25,
        accuracy_after=0.5,
        groups_dispatched=6,
        groups_trained=6,
        groups_rejected={},
        groups_in_flight=0,
        error="disk full",
        policy_version=3,
        weights_digest="",
    )


def test_no_secret_is_told_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_API_KEY", "sk-0123456789")
    (alert,) = AlertWatch("a", AlertConfig(webhook="http://x")).never_began("no sk-0123456789 at http://u:pw@host/")
    assert alert.text == f"a: failed before its first step: no {REDACTED} at http://{REDACTED}@host/"
    address = f"alerts.webhook=https://hooks.example.com/{SECRET}"
    written = RunDirectory.create(tmp_path / "b", load_config("tiny", [address])).path / "config.yaml"
    assert SECRET not in written.read_text()
    assert f"webhook: {REDACTED}" in written.read_text()
    assert cli.main(["plan", "tiny", address]) == 0
    assert SECRET not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mode", "failure"),
    [
        ("ok", None),
        ("fail", "it answered 500"),
        ("redirect", "it answered 302"),
        ("hang", "no answer within 0.3 s"),
        ("drip", "no answer within 0.3 s"),
    ],
)
def test_a_web_address_gets_one_try_within_the_deadline(
    hook: Hook, mode: str, failure: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.dashboard.exports.alert_delivery.GRACE_S", 0.1)
    hook.mode = mode
    started = time.monotonic()
    failures = deliver(ALERT, address=hook.address, command=(), deadline_s=0.3)
    assert time.monotonic() - started < 5.0
    assert hook.got == [{"text": "a: stalled", "content": "a: stalled", "run": "a", "kind": "stall", "idle_s": 5.0}]
    if failure is None:
        assert failures == []
    else:
        (sentence,) = failures
        assert sentence == f"the alert was not taken by 127.0.0.1: {failure}"


def test_an_address_that_nobody_listens_at() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    failures = deliver(ALERT, address=f"http://127.0.0.1:{port}/{SECRET}", command=(), deadline_s=5.0)
    assert "Connection refused" in failures[0]
    assert SECRET not in failures[0]


def test_a_command_gets_the_message_and_the_json(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = f"import sys; open({str(out)!r}, 'w').write(sys.argv[-1] + '|' + sys.stdin.read())"
    assert deliver(ALERT, address=None, command=[sys.executable, "-c", script], deadline_s=30.0) == []
    text, _, body = out.read_text().partition("|")
    assert (text, json.loads(body)["run"]) == ("a: stalled", "a")
    failures = deliver(ALERT, address=None, command=["false"], deadline_s=30.0)
    assert failures == ["the alert was not taken by the command false: it ended with 1"]


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    words = ["sh", "-c", f"sleep 60 & echo $! > {pid}; wait"]
    started = time.monotonic()
    failures = deliver(ALERT, address=None, command=words, deadline_s=1.0)
    assert time.monotonic() - started < 10
    assert failures == ["the alert was not taken by the command sh: it had not ended after 1 s"]
    number = int(pid.read_text())
    wait_until(lambda: not _is_running(number), "the child of the command has ended")


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("config", "environ", "sentence"),
    [
        (AlertConfig(webhook_env="HOOK"), {}, "no environment variable of that name is set"),
        (AlertConfig(webhook_env="HOOK"), {"HOOK": f"file:///{SECRET}"}, "alerts.webhook_env gives no address"),
        (AlertConfig(webhook=f"hooks.example.com/{SECRET}"), {}, "alerts.webhook gives no address"),
        (AlertConfig(webhook=f"http://[{SECRET}"), {}, "alerts.webhook gives no address"),
        (AlertConfig(command=("no-such-program-x",)), {}, "alerts.command begins with 'no-such-program-x'"),
    ],
)
def test_what_cannot_work_is_said_before_the_run(
    config: AlertConfig, environ: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence) as raised:
        check_alerts(config, environ)
    assert SECRET not in str(raised.value)
    with pytest.raises(ConfigError), alerts_beside(tmp_path / "a", config):
        raise AssertionError("the run would have started")
    with pytest.raises(ConfigError, match="both set"):
        load_config("tiny", ["alerts.webhook=http://x", "alerts.webhook_env=Y"])


def test_the_end_of_a_run_is_told_by_a_process_beside_it(hook: Hook, tmp_path: Path) -> None:
    with alerts_beside(tmp_path / "a", AlertConfig(webhook=hook.address)):
        run = make_run(tmp_path / "a")
        run.append_event(run_instant(Instant.STALL, "nothing for 60 s", facts={"idle_s": 60.0}))
        run.write_summary(_summary())
    kinds = [message["kind"] for message in hook.got]
    assert kinds[-1] == "end"
    assert kinds.count("end") == 1
    assert hook.got[-1]["text"].startswith("a: failed after 3 steps")
    assert hook.got[-1]["status"] == "failed"


def test_a_run_that_never_began_is_told(hook: Hook, tmp_path: Path) -> None:
    config = AlertConfig(webhook=hook.address)
    with pytest.raises(ConfigError), alerts_beside(tmp_path / "b", config):
        raise ConfigError("there is no model")
    assert [message["text"] for message in hook.got] == ["b: failed before its first step: there is no model"]


def test_a_stall_after_a_resume_is_told(run: RunDirectory) -> None:
    """The run of yesterday stalled twice after its checkpoint, which the resume takes back; then it stalls again."""
    sizes = run.sizes()
    for number in range(2):
        run.append_event(run_instant(Instant.STALL, f"yesterday {number}"))
    store = RunStore(run.path)
    store.refresh()
    watch = AlertWatch("a", AlertConfig(webhook="http://x", on=("stall",)))
    watch.begin(store)
    run.rewind(2, sizes)
    store.refresh()
    assert watch.look(store, is_over=False) == []
    for text in ("today", "today again"):
        run.append_event(run_instant(Instant.STALL, text))
        store.refresh()
        assert texts(watch.look(store, is_over=False)) == [("stall", f"a: stalled: {text}")]
        assert watch.look(store, is_over=False) == []
    store.close()


def test_a_resume_that_fails_before_its_first_step_tells_its_own_error(hook: Hook, run: RunDirectory) -> None:
    run.write_summary(_summary())
    with pytest.raises(ConfigError), alerts_beside(run.path, AlertConfig(webhook=hook.address)):
        raise ConfigError("there is no model")
    (message,) = hook.got
    assert message["text"] == "a: could not go on after 3 steps: there is no model"
    assert (message["status"], message["num_steps"]) == ("failed", 3)


def test_a_resume_that_fails_later_tells_what_it_wrote(run: RunDirectory) -> None:
    run.write_summary(replace(_summary(), error="yesterday"))
    store = RunStore(run.path)
    store.refresh()
    watch = AlertWatch("a", AlertConfig(webhook="http://x", on=("end",)))
    watch.begin(store)
    run.rewind(2)  # takes the summary away
    store.refresh()
    told = watch.look(store, is_over=True, error="no tracker")
    assert texts(told) == [("end", "a: could not go on after 2 steps: no tracker")]
    run.write_summary(_summary())
    store.refresh()
    (end,) = watch.look(store, is_over=True, error="disk full")
    assert end.text.startswith("a: failed after 2 steps in 1m05s")
    assert end.text.endswith("; error: disk full")
    store.close()


def test_the_command_follows_a_run_of_another_process(
    hook: Hook, run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {**os.environ, "HOOK": hook.address}
    with run_lock(run.path):
        words = [sys.executable, "-m", "cluster.cli", "alerts", str(run.path), "alerts.webhook_env=HOOK"]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)
        assert child.stdout is not None
        assert child.stdout.readline() == f"watching {run.path}; Ctrl-C ends it\n"
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    (message,) = hook.got
    assert (message["kind"], message["status"]) == ("end", "stopped")
    assert message["text"] == "a: stopped after 3 steps; its process is gone without a summary"
    assert message["text"] in out
    assert cli.main(["alerts", str(run.path), "alerts.webhook_env=HOOK"]) == 2
    assert "is not live" in capsys.readouterr().err
    assert cli.main(["alerts", str(run.path)]) == 2
    assert "nobody is to be told" in capsys.readouterr().err
