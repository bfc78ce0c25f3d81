"""How a Python process is shut away from this machine: two ways, neither needs a container engine.

    bwrap        bubblewrap, where it is installed
    namespaces   the same with the kernel's calls alone (rollout/sandbox/launcher.py)

Both give the process a user, process, network, mount and IPC namespace of its own and a root directory that holds the
Python installation without its site-packages, the system's shared libraries, five devices and an empty /tmp: no home,
no run directory, no /proc, no /sys. What has the same form for both (limits, system calls) is in driver.py.

As root the program runs as an unprivileged user that nobody else is, drawn for each sandbox: RLIMIT_NPROC does nothing
for root, and two programs with one user id would count, and could signal, each other's processes.
"""

import marshal
import os
import random
import shutil
import stat
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

from rollout.sandbox.packages import PACKAGES_FOLDER
from rollout.sandbox.syscalls import system_call_filter

BACKENDS = ("bwrap", "namespaces")
MAX_FILES = 4096
"""Files and folders in /tmp: an empty one takes about a kilobyte of the kernel's memory, which no size counts."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_LIBRARY_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_TAKEN_FOLDERS = ("/dev", "/proc", "/sys")
"""What a program gets anew, or not at all."""
# Libraries for numbers start a thread for each core of the machine, which a program is not given.
ENVIRONMENT = {
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""What a program has, all of it."""
_INSIDE_UID = 65534
_HIGHEST_UID = 2_000_000_000

# What the interpreter runs: it reads a message with code of this project, which so is compiled once and not each time.
_BOOTSTRAP = """
import marshal, posix, sys
fd, received, wanted = int(sys.argv[1]), b"", 8
while len(received) < wanted:
    chunk = posix.read(fd, wanted - len(received))
    if not chunk: raise SystemExit("the order ended early")
    received += chunk
    if len(received) == 8 == wanted: wanted += int.from_bytes(received, "big")
order, names = marshal.loads(received[8:]), {"__name__": "first"}
del received, chunk
exec(order.pop("first"), names)
names["main"](fd, order)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What of this machine's files the program sees, all read-only, under their own paths."""

    python: str
    """The interpreter."""
    folders: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    """(path, target) of symbolic links, such as /lib -> usr/lib."""
    hidden: tuple[str, ...]
    """Folders inside `folders` that are empty in the sandbox: installed packages."""
    devices: tuple[str, ...]


def python_view() -> View:
    """The Python installation that runs this process, without its packages, and the shared libraries it needs.

    Raises:
        ValueError: it is installed where a sandbox cannot show it.
    """
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    wanted = [python, sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix})]
    wanted += [sysconfig.get_path("platstdlib", vars={"platbase": sys.base_prefix})]
    if sys.base_prefix not in ("/", "/usr"):
        wanted.append(os.path.join(sys.base_prefix, "lib"))
    for path in wanted:
        if os.path.realpath(path).startswith(tuple(f"{folder}/" for folder in _TAKEN_FOLDERS)):
            raise ValueError(
                f"Python is installed in {os.path.realpath(path)}, which a sandbox has in a form of its own: make the "
                "virtual environment with a Python that lies elsewhere"
            )
    wanted += [*_LIBRARY_FOLDERS, "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    links = tuple((path, os.readlink(path)) for path in _LIBRARY_FOLDERS if os.path.islink(path))
    linked = {path for path, _ in links}
    folders: list[str] = []
    for path in sorted({os.path.realpath(path) for path in wanted if path not in linked and os.path.exists(path)}):
        if not any(path == known or path.startswith(known + "/") for known in folders):
            folders.append(path)
    hidden = {
        str(found)
        for folder in folders
        for pattern in ("site-packages", "dist-packages", "python*/site-packages", "python*/dist-packages")
        for found in Path(folder).glob(pattern)
        if found.is_dir() and not found.is_symlink()
    }
    devices = tuple(path for path in _DEVICES if os.path.exists(path) and stat.S_ISCHR(os.stat(path).st_mode))
    return View(python=python, folders=tuple(folders), links=links, hidden=tuple(sorted(hidden)), devices=devices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How the first process of a sandbox is started, and what it is told."""

    command: tuple[str, ...]
    message: bytes
    """For `control_fd`, once the process is there: code and order."""


def launch(
    backend: str,
    view: View,
    order: dict[str, Any],
    *,
    control_fd: int,
    info_fd: int,
    packages: Sequence[tuple[str, str]] = (),
) -> Launch:
    """For `backend`; the sandbox writes {"child-pid": ...}, its process 1 as seen from here, to `info_fd`.

    `order` is the driver's, and has the size of /tmp as `disk_bytes`. `packages` are pairs of a path here and the path
    where programs see it.
    """
    inside = (view.python, "-I", "-S", "-B", "-X", "utf8", "-c", _BOOTSTRAP, str(control_fd))
    order = {**order, "filter": system_call_filter(os.uname().machine), "uid": None, "max_files": None}
    order["packages"] = PACKAGES_FOLDER if packages else None
    driver, disk_bytes = _code("driver"), order["disk_bytes"]
    uid = _fresh_uid() if os.geteuid() == 0 else None
    if backend == "bwrap":
        order |= {"first": driver, "uid": uid, "max_files": MAX_FILES}
        command = _bubblewrap(view, inside, info_fd, disk_bytes, packages, is_root=uid is not None)
        return Launch(command=command, message=_message(order))
    place = {
        "folders": [(path, path) for path in view.folders],
        "packages": list(packages),
        "links": list(view.links),
        "hidden": list(view.hidden),
        "devices": list(view.devices),
        "disk_bytes": disk_bytes,
        "max_files": MAX_FILES,
        "info_fd": info_fd,
        "owner_pid": os.getpid(),
        "outside_uid": uid,
        "inside_uid": _INSIDE_UID,
    }
    order |= {"first": _code("launcher"), "driver": driver, "place": place}
    return Launch(command=inside, message=_message(order))


def _message(order: dict[str, Any]) -> bytes:
    # The other side runs the same interpreter, and nothing but this comes to it.
    payload = marshal.dumps(order)
    return len(payload).to_bytes(8, "big") + payload


@lru_cache(maxsize=2)
def _code(name: str) -> CodeType:
    path = Path(__file__).with_name(f"{name}.py")
    return compile(path.read_text(encoding="utf-8"), path.name, "exec", dont_inherit=True, optimize=2)


def _bubblewrap(
    view: View,
    inside: Sequence[str],
    info_fd: int,
    disk_bytes: int,
    packages: Sequence[tuple[str, str]],
    *,
    is_root: bool,
) -> tuple[str, ...]:
    command = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--new-session", "--as-pid-1"]
    command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    # To bound the files in /tmp, for which bubblewrap has no option. The driver gives it up before it is ready.
    command += ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"]
    if is_root:
        # Of root's other rights only that to become somebody else, which the driver does.
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user", "--uid", str(_INSIDE_UID), "--gid", str(_INSIDE_UID)]
    # Before the folders, because Python may be installed below it.
    command += ["--perms", "1777", "--size", str(disk_bytes), "--tmpfs", "/tmp"]
    binds = [*((path, path) for path in view.folders), *packages]
    # Made by hand, because bubblewrap makes the folders above a private one private too, and the program is not root.
    parents = {str(parent) for path in (*(to for _, to in binds), *view.devices) for parent in Path(path).parents}
    for parent in sorted(parents - {"/", "/tmp"}):
        command += ["--perms", "0755", "--dir", parent]
    for source, target in binds:
        command += ["--ro-bind", source, target]
    for path, target in view.links:
        command += ["--symlink", target, path]
    for path in view.hidden:
        command += ["--perms", "0755", "--size", "4096", "--tmpfs", path, "--remount-ro", path]
    for path in view.devices:
        command += ["--dev-bind", path, path]
    command += ["--symlink", "/tmp", "/dev/shm", "--remount-ro", "/", "--chdir", "/tmp"]
    return (*command, "--info-fd", str(info_fd), "--", *inside)


def _fresh_uid() -> int:
    """A user id that is nobody's: from the upper half of those that exist in this user namespace."""
    ranges = [line.split() for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()]
    start, count = max(((int(first), int(size)) for first, _, size in ranges), key=lambda pair: pair[1])
    last = min(start + count - 2, _HIGHEST_UID)
    return random.SystemRandom().randint(min(start + count // 2, last // 2), last) if count > 2 else _INSIDE_UID
