"""Brings an alert to a web address or a command: one try within a deadline, and never an error for who sends it."""

import json
import os
import shutil
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.parse import urlsplit

from cluster.config import AlertConfig
from cluster.configuration.redact import redact_text
from cluster.dashboard.exports.alerts import Alert
from rollout.errors import ConfigError

GRACE_S = 1.0
"""Between the deadline of a try and the moment at which it is given up all the same."""


def check_alerts(config: AlertConfig, environ: Mapping[str, str]) -> str | None:
    """The web address, if any. Raises ConfigError for what cannot work; the address itself is in no message."""
    address, key = config.webhook, "alerts.webhook"
    if config.webhook_env is not None:
        key = "alerts.webhook_env"
        address = environ.get(config.webhook_env)
        if not address:
            raise ConfigError(
                f"{key} is {config.webhook_env!r}, but no environment variable of that name is set; set it to the "
                "address, or leave the key out"
            )
    if address is not None and not _is_address(address):
        raise ConfigError(
            f"{key} gives no address of http or https, as https://hooks.example.com/x is; it is not shown"
        )
    if config.command and shutil.which(config.command[0]) is None:
        raise ConfigError(f"alerts.command begins with {config.command[0]!r}, which is no program here; name one")
    return address


def deliver(alert: Alert, *, address: str | None, command: Sequence[str], deadline_s: float) -> list[str]:
    """To each of the two that there is. Returns a sentence for each that did not take it."""
    body = json.dumps(
        # Slack and Mattermost read `text`, Discord reads `content`.
        {"text": alert.text, "content": alert.text, "run": alert.run, "kind": alert.kind, **alert.facts}
    ).encode()
    failures = []
    if address is not None and (why := _posted(address, body, deadline_s)) is not None:
        failures.append(f"the alert was not taken by {urlsplit(address).hostname}: {why}")
    if command and (why := _ran([*command, alert.text], body, deadline_s)) is not None:
        failures.append(f"the alert was not taken by the command {command[0]}: {why}")
    return [redact_text(failure) for failure in failures]


def _posted(address: str, body: bytes, deadline_s: float) -> str | None:
    """None when it was taken. In a thread: the deadline of a socket is for each of its reads, not for the answer."""
    outcome: list[str | None] = []
    late = f"no answer within {deadline_s:g} s"

    def post() -> None:
        request = urllib.request.Request(address, body, {"content-type": "application/json", "user-agent": "shoal"})
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=deadline_s):
                outcome.append(None)
        except urllib.error.HTTPError as error:
            outcome.append(f"it answered {error.code}")
        except (OSError, HTTPException, ValueError) as error:
            outcome.append(_why(error, late))

    thread = threading.Thread(target=post, name="alert", daemon=True)
    thread.start()
    thread.join(deadline_s + GRACE_S)
    return outcome[0] if outcome else late


def _why(error: Exception, late: str) -> str:
    """Without the text of the error itself, which may hold the address."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return late
    return getattr(cause, "strerror", None) or type(cause).__name__


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A message goes where it was addressed to, or nowhere."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """None: the redirect is the answer, and an error."""


def _ran(words: Sequence[str], body: bytes, deadline_s: float) -> str | None:
    """None when it ended with 0. With a session of its own, so that all it started can be ended with it."""
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return str(error.strerror or type(error).__name__)
    try:
        child.communicate(body, timeout=deadline_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return f"it had not ended after {deadline_s:g} s"
    return None if child.returncode == 0 else f"it ended with {child.returncode}"


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable() and " " not in text
