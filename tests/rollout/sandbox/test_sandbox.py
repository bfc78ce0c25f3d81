"""One sandbox for many runs: what a run may leave to the next, what it may use, and whose time is counted."""

import math
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from rollout.sandbox import sandbox as sandbox_module
from rollout.sandbox.backends import MAX_FILES, View, python_view
from rollout.sandbox.check import usable_backend
from rollout.sandbox.limits import Limits, descendants
from rollout.sandbox.packages import imported_name, preloaded_modules, shown_packages
from rollout.sandbox.process import Allowance, Program, ProgramError, SandboxError
from rollout.sandbox.sandbox import Contents, Sandbox
from rollout.sandbox.syscalls import system_call_filter

pytestmark = pytest.mark.integration

LONG_S = 60.0


@pytest.fixture(params=["bwrap", "namespaces"])
def backend(request: pytest.FixtureRequest) -> str:
    with suppress(ValueError):
        return usable_backend(str(request.param))
    pytest.skip(f"{request.param} does not work on this machine")


def _sandbox(backend: str, source: str, *, limits: Limits | None = None, packages: tuple[str, ...] = ()) -> Sandbox:
    return Sandbox(backend, limits or Limits(), Contents(order={"source": source}, packages=packages))


def _let(program: Program, own_s: float = LONG_S, until_s: float = LONG_S) -> Allowance:
    return Allowance([program], own_s=own_s, until_s=time.monotonic() + until_s)


def _outputs(sandbox: Sandbox, *inputs: str) -> list[str]:
    found = []
    for stdin in inputs:
        with sandbox.run() as program:
            _let(program)
            output, code = program.run_to_end(stdin.encode())
            found.append(output.decode() if code == 0 else program.how_it_ended())
    return found


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def test_a_further_run_is_a_fork_and_costs_little(backend: str) -> None:
    with _sandbox(backend, "import sys\nprint(int(input()) * 2)") as sandbox:
        assert _outputs(sandbox, "1") == ["2\n"]
        first_pid, before_s = sandbox.first_pid, _cpu_s()
        inside = len(descendants(os.getpid()))
        assert _outputs(sandbox, *map(str, range(50))) == [f"{2 * number}\n" for number in range(50)]
        assert sandbox.first_pid == first_pid
        assert len(descendants(os.getpid())) == inside
    # The forks are waited for by process 1, and that by us.
    assert (_cpu_s() - before_s) / 50 < 0.010


_ENDINGS = {
    "returns": "print('x')",
    "exit": "import sys\nprint('x')\nsys.exit()",
    "exit 0": "print('x')\nexit_ = SystemExit(0)\nraise exit_",
    "exit 3": "print('x')\nraise SystemExit(3)",
    "exit with words": "print('x')\nraise SystemExit('why')",
    "raises": "print('x')\n1 / 0",
    "no newline": "import sys\nsys.stdout.write('x')",
    "a thread": "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.05), print('x'))).start()",
    "exit handlers": "import atexit\natexit.register(print, 'last')\natexit.register(lambda: 1 / 0)\nprint('first')",
    "a file that is not closed": "f = open(1, 'w', closefd=False)\nf.write('x')",
    "another stdout": "import io, sys\nsys.stdout = io.TextIOWrapper(open(1, 'wb', 0))\nprint('x')",
    "stdout is closed": "import sys\nprint('x')\nsys.stdout.close()",
    "a last word": "import sys\nclass A:\n  def __del__(self): sys.stdout.write('x')\na = A()\ndef f(): return a",
    "an object in a circle": "class A:\n  def __del__(self): print('x')\na = A()\na.me = a",
    "a signal": "import os\nprint('x', flush=True)\nos.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("name", _ENDINGS)
def test_a_program_ends_as_in_python(name: str) -> None:
    source = _ENDINGS[name]
    wanted = subprocess.run([sys.executable, "-I", "-c", source], capture_output=True, check=False, timeout=60)
    with _sandbox(usable_backend(), source) as sandbox, sandbox.run() as program:
        _let(program)
        output, code = program.run_to_end(b"")
    assert (output, code if code < 128 else 128 - code) == (wanted.stdout, wanted.returncode)


_LEAVES_SOMETHING = """
import os, sys, time
seen = sorted(os.listdir("/tmp")) + [name for name in os.environ if name == "LEFT"]
try:
    seen.append(open("/tmp/file").read())
except OSError:
    pass
print(seen, [fd for fd in range(3, 64) if os.path.exists("/dev/null") and _is_open(fd)])
what = sys.stdin.readline()
os.environ["LEFT"] = "1"
if what == "files":
    open("/tmp/file", "w").write("left")
    os.makedirs("/tmp/a/b/c")
    os.chmod("/tmp/a", 0)
if what == "deep":
    for number in range(60):
        os.mkdir("x" * 9); os.chdir("x" * 9)
if what == "daemon":
    if os.fork() == 0:
        os.setsid()
        while True:
            open("/tmp/daemon", "w").close()
            time.sleep(0.001)
"""
_IS_OPEN = """
def _is_open(fd):
    import os
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
"""


def test_a_run_leaves_nothing_to_the_next(backend: str) -> None:
    with _sandbox(backend, _IS_OPEN + _LEAVES_SOMETHING) as sandbox:
        _outputs(sandbox, "")
        first_pid = sandbox.first_pid
        assert set(_outputs(sandbox, "files", "daemon", "files", "", "")) == {"[] []\n"}
        assert sandbox.first_pid == first_pid
        # What is nested too deeply to be removed costs another sandbox.
        assert set(_outputs(sandbox, "deep", "")) == {"[] []\n"}
        assert sandbox.first_pid != first_pid


_ATTACKS_PROCESS_1 = """
import ctypes, os, resource, signal
for number in range(1, 65):
    try:
        os.kill(1, number)
        os.kill(-1, number) if number in (9, 15) else None
    except OSError:
        pass
refused = []
for name, attack in {
    "limits": lambda: resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0)),
    "priority": lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
    "cores": lambda: os.sched_setaffinity(1, {0}),
    "scheduler": lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)),
}.items():
    try:
        attack()
    except PermissionError:
        refused.append(name)
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(16, 1, 0, 0) == -1 and ctypes.get_errno() == 1:
    refused.append("ptrace")
fd = os.pidfd_open(1)
if libc.syscall(438, fd, 0, 0) == -1 and ctypes.get_errno() == 1:
    refused.append("descriptors")
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
print(refused)
"""


def test_a_program_cannot_reach_the_process_that_starts_it(backend: str) -> None:
    with _sandbox(backend, _ATTACKS_PROCESS_1) as sandbox:
        refused = ["limits", "priority", "cores", "scheduler", "ptrace", "descriptors"]
        assert _outputs(sandbox, "", "", "") == [f"{refused}\n"] * 3


def test_only_sockets_of_its_own_kind(backend: str) -> None:
    source = (
        "import socket\n"
        "made = []\n"
        "for family in range(46):\n"
        "    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):\n"
        "        try: socket.socket(family, kind); made.append(family)\n"
        "        except OSError: pass\n"
        "a, b = socket.socketpair(); a.send(b'x')\n"
        "print(sorted(set(made)), b.recv(1))"
    )
    with _sandbox(backend, source) as sandbox:
        assert _outputs(sandbox, "") == ["[1] b'x'\n"]  # AF_UNIX


def test_the_number_of_files_is_bounded(backend: str) -> None:
    source = (
        "import os\n"
        "count = 0\n"
        "try:\n"
        "    while True:\n"
        "        os.mkdir(f'/tmp/{count}')\n"
        "        count += 1\n"
        "except OSError as error:\n"
        "    print(count, error.strerror)"
    )
    with _sandbox(backend, source) as sandbox:
        for output in _outputs(sandbox, "", ""):
            count, reason = output.split(maxsplit=1)
            assert MAX_FILES - 16 < int(count) < MAX_FILES
            assert reason == "No space left on device\n"


def test_own_time_is_what_it_computes_and_what_it_sleeps(backend: str) -> None:
    busy = "import time\nwhile time.process_time() < 0.4: pass"
    for source, least_s, most_s in ((busy, 0.35, 0.55), ("import time\ntime.sleep(0.4)", 0.1, 0.6), ("", 0.0, 0.15)):
        with _sandbox(backend, source) as sandbox, sandbox.run() as program:
            allowance = _let(program)
            program.run_to_end(b"")
            assert least_s < allowance.used_s() < most_s, source
    forks = "import os, time\nfor _ in range(3): os.fork()\nwhile time.process_time() < 9: pass"
    for source in ("while True: pass", "import time\ntime.sleep(99)", forks):
        with _sandbox(backend, source) as sandbox, sandbox.run() as program:
            _let(program, own_s=0.3)
            with pytest.raises(ProgramError, match=r"it took longer than 0\.3 s"):
                program.run_to_end(b"")


_IGNORES_CHILDREN = """
import ctypes, os, signal, time
try:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
except PermissionError:
    pass
class Action(ctypes.Structure):
    # struct sigaction of glibc: handler, mask, flags; 2 is SA_NOCLDWAIT.
    _fields_ = [("handler", ctypes.c_void_p), ("mask", ctypes.c_ulong * 16), ("flags", ctypes.c_int)]
ctypes.CDLL(None).sigaction(17, ctypes.byref(Action(None, (ctypes.c_ulong * 16)(), 2)), None)
while True:
    if os.fork() == 0:
        while time.process_time() < 0.02: pass
        os._exit(0)
    try:
        os.wait()
    except ChildProcessError:
        pass
"""


def test_the_time_of_children_counts_whoever_waits_for_them(backend: str) -> None:
    with _sandbox(backend, _IGNORES_CHILDREN) as sandbox, sandbox.run() as program:
        _let(program, own_s=0.5, until_s=20.0)
        with pytest.raises(ProgramError, match=r"it took longer than 0\.5 s"):
            program.run_to_end(b"")
        assert program.total_cpu_s() < 1.5
    children = (
        "import multiprocessing, os, signal, subprocess, sys\n"
        "print(subprocess.run([sys.executable, '-c', 'print(3)'], capture_output=True, text=True).stdout, end='')\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool: print(pool.map(abs, [-1, -2]))"
    )
    with _sandbox(backend, children) as sandbox:
        assert _outputs(sandbox, "") == ["3\n[1, 2]\n"]


@pytest.fixture
def busy_loops() -> Iterator[None]:
    """Two for each core, each in a session of its own: Linux may share a core among sessions, and a program in
    a sandbox has one."""
    words = [sys.executable, "-c", "while True: pass"]
    loops = [subprocess.Popen(words, start_new_session=True) for _ in range(2 * (os.cpu_count() or 1))]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


@pytest.mark.usefixtures("busy_loops")
def test_a_busy_machine_does_not_make_a_program_slow() -> None:
    source = "import time\nwhile time.process_time() < 0.4: pass\nprint('done')"
    with _sandbox(usable_backend(), source) as sandbox, sandbox.run() as program:
        allowance = _let(program, own_s=0.8)
        started_s = time.monotonic()
        assert program.run_to_end(b"") == (b"done\n", 0)
        assert allowance.used_s() < 0.6
        assert time.monotonic() - started_s > 0.6


def test_what_the_wall_clock_cuts_off_is_no_verdict(backend: str) -> None:
    with _sandbox(backend, "while True: pass") as sandbox, sandbox.run() as program:
        _let(program, own_s=LONG_S, until_s=0.2)
        with pytest.raises(SandboxError, match=r"this machine is too busy to judge the program: within 0\.[2-9]"):
            program.run_to_end(b"")


def test_a_package_that_was_asked_for_can_be_imported(backend: str) -> None:
    source = "import numpy as np\nprint(np.linalg.det(np.eye(3) * 2), np.__version__)"
    import numpy

    limits = Limits(memory_bytes=2 << 30)
    with _sandbox(backend, source, limits=limits, packages=("numpy",)) as sandbox:
        value, version = _outputs(sandbox, "")[0].split()
        assert math.isclose(float(value), 8.0)
        assert version == numpy.__version__
    with _sandbox(backend, source) as sandbox:
        assert _outputs(sandbox, "")[0].endswith("ModuleNotFoundError: No module named 'numpy'")


def test_packages_come_with_what_they_require() -> None:
    targets = {target for _, target in shown_packages(("pandas",))}
    assert {"/packages/pandas", "/packages/numpy", "/packages/dateutil"} <= targets
    assert imported_name("python-dateutil") == "dateutil"
    with pytest.raises(ValueError, match="the package 'nowhere-to-be-found' is not installed here"):
        shown_packages(("nowhere-to-be-found",))


def test_what_the_runs_share_is_trusted_code_that_the_program_names() -> None:
    source = "import os, sys as s\nfrom collections import deque\n  import numpy.linalg\nimport antigravity\nimport x"
    assert preloaded_modules(source, ()) == ("collections", "os", "sys")
    assert preloaded_modules(source, ("numpy",)) == ("collections", "numpy", "os", "sys")


def _with_folder(view: View, folder: Path) -> View:
    return View(
        python=view.python,
        folders=tuple(sorted({*view.folders, str(folder)})),
        links=view.links,
        hidden=view.hidden,
        devices=view.devices,
    )


def test_what_python_needs_may_lie_under_tmp(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("/tmp") / f"shoal-test-{os.getpid()}" / "lib"
    folder.mkdir(parents=True)
    try:
        (folder / "found.py").write_text("value = 7\n")
        monkeypatch.setattr(sandbox_module, "_view", lambda: _with_folder(python_view(), folder))
        source = (
            f"import sys; sys.path.append({str(folder)!r})\n"
            "import found\n"
            "try: open(found.__file__, 'a')\n"
            "except OSError: print(found.value, 'not to be written')\n"
            "open('/tmp/mine', 'w').close()"
        )
        with _sandbox(backend, source) as sandbox:
            assert _outputs(sandbox, "", "") == ["7 not to be written\n"] * 2
    finally:
        shutil.rmtree(folder.parent)


def test_a_python_where_a_sandbox_cannot_show_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_base_executable", "/dev/shm/python/bin/python3")
    with pytest.raises(ValueError, match="Python is installed in /dev/shm/python/bin/python3, which a sandbox has in"):
        python_view()


def test_a_machine_whose_system_calls_are_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="no list of system calls for riscv64: programs run on x86_64 and aarch64"):
        system_call_filter("riscv64")
    # A jump is a byte: no block may be longer, and each line is 8 bytes.
    for machine in ("x86_64", "aarch64"):
        assert len(system_call_filter(machine)) % 8 == 0
        assert len(system_call_filter(machine)) // 8 < 4096  # BPF_MAXINSNS
