"""The owner's end of a template: start the process, fork children from it, kill and reap them, end it."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rollout.children.messages import PeerClosedError, receive_json, send_pickle
from rollout.children.template import FORK, PID, REAP
from rollout.errors import ConfigError, ShoalError
from rollout.module_loading import SAFE_PYTHON, ours_first

CONTROL_DEADLINE_S = 30.0
"""A fork takes milliseconds; a template that needs longer than this is stuck, and is replaced."""
_CLOSE_DEADLINE_S = 5.0
# The path is handed over as it is: the template has to find the modules that its owner finds.
_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); from rollout.children.template import main; "
    "main(int(sys.argv[1]), int(sys.argv[2]))"
)
# Libraries that start a thread for each core at import would make the template multi-threaded, and each child slow.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A forked process, and the socket on which it is asked."""

    pid: int
    requests: socket.socket


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the children of a template do, and the words for its errors."""

    body: str
    """Import path of what makes a `rollout.children.template.Body` of the payload, in the template."""
    error: type[ShoalError]
    what: str
    """What is imported, in the plural: "the reward functions math, code"."""
    setting: str
    """Of the configuration, which says how long that may take."""


class Template:
    """One template process.

    Errors:
        ConfigError: the body says that what it is given cannot be loaded.
        kind.error: it was not loaded within `start_deadline_s`, or the process ended.
    """

    def __init__(self, kind: Kind, payload: Any, start_deadline_s: float) -> None:
        self._kind = kind
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        self._ended = threading.Event()
        try:
            self._process = self._start(theirs)
        finally:
            theirs.close()
        try:
            send_pickle(self._control, (kind.body, payload), time.monotonic() + start_deadline_s)
            answer = receive_json(self._control, time.monotonic() + start_deadline_s)
        except (PeerClosedError, TimeoutError) as error:
            self._process.kill()  # it has no children yet, and would not notice the end of its socket in an import
            self.close()
            if isinstance(error, TimeoutError):
                raise kind.error(
                    f"{kind.what} were not imported within {start_deadline_s:g} s ({kind.setting}): import less in "
                    "their modules, or allow more"
                ) from error
            raise kind.error(
                f"{kind.what} could not be imported by the process that runs them (exit code "
                f"{self._process.returncode}); its error output says why"
            ) from error
        if "config_error" in answer:
            self.close()
            raise ConfigError(answer["config_error"])
        self.greeting: Any = answer["greeting"]
        """The body's."""

    def _start(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        """Start the process from a thread that lives as long as it: PR_SET_PDEATHSIG fires when that thread ends."""
        started: list[subprocess.Popen[bytes] | OSError] = []
        is_started = threading.Event()
        # Absolute, because "" means the working directory and that may change; strings, because tools add others.
        path = ours_first(entry for entry in sys.path if isinstance(entry, str))
        words = [str(theirs.fileno()), str(os.getpid()), json.dumps(path)]
        command = [sys.executable, *SAFE_PYTHON, "-c", _BOOTSTRAP, *words]

        def keep() -> None:
            try:
                started.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        pass_fds=[theirs.fileno()],
                        env={**os.environ, **_ONE_THREAD},
                        start_new_session=True,
                    )
                )
            except OSError as error:
                started.append(error)
            is_started.set()
            self._ended.wait()

        threading.Thread(target=keep, name="template-parent", daemon=True).start()
        if not is_started.wait(CONTROL_DEADLINE_S):
            raise self._kind.error(f"the process for {self._kind.what} did not start within {CONTROL_DEADLINE_S:g} s")
        if isinstance(started[0], OSError):
            raise self._kind.error(
                f"the process for {self._kind.what} could not be started: {started[0]}"
            ) from started[0]
        return started[0]

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def fork(self) -> Child:
        """A fresh child.

        Raises:
            PeerClosedError, TimeoutError: the template is gone or stuck.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._lock:
                self._control.settimeout(CONTROL_DEADLINE_S)
                socket.send_fds(self._control, [FORK], [theirs.fileno()])
                pid = receive_json(self._control, time.monotonic() + CONTROL_DEADLINE_S)["pid"]
        except OSError as error:
            ours.close()
            raise _as_gone(error) from error
        except PeerClosedError:
            ours.close()
            raise
        return Child(pid=pid, requests=ours)

    def reap(self, child: Child) -> int:
        """Kill `child` with its process group; its exit code, or minus the signal that ended it.

        Raises:
            PeerClosedError, TimeoutError: the template is gone or stuck; the child dies with it.
        """
        child.requests.close()
        try:
            with self._lock:
                self._control.settimeout(CONTROL_DEADLINE_S)
                self._control.sendall(REAP + PID.pack(child.pid))
                return int(receive_json(self._control, time.monotonic() + CONTROL_DEADLINE_S)["exit_code"])
        except OSError as error:
            raise _as_gone(error) from error

    def close(self) -> None:
        """End the template and all children; idempotent."""
        # Shut down, not only closed: a thread that waits in `fork` or `reap` wakes up, and the template reads the end.
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_CLOSE_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the children die with it: PR_SET_PDEATHSIG
            self._process.wait(_CLOSE_DEADLINE_S)
        self._ended.set()
        self._control.close()


def _as_gone(error: OSError) -> Exception:
    return error if isinstance(error, TimeoutError) else PeerClosedError(f"the template is gone: {error}")
