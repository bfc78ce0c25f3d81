"""Whether this machine can shut programs away at all: asked before a run starts, and answered by trying."""

from functools import lru_cache

from rollout.sandbox.backends import BACKENDS
from rollout.sandbox.limits import Limits
from rollout.sandbox.process import START_DEADLINE_S, ProgramError, SandboxedPython, SandboxError, set_subreaper


def usable_backend(wanted: str = "auto") -> str:
    """The first backend that works here, tried with a program that looks around.

    Raises:
        ValueError: none does; says what to install.
    """
    reasons = []
    for backend in BACKENDS if wanted == "auto" else (wanted,):
        reason = _why_not(backend)
        if reason is None:
            return backend
        reasons.append(f"{backend}: {reason}")
    raise ValueError(
        "there is no sandbox on this machine for programs of the model: install bubblewrap (apt-get install bubblewrap)"
        f" or allow user namespaces (sysctl user.max_user_namespaces=10000); {'; '.join(reasons)}"
    )


_LOOK_AROUND = """
import os, socket
assert os.getuid() != 0 and len(os.environ) < 10 and os.listdir("/tmp") == []
assert not any(os.path.exists(path) for path in ("/proc/1", "/sys/kernel", "/home", "/run", "/var"))
for path in ("/x", "/dev/x", "/usr/lib/x"):
    try:
        open(path, "w")
    except OSError:
        continue
    raise SystemExit("a file could be written")
open("/tmp/x", "w").close()
assert [name for _, name in socket.if_nameindex() if name != "lo"] == []
print("closed")
"""


@lru_cache(maxsize=8)
def _why_not(backend: str) -> str | None:
    # Asked for in the process of a run too, which is to stay as it was.
    was_subreaper = set_subreaper(False)
    try:
        with SandboxedPython(backend, Limits(), "script", {"source": _LOOK_AROUND}) as process:
            process.allow(START_DEADLINE_S)
            output, code = process.run_to_end(b"")
            return None if (output, code) == (b"closed\n", 0) else f"it is not closed ({process.how_it_ended()})"
    except (SandboxError, ProgramError) as error:
        return str(error)
    finally:
        set_subreaper(was_subreaper)
