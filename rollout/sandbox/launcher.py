"""Make a sandbox with the kernel's calls alone, and start a command in it. Standard library only: it runs as text.

    this process        user, mount, network, IPC, UTS namespaces; builds the root directory; gives up its rights
      +- init           process 1 of a process namespace: when it ends, the kernel kills all that is in there
           +- command

Each dies with the one above it. None keeps a file descriptor or memory of the owner: this is a fresh interpreter.
"""

import ctypes
import json
import os
import select
import signal
import struct
import sys
from typing import Any, NoReturn

_UNSHARE = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x02000000
"""CLONE_NEWUSER, NEWNS, NEWPID, NEWNET, NEWIPC, NEWUTS, NEWCGROUP."""
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH = 2
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_PDEATHSIG, _NO_NEW_PRIVS = 1, 38
_MAX_FILES = 4096

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Builds namespaces and a file tree as the order says, and runs its command in them."""
    order = json.loads(sys.argv[1])
    machine = os.uname().machine
    if machine not in _SYS_PIVOT_ROOT:
        raise SystemExit(f"no system call numbers for {machine}")
    _die_with_parent(order["owner_pid"])
    _enter_namespaces(order["outside_uid"], order["inside_uid"])
    _build_root(order, _SYS_PIVOT_ROOT[machine])
    _give_up_rights(order["inside_uid"], _SYS_CAPSET[machine])
    # Again, because a change of user clears it.
    _die_with_parent(order["owner_pid"])
    alive, lifeline = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(lifeline)
        _be_init(order["command"], alive, order["info_fd"])
    os.write(order["info_fd"], json.dumps({"child-pid": init}).encode("ascii"))
    # The owner waits for end of file on what the command writes, so nobody else may hold it.
    os.closerange(0, lifeline)
    _, status = os.waitpid(init, 0)
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


def _build_root(order: dict[str, Any], pivot_root: int) -> None:
    _mount("none", "/", None, _REC | _PRIVATE)
    # Held open from here on, because the new root hides what lies under /tmp. In this mount namespace, not before it:
    # the kernel binds nothing from another.
    sources = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in [*order["folders"], *order["devices"]]}
    proc = os.open("/proc/self/fd", os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY)
    root = "/tmp"
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=0755")
    for path, source in sources.items():
        _bind(source, root + path, is_device=path in order["devices"])
    for path, target in [*order["links"], ("/dev/shm", "/tmp")]:
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(target, root + path)
    for path in order["hidden"]:
        _mount("tmpfs", root + path, "tmpfs", _NOSUID | _NODEV | _RDONLY, "size=4k,mode=0755")
    os.makedirs(root + "/tmp")
    options = f"size={order['disk_bytes']},nr_inodes={_MAX_FILES},mode=1777"
    _mount("tmpfs", root + "/tmp", "tmpfs", _NOSUID | _NODEV, options)
    _mount("none", root, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)
    os.chdir(root)
    # The new root over the old one, which is then taken away from under it.
    _check(_libc.syscall(ctypes.c_long(pivot_root), b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _DETACH), "umount2")
    os.chdir("/tmp")
    for source in [*sources.values(), proc]:
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


def _give_up_rights(inside_uid: int, capset: int) -> None:
    if os.getuid() != inside_uid:
        os.setgroups([])
        os.setresgid(inside_uid, inside_uid, inside_uid)
        os.setresuid(inside_uid, inside_uid, inside_uid)
    _check(_libc.prctl(_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    header, nothing = struct.pack("Ii", 0x20080522, 0), bytes(24)
    _check(_libc.syscall(ctypes.c_long(capset), header, nothing), "capset")


def _be_init(command: list[str], alive: int, info_fd: int) -> NoReturn:
    _libc.prctl(_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    poll = select.poll()
    poll.register(alive, select.POLLIN)
    if poll.poll(0):  # the parent died before it could be asked to take us with it
        os._exit(1)
    os.close(alive)
    os.close(info_fd)
    os.setsid()
    first = os.fork()
    if first == 0:
        os.execve(command[0], command, {})
    os.closerange(0, 1024)
    while True:
        pid, status = os.wait()
        if pid == first:
            os._exit(_exit_code(status))


def _die_with_parent(parent: int) -> None:
    _check(_libc.prctl(_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0), "PR_SET_PDEATHSIG")
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


if __name__ == "__main__":
    main()
