"""Process 1 of a sandbox: takes its limits, says that it is ready, and forks a process for each run of the program.

Standard library only; nothing of this project can be imported in there. The namespaces exist already
(rollout/sandbox/backends.py); what is done here is the same for each of them:

    another user -> limits -> no new system calls -> "ready" -> for each run: fork, program, end of all it started

Until "ready" no line of a program has run, so a failure before it is the sandbox's and one after it the program's.

This process reads nothing of a program, and a program cannot reach it: as process 1 it gets no signal from inside that
it does not ask for, its memory, limits and priority are behind refused system calls, and the socket to the owner is
closed in each fork. What one run could leave to the next is what it started, which is killed, and /tmp, which is
emptied; where that fails the owner is told, and builds another sandbox.
"""

# Each module here costs every program's sandbox its import: these are in the interpreter, or nearly so. What stands
# before them in a library (ctypes, os, socket) would be half of the start.
import _ctypes
import _signal  # type: ignore[import-not-found]
import _socket
import _struct
import gc
import posix
import resource
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_REMOUNT_TMP = 32 | 2 | 4
"""MS_REMOUNT, NOSUID, NODEV."""
_CAPABILITY_VERSION_3 = 0x20080522
_NUM_STREAMS = 3
_REAP_EVERY_MS = 50
_MAX_DEPTH = 8
"""Of folders in /tmp that are removed between two runs."""

ENDED = _struct.Struct("<iqB")
"""How a run ended, for the owner: exit code, or minus a signal; its processor time in us; whether /tmp is as it was."""


def main(control_fd: int, order: "dict[str, Any]") -> None:
    """Gives up rights, sets limits, says that it is ready, and serves; in a fork it returns from the program."""
    # The owner takes hold of this process first, as long as it is sure to be there.
    if posix.read(control_fd, 1) != b"G":
        raise SystemExit("the owner is gone")
    posix.umask(0o077)
    if order["max_files"] is not None:
        _bound_files(order["max_files"])
    if order["uid"] is not None:
        posix.setgroups([])
        posix.setresgid(order["uid"], order["uid"], order["uid"])
        posix.setresuid(order["uid"], order["uid"], order["uid"])
    _give_up_capabilities()
    limits = dict(order["limits"])
    processor_s = limits.pop("RLIMIT_CPU")
    _limit(limits)
    _refuse_system_calls(order["filter"])
    if posix.getuid() == 0 or posix.geteuid() == 0:
        raise SystemExit("the program would run as root")
    posix.chdir("/tmp")
    if order["packages"] is not None:
        sys.path.append(order["packages"])
    _preload(order["preloaded"])
    for name, code in order["modules"]:
        _install(name, code)
    sys.argv[:] = ["main.py"]
    # What exists now is never collected: a collection in a fork would write to, and so copy, every page.
    gc.freeze()
    # The only signal for which Python has a handler, and so the only one that a program could send to process 1.
    on_interrupt = _signal.signal(2, _signal.SIG_DFL)
    control = _socket.socket(fileno=control_fd)
    control.send(b"R")
    _serve(control)
    _signal.signal(2, on_interrupt)
    # Of the parent of all programs the limit would end all of them.
    _limit({"RLIMIT_CPU": processor_s})
    if order["stage"] == "script":
        _run_script(order["source"])
    else:
        sys.modules[order["stage"]].main(order)


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
    _type_ = "i"


class _Word(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
    _type_ = "L"


class _Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]  # noqa: SLF001
    _type_ = "c"


class _Call(_ctypes.CFuncPtr):
    """A function of the C library; every argument is a whole register."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Int


def _call(name: str, *arguments: "Any") -> None:
    words = [_Word(argument) if isinstance(argument, int) else argument for argument in arguments]
    if _Call(_ctypes.dlsym(_ctypes.dlopen("", 2), name))(*words) != 0:
        raise OSError(_ctypes.get_errno(), f"{name} failed")


def _bound_files(most: int) -> None:
    _call("mount", b"none", b"/tmp", None, _REMOUNT_TMP, f"nr_inodes={most}".encode())


def _give_up_capabilities() -> None:
    _call("capset", _struct.pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24))


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        kind = getattr(resource, name)
        _, most = resource.getrlimit(kind)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))


def _refuse_system_calls(lines: bytes) -> None:
    """A seccomp filter, for this process and all that come from it."""
    kind: Any = type("Lines", (_ctypes.Array,), {"_type_": _Byte, "_length_": len(lines)})
    kept = kind.from_buffer(bytearray(lines))
    program = _struct.pack("HxxxxxxQ", len(lines) // 8, _ctypes.addressof(kept))
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0)


def _preload(names: list[str]) -> None:
    """Import once what every run would import for itself."""
    for name in names:
        try:
            __import__(name)
        except Exception:  # noqa: BLE001 - boundary: any package; the program's own import says what is wrong
            continue


def _install(name: str, code: "Any") -> None:
    """Make a module of the project importable that came as code."""
    kind = type(sys)
    parts = name.split(".")
    for length in range(1, len(parts)):
        package = ".".join(parts[:length])
        sys.modules.setdefault(package, kind(package)).__path__ = []
    module = kind(name)
    sys.modules[name] = module
    exec(code, module.__dict__)


def _serve(control: _socket.socket) -> None:
    """Fork a process for each request of the owner, which is a byte with the three streams; returns in the fork."""
    room = _socket.CMSG_SPACE(_NUM_STREAMS * 4)
    tmp_as_it_was = _attributes("/tmp")
    while True:
        request, attached, _, _ = control.recvmsg(1, room)
        if not request:
            posix._exit(0)  # noqa: SLF001
        streams = _struct.unpack(f"{_NUM_STREAMS}i", attached[0][2])
        before_s = _spent_s()
        child = posix.fork()
        if child == 0:
            for number, stream in enumerate(streams):
                posix.dup2(stream, number)
            control.detach()
            posix.closerange(_NUM_STREAMS, 1024)
            return
        for stream in streams:
            posix.close(stream)
        code = _end_of(child, control)
        spent_us = round(1e6 * (_spent_s() - before_s))
        is_clean = _is_emptied("/tmp") and _attributes("/tmp") == tmp_as_it_was
        control.send(ENDED.pack(code, spent_us, is_clean))


def _spent_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _end_of(child: int, control: _socket.socket) -> int:
    """Wait for `child`, then end whatever it started: all other processes here are of this one run."""
    status = _status_of(child, control)
    while True:
        try:  # noqa: SIM105 - contextlib costs each sandbox its import
            posix.kill(-1, 9)
        except ProcessLookupError:
            pass
        try:
            posix.wait()
        except ChildProcessError:
            return posix.waitstatus_to_exitcode(status)


def _status_of(child: int, control: _socket.socket) -> int:
    """Wait for `child`, and for orphans of the program, which are our children."""
    ended = posix.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    # The owner says nothing during a run, so this is its end. Whose kernel would tell us, bubblewrap's own process, is
    # another user and may not.
    poll.register(control.fileno(), select.POLLIN)
    try:
        while True:
            if control.fileno() in [fd for fd, _ in poll.poll(_REAP_EVERY_MS)]:
                posix._exit(0)  # noqa: SLF001
            pid, status = posix.waitpid(-1, posix.WNOHANG)
            while pid not in (0, child):
                pid, status = posix.waitpid(-1, posix.WNOHANG)
            if pid == child:
                return status
    finally:
        posix.close(ended)


def _attributes(folder: str) -> tuple[int, list[str]]:
    """What a program could change of the folder itself, where that is its own: as an ordinary user's it is."""
    try:
        names = sorted(posix.listxattr(folder))
    except OSError:  # a file system without such attributes
        names = []
    return posix.stat(folder).st_mode, names


def _is_emptied(folder: str) -> bool:
    try:
        _empty(folder, _MAX_DEPTH)
    except OSError:
        return False
    return True


def _empty(folder: str, depth: int) -> None:
    for entry in list(posix.scandir(folder)):
        if not entry.is_dir(follow_symlinks=False):
            posix.unlink(entry.path)
            continue
        if depth > 0:
            posix.chmod(entry.path, 0o700)
            _empty(entry.path, depth - 1)
        posix.rmdir(entry.path)


def _run_script(source: str) -> None:
    """The program as `python main.py`: its exit code, its traceback and its exit handlers are Python's own."""
    module: Any = type(sys)("__main__")
    module.__file__ = "main.py"
    module.__builtins__ = sys.modules["builtins"]
    sys.modules["__main__"] = module
    try:
        exec(compile(source, "main.py", "exec", dont_inherit=True), module.__dict__)
    except SystemExit as error:
        if error.code:
            raise
    # Nobody but its own functions holds its names now, and they go when those do.
    sys.modules.pop("__main__", None)
    del module
    _end_well()


def _end_well() -> None:
    """What Python does at the end of a program, but for taking itself apart: that would copy every shared page.

    What goes wrong here ends the program the long way, which says so.
    """
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()  # noqa: SLF001 - as the interpreter does: threads end first
    if "atexit" in sys.modules:
        sys.modules["atexit"]._run_exitfuncs()  # noqa: SLF001 - as above
    _flush()
    # Files that were not closed write what they hold when they go, and objects may have a last word.
    gc.collect()
    _flush()
    posix._exit(0)  # noqa: SLF001


def _flush() -> None:
    for stream in (sys.stdout, sys.__stdout__, sys.stderr):
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()
