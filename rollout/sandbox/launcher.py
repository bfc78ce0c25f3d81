"""Make a sandbox with the kernel's calls alone, and run the driver in it. Standard library only: it is sent as code.

    this process        user, mount, network, IPC, UTS namespaces; builds the root directory; gives up its rights
      +- driver         process 1 of a process namespace: when it ends, the kernel kills all that is in there

Each dies with the one above it. Neither keeps a file descriptor or memory of the owner: this is a fresh interpreter.
"""

import ctypes
import os
from typing import Any

_UNSHARE = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x02000000
"""CLONE_NEWUSER, NEWNS, NEWPID, NEWNET, NEWIPC, NEWUTS, NEWCGROUP."""
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH = 2
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def main(control_fd: int, order: dict[str, Any]) -> None:
    """Builds namespaces and a file tree as the order says; the driver's `main` runs in them, and returns from here."""
    place = order.pop("place")
    machine = os.uname().machine
    if machine not in _SYS_PIVOT_ROOT:
        raise SystemExit(f"no system call numbers for {machine}")
    _die_with_parent(place["owner_pid"])
    _enter_namespaces(place["outside_uid"], place["inside_uid"])
    _build_root(place, _SYS_PIVOT_ROOT[machine])
    _give_up_rights(place["inside_uid"])
    # Again, because a change of user clears it.
    _die_with_parent(place["owner_pid"])
    alive, lifeline = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(lifeline)
        _be_first(alive, place["info_fd"])
        names: dict[str, Any] = {"__name__": "driver"}
        exec(order.pop("driver"), names)
        names["main"](control_fd, order)
        return
    os.write(place["info_fd"], b'{"child-pid": %d}' % first)
    # The owner waits for end of file on what the driver writes, so nobody else may hold it.
    os.closerange(0, lifeline)
    os.closerange(lifeline + 1, 1024)
    _, status = os.waitpid(first, 0)
    os._exit(_exit_code(status))


def _enter_namespaces(outside_uid: int | None, inside_uid: int) -> None:
    """Leave the owner's namespaces; with an `outside_uid` (as root) root's rights stay until the root is built."""
    uid, gid, target = os.geteuid(), os.getegid(), os.getpid()
    ready, go = os.pipe()
    mapped, done = os.pipe()
    # Only a process that stayed outside may map a second user.
    helper = os.fork()
    if helper == 0:
        os.close(go)
        os.read(ready, 1)
        if outside_uid is None:
            _write(f"/proc/{target}/setgroups", "deny")
            _write(f"/proc/{target}/uid_map", f"{inside_uid} {uid} 1")
            _write(f"/proc/{target}/gid_map", f"{inside_uid} {gid} 1")
        else:
            for name in ("uid_map", "gid_map"):
                _write(f"/proc/{target}/{name}", f"0 0 1\n{inside_uid} {outside_uid} 1")
        os.write(done, b"R")
        os._exit(0)
    _check(_libc.unshare(ctypes.c_int(_UNSHARE)), "unshare")
    os.write(go, b"R")
    os.close(done)
    if os.read(mapped, 1) != b"R":
        raise SystemExit("the user namespace could not be given its users")
    os.waitpid(helper, 0)
    for fd in (ready, go, mapped):
        os.close(fd)
    if outside_uid is not None:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)


def _build_root(place: dict[str, Any], pivot_root: int) -> None:
    _mount("none", "/", None, _REC | _PRIVATE)
    # Held open from here on, because the new root hides what lies under /tmp. In this mount namespace, not before it:
    # the kernel binds nothing from another.
    wanted = [*place["folders"], *place["packages"], *((path, path) for path in place["devices"])]
    sources = [(os.open(source, os.O_PATH | os.O_CLOEXEC), target) for source, target in wanted]
    root = "/tmp"
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=0755")
    # Before the folders, because Python may be installed below it.
    os.makedirs(root + "/tmp")
    options = f"size={place['disk_bytes']},nr_inodes={place['max_files']},mode=1777"
    _mount("tmpfs", root + "/tmp", "tmpfs", _NOSUID | _NODEV, options)
    for source, target in sources:
        _bind(source, root + target, is_device=target in place["devices"])
    for path, target in [*place["links"], ("/dev/shm", "/tmp")]:
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(target, root + path)
    for path in place["hidden"]:
        _mount("tmpfs", root + path, "tmpfs", _NOSUID | _NODEV | _RDONLY, "size=4k,mode=0755")
    _mount("none", root, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)
    os.chdir(root)
    # The new root over the old one, which is then taken away from under it.
    _check(_libc.syscall(ctypes.c_long(pivot_root), b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _DETACH), "umount2")
    os.chdir("/tmp")
    for source, _ in sources:
        os.close(source)


def _bind(source: int, target: str, *, is_device: bool) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    link = f"/proc/self/fd/{source}"
    if os.path.isdir(link):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(link, target, None, _BIND | _REC)
    if is_device:
        return
    # What the source's mount forbids stays forbidden: the kernel refuses a remount that would lift it.
    flags = os.statvfs(target).f_flag & (_NODEV | _NOEXEC)
    _mount("none", target, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | flags)


def _give_up_rights(inside_uid: int) -> None:
    """Become the program's user; capabilities, which are of this namespace alone, are given up by the driver."""
    if os.getuid() != inside_uid:
        os.setgroups([])
        os.setresgid(inside_uid, inside_uid, inside_uid)
        os.setresuid(inside_uid, inside_uid, inside_uid)


def _be_first(alive: int, info_fd: int) -> None:
    _libc.prctl(_PDEATHSIG, ctypes.c_ulong(9), 0, 0, 0)
    # Its other end dies with the parent, which may have done so before it could be asked to take us with it.
    os.set_blocking(alive, False)
    try:
        if os.read(alive, 1) == b"":
            os._exit(1)
    except BlockingIOError:
        pass
    os.close(alive)
    os.close(info_fd)
    os.setsid()


def _die_with_parent(parent: int) -> None:
    _check(_libc.prctl(_PDEATHSIG, ctypes.c_ulong(9), 0, 0, 0), "PR_SET_PDEATHSIG")
    if os.getppid() != parent:
        os._exit(1)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    arguments = [text.encode() if text is not None else None for text in (source, target, kind, options)]
    done = _libc.mount(arguments[0], arguments[1], arguments[2], ctypes.c_ulong(flags), arguments[3])
    _check(done, f"mount {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise SystemExit(f"{what}: {os.strerror(number)}")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
