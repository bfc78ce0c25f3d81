"""How a Python process is shut away from this machine: two ways, neither needs a container engine.

    bwrap        bubblewrap, where it is installed
    namespaces   the same with the kernel's calls alone (rollout/sandbox/launcher.py)

Both give the process a user, process, network, mount and IPC namespace of its own and a root directory that holds the
Python installation without its site-packages, the system's shared libraries, five devices and an empty /tmp: no home,
no run directory, no /proc, no /sys. What has the same form for both (limits, system calls) is in driver.py.

As root the program runs as an unprivileged user that nobody else is, drawn for each process: RLIMIT_NPROC does nothing
for root, and two programs with one user id would count, and could signal, each other's processes.

Not limited: the number of empty files in bubblewrap's /tmp, about a kilobyte of the kernel's memory each until the
program ends (bubblewrap has no option for it; the other way allows 4096).
"""

import json
import os
import random
import shutil
import stat
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

BACKENDS = ("bwrap", "namespaces")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_LIBRARY_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_INSIDE_UID = 65534
_HIGHEST_UID = 2_000_000_000


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
    """The Python installation that runs this process, without its packages, and the shared libraries it needs."""
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    wanted = [python, sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix})]
    wanted += [sysconfig.get_path("platstdlib", vars={"platbase": sys.base_prefix})]
    if sys.base_prefix not in ("/", "/usr"):
        wanted.append(os.path.join(sys.base_prefix, "lib"))
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
    """A command that starts `python -c driver` in a sandbox."""

    command: tuple[str, ...]
    driver_uid: int | None
    """The user that the driver has to become; None when it is that user already."""


def launch(backend: str, view: View, driver: str, *, info_fd: int, ready_fd: int, disk_bytes: int) -> Launch:
    """The command for `backend`; it writes {"child-pid": ...}, its first process seen from here, to `info_fd`."""
    inside = (view.python, "-I", "-S", "-B", "-X", "utf8", "-c", driver, str(ready_fd))
    if backend == "bwrap":
        return _bubblewrap(view, inside, info_fd, disk_bytes)
    outside_uid = _fresh_uid() if os.geteuid() == 0 else None
    order = {**asdict(view), "disk_bytes": disk_bytes, "info_fd": info_fd, "owner_pid": os.getpid()}
    order |= {"outside_uid": outside_uid, "inside_uid": _INSIDE_UID, "command": inside}
    launcher = Path(__file__).with_name("launcher.py").read_text(encoding="utf-8")
    return Launch(command=(view.python, "-I", "-S", "-B", "-c", launcher, json.dumps(order)), driver_uid=None)


def _bubblewrap(view: View, inside: Sequence[str], info_fd: int, disk_bytes: int) -> Launch:
    command = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--new-session", "--clearenv"]
    command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    uid = _fresh_uid() if os.geteuid() == 0 else None
    if uid is None:
        command += ["--unshare-user", "--uid", str(_INSIDE_UID), "--gid", str(_INSIDE_UID), "--cap-drop", "ALL"]
    else:
        # Of root's rights only that to become somebody else, which the driver does before it says that it is ready.
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    # Made by hand, because bubblewrap makes the folders above a private one private too, and the program is not root.
    parents = {str(parent) for path in (*view.folders, *view.devices) for parent in Path(path).parents}
    for parent in sorted(parents - {"/"}):
        command += ["--perms", "0755", "--dir", parent]
    for path in view.folders:
        command += ["--ro-bind", path, path]
    for path, target in view.links:
        command += ["--symlink", target, path]
    for path in view.hidden:
        command += ["--perms", "0755", "--size", "4096", "--tmpfs", path, "--remount-ro", path]
    for path in view.devices:
        command += ["--dev-bind", path, path]
    command += ["--symlink", "/tmp", "/dev/shm", "--perms", "1777", "--size", str(disk_bytes), "--tmpfs", "/tmp"]
    command += ["--remount-ro", "/", "--chdir", "/tmp", "--info-fd", str(info_fd), "--", *inside]
    return Launch(command=tuple(command), driver_uid=uid)


def _fresh_uid() -> int:
    """A user id that is nobody's: from the upper half of those that exist in this user namespace."""
    ranges = [line.split() for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()]
    start, count = max(((int(first), int(size)) for first, _, size in ranges), key=lambda pair: pair[1])
    last = min(start + count - 2, _HIGHEST_UID)
    return random.SystemRandom().randint(min(start + count // 2, last // 2), last) if count > 2 else _INSIDE_UID
