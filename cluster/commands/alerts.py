"""The command `shoal alerts RUN`, and the process that does the same beside a run that `shoal train` starts.

A process of its own: the doctor's work and a web address that hangs are nothing to the run, and the end of a run that
was killed outright is told as well.

    shoal train --- settings, then perhaps an error, on stdin ---> shoal alerts RUN --beside
       ends     --- end of file --------------------------------> a last look, the last alerts, the end
"""

import argparse
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.commands.dashboard import Add
from rollout.errors import ConfigError
from rollout.module_loading import SAFE_PYTHON, python_path

if TYPE_CHECKING:
    from cluster.config import AlertConfig
    from cluster.dashboard.exports.alerts import Alert

NICE = 10
"""The run goes first."""
LAST_LOOK_S = 30.0
"""What the last look may take, besides the deadlines of what it sends."""
_STATUS_S = 2.0


def add_alert_commands(add: Add) -> None:
    """Adds the parser."""
    alerts = add(
        "alerts", _alerts, "tell a web address or a command when a run stalls, ends, or the doctor finds something"
    )
    alerts.add_argument("run", type=Path, metavar="RUN", help="a live run")
    alerts.add_argument(
        "words", nargs="*", metavar="key=value", help="as alerts.webhook_env=SLACK; else as the run has it"
    )
    alerts.add_argument("--beside", action="store_true", help=argparse.SUPPRESS)


def _alerts(arguments: argparse.Namespace) -> int:
    from cluster.config import AlertConfig

    if arguments.beside:
        settings = sys.stdin.readline()
        if settings:  # else the run ended before it began
            os.nice(NICE)
            _follow_beside(arguments.run, AlertConfig.model_validate_json(settings))
        return 0
    _follow_alone(arguments.run, _config_of(arguments.run, arguments.words))
    return 0


def _config_of(run: Path, overrides: list[str]) -> "AlertConfig":
    from cluster.commands.resume import own_config
    from cluster.record.run_directory import RunDirectory

    config = own_config(RunDirectory.existing(run).read_config(), overrides, source=str(run)).alerts
    if not config.is_on:
        raise ConfigError(
            "nobody is to be told; give alerts.webhook=URL, alerts.webhook_env=NAME or alerts.command=[...]"
        )
    return config


def _follow_alone(run: Path, config: "AlertConfig") -> None:
    from cluster.dashboard.exports.alerts import follow
    from cluster.dashboard.exports.watched_run import status_of

    def wait(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while (is_live := _is_live()) and time.monotonic() < until:
            time.sleep(min(_STATUS_S, max(0.0, until - time.monotonic())))
        return not is_live

    def _is_live() -> bool:
        return status_of(run) == "live"

    if not _is_live():
        raise ConfigError(f"{run} is not live: nobody writes it, so that there is nothing to wait for")
    send = _sender(config, is_shown=True)
    print(f"watching {run}; Ctrl-C ends it", flush=True)
    follow(run, config, wait=wait, send=send)


def _follow_beside(run: Path, config: "AlertConfig") -> None:
    from cluster.dashboard.exports.alerts import follow
    from cluster.dashboard.views.runs import is_run

    errors: list[str] = []

    def wait(seconds: float) -> bool:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        if not ready:
            return False
        line = sys.stdin.readline()
        if line:
            errors.append(json.loads(line)["error"])
        return True

    send = _sender(config, is_shown=False)
    watch = follow(run, config, wait=wait, send=send, errors=errors)
    if errors and not is_run(run):
        for alert in watch.never_began(errors[0]):
            send(alert)


def _sender(config: "AlertConfig", *, is_shown: bool) -> Any:
    from cluster.dashboard.exports.alert_delivery import check_alerts, deliver

    address = check_alerts(config, os.environ)

    def send(alert: "Alert") -> None:
        if is_shown:
            print(f"{time.strftime('%H:%M:%S')}  {alert.text}", flush=True)
        for failure in deliver(alert, address=address, command=config.command, deadline_s=config.deadline_s):
            print(f"shoal: {failure}", file=sys.stderr, flush=True)

    return send


@contextlib.contextmanager
def alerts_beside(run_path: Path, config: "AlertConfig") -> Iterator[None]:
    """Alerts about the run that the block is; nothing where none are configured. Raises ConfigError for what cannot
    work, before the block; nothing that goes wrong later ends the run."""
    if not config.is_on:
        yield
        return
    from cluster.dashboard.exports.alert_delivery import check_alerts

    check_alerts(config, os.environ)
    # A session of its own: Ctrl-C in the terminal is for the run, whose end is then told.
    child = subprocess.Popen(
        [sys.executable, *SAFE_PYTHON, "-m", "cluster.cli", "alerts", str(run_path), "--beside"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(python_path())},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    error_text = None
    try:
        _write(child, config.model_dump(mode="json"))
        yield
    except BaseException as error:
        error_text = str(error) or type(error).__name__
        raise
    finally:
        _end(child, config, error_text)


def _write(child: "subprocess.Popen[bytes]", value: Any) -> None:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended: the run goes on without
        child.stdin.write(json.dumps(value).encode() + b"\n")
        child.stdin.flush()


def _end(child: "subprocess.Popen[bytes]", config: "AlertConfig", error_text: str | None) -> None:
    if error_text is not None:
        _write(child, {"error": error_text})
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    try:
        child.wait(LAST_LOOK_S + 2 * config.deadline_s)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        print("shoal: the last alerts were given up: they took too long", file=sys.stderr)
        child.kill()
        child.wait()
