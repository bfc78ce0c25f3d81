"""Whether this machine can shut programs away at all: asked before a run starts, and answered by trying."""

import os
import time
from functools import lru_cache

from rollout.sandbox.backends import BACKENDS, python_view
from rollout.sandbox.limits import Limits
from rollout.sandbox.packages import imported_name
from rollout.sandbox.process import Allowance, ProgramError, SandboxError
from rollout.sandbox.sandbox import START_DEADLINE_S, Contents, Sandbox, set_subreaper


def usable_backend(wanted: str = "auto", packages: tuple[str, ...] = (), limits: Limits | None = None) -> str:
    """The first backend that works here, tried with a program that looks around and imports `packages`.

    Raises:
        ValueError: none does; says what to install.
    """
    reasons = []
    for backend in BACKENDS if wanted == "auto" else (wanted,):
        reason = _why_not(backend)
        if reason is None:
            _check_packages(backend, packages, limits or Limits())
            return backend
        reasons.append(f"{backend}: {reason}")
    raise ValueError(
        "there is no sandbox on this machine for programs of the model: install bubblewrap (apt-get install bubblewrap)"
        f" or allow user namespaces (sysctl user.max_user_namespaces=10000); {'; '.join(reasons)}"
    )


_LOOK_AROUND = """
import os, socket
assert os.getuid() != 0 and len(os.environ) < 10 and os.listdir("/tmp") == KEPT
assert not any(os.path.exists(path) for path in ("/proc/1", "/sys/kernel", "/home", "/run", "/var"))
for path in ("/x", "/dev/x", "/usr/lib/x"):
    try:
        open(path, "w")
    except OSError:
        continue
    raise SystemExit("a file could be written")
open("/tmp/x", "w").close()
for family in (socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_VSOCK", 40)):
    try:
        socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        continue
    raise SystemExit("a socket could be made")
print("closed")
"""
_NAMESPACES = ("pid", "net", "mnt", "ipc", "uts")


@lru_cache(maxsize=8)
def _why_not(backend: str) -> str | None:
    # What lies in /tmp is the way to this Python, where that is installed there.
    kept = sorted({path.split("/")[2] for path in python_view().folders if path.startswith("/tmp/")})
    source = _LOOK_AROUND.replace("KEPT", repr(kept))
    was_subreaper = set_subreaper(False)  # asked for in the process of a run too, which is to stay as it was
    try:
        with Sandbox(backend, Limits(), Contents(order={"source": source})) as sandbox, sandbox.run() as program:
            shared = [name for name in _NAMESPACES if _namespace("self", name) == _namespace(sandbox.first_pid, name)]
            if shared:
                return f"it is not closed (it shares {', '.join(shared)} with this machine)"
            Allowance([program], own_s=START_DEADLINE_S, until_s=time.monotonic() + START_DEADLINE_S)
            output, code = program.run_to_end(b"")
            return None if (output, code) == (b"closed\n", 0) else f"it is not closed ({program.how_it_ended()})"
    except (OSError, ValueError, SandboxError, ProgramError) as error:
        return str(error)
    finally:
        set_subreaper(was_subreaper)


def _namespace(pid: int | str, name: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{name}")


@lru_cache(maxsize=8)
def _check_packages(backend: str, packages: tuple[str, ...], limits: Limits) -> None:
    """Raises ValueError for a package that programs could not import."""
    was_subreaper = set_subreaper(False)
    try:
        for package in packages:
            contents = Contents(order={"source": f"import {imported_name(package)}"}, packages=packages)
            with Sandbox(backend, limits, contents) as sandbox, sandbox.run() as program:
                Allowance([program], own_s=START_DEADLINE_S, until_s=time.monotonic() + START_DEADLINE_S)
                _, code = program.run_to_end(b"")
                if code != 0:
                    raise ValueError(
                        f"programs cannot import the package {package!r}: {program.how_it_ended()}; raise memory_mib "
                        "or leave it out"
                    )
    except (SandboxError, ProgramError) as error:
        raise ValueError(f"programs cannot import the packages {list(packages)}: {error}") from error
    finally:
        set_subreaper(was_subreaper)
