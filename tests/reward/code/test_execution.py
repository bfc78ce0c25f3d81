"""The code reward: hostile programs get nothing and leave nothing, ordinary ones are judged right, in every sandbox."""

import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from reward.code.execution import code
from reward.config import RewardConfig, RewardFunctionConfig
from reward.types import ExplainedScore, RewardOutcome
from reward.worker import RewardWorker, validate_reward_config
from rollout.errors import ConfigError
from rollout.sandbox import check, limits
from rollout.sandbox.check import usable_backend
from rollout.sandbox.limits import Limits, descendants
from rollout.sandbox.process import SandboxError
from rollout.sandbox.sandbox import Contents, Sandbox, set_subreaper
from tests.reward.hostile_owner import Owner, adding
from tests.reward.hostile_programs import HOSTILE
from tests.reward.normal_programs import NORMAL
from tests.reward.samples import group, item

pytestmark = pytest.mark.integration

TIME_LIMIT_S = 1.0
_AT_A_TIME = 4
_WHY = {
    "ptrace": "refused", "process_vm_readv": "refused", "kills all": "still here", "every file": "nothing",
    "memory that is nobody's": "not permitted", "gigabytes in forks": "MiB of memory", "threads": "start new thread",
    "files that fill the disk": "No space left", "ten gigabytes": "MemoryError", "socket outside": "not permitted",
    "a gigabyte of errors": "it wrote more than", "raw netlink": "not permitted", "become root": "not permitted",
}  # fmt: skip
"""How those end of which a guard would not be missed otherwise."""


def _usable() -> list[str]:
    found = []
    for backend in ("bwrap", "namespaces"):
        with suppress(ValueError):
            found.append(usable_backend(backend))
    return found


@pytest.fixture(params=["bwrap", "namespaces"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param not in _usable():
        pytest.skip(f"{request.param} does not work on this machine")
    return str(request.param)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """As a subreaper this process becomes the parent of whatever outlives its own parent, and then finds it."""
    was_subreaper = set_subreaper(True)
    before = set(descendants(os.getpid()))
    yield
    set_subreaper(was_subreaper)
    assert set(descendants(os.getpid())) <= before


def score(source: str, row: dict[str, Any], **params: Any) -> ExplainedScore:
    return code(item(source, None, row=row), **params)


ADDING = adding(("3 4\n", "7\n"), ("1 1\n", "2\n"))
ADD = "print(sum(map(int, input().split())))"


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    made = Owner(tmp_path)
    monkeypatch.setenv("SHOAL_SECRET", made.secret)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield made
    for listener in made.listeners:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_hostile_programs_get_nothing_and_leave_nothing(backend: str, owner: Owner) -> None:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before_s = _children_cpu_s()
    durations_s: dict[str, float] = {}

    def run(name: str) -> ExplainedScore:
        kind, template = HOSTILE[name]
        started_s = time.monotonic()
        params = {"time_limit_s": TIME_LIMIT_S, "total_limit_s": TIME_LIMIT_S, "memory_mib": 256}
        got = score(owner.source(template), owner.row(kind), backend=backend, **params)
        durations_s[name] = time.monotonic() - started_s
        return got

    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        scores = dict(zip(HOSTILE, threads.map(run, HOSTILE), strict=True))
    assert {name: got for name, got in scores.items() if got != 0.0} == {}
    assert [name for name, got in scores.items() if not got.detail] == []
    assert {name: got.detail for name, got in scores.items() if _WHY.get(name, "") not in got.detail} == {}
    assert [name for name, got in scores.items() if owner.secret in got.detail] == []
    # However busy the machine is. What it has to do for them says more: of all, only a few run to their limit.
    assert {name: took_s for name, took_s in durations_s.items() if took_s > limits.deadline_s(TIME_LIMIT_S)} == {}
    assert _children_cpu_s() - before_s < 0.3 * len(HOSTILE) * TIME_LIMIT_S
    assert owner.num_connections == 0
    assert owner.marks() == []
    assert os.path.exists(os.__file__)
    # In KiB. Of a gigabyte of output the reader keeps what is allowed, and no more.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100 * 1024


def test_ordinary_programs_are_judged_right() -> None:
    backends = _usable()
    cases = [
        (f"{name}: {kind} {number}", row, source, float(kind == "right"))
        for name, (row, right, wrong) in NORMAL.items()
        for kind, sources in (("right", right), ("wrong", wrong))
        for number, source in enumerate(sources)
    ]
    assert len(cases) == 100

    def run(number: int) -> tuple[float, str]:
        _, row, source, _ = cases[number]
        backend = backends[number % len(backends)]
        got = score(f"Here it is:\n```python\n{source}\n```\n", row, backend=backend, time_limit_s=9, total_limit_s=9)
        return float(got), got.detail

    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        results = list(threads.map(run, range(len(cases))))
    pairs = zip(cases, results, strict=True)
    assert {name: got for (name, _, _, wanted), got in pairs if got[0] != wanted} == {}


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ("print(8)", "test 1 of 2: wrong output"),
        ("print(7)", "test 2 of 2: wrong output"),
        ("1 / 0", "test 1 of 2: exit code 1: ZeroDivisionError: division by zero"),
        ("while True: pass", "test 1 of 2: it took longer than 1.5 s"),
        ("x = 'x' * 10**9", "test 1 of 2: exit code 1: MemoryError"),
        ("while True: print('x' * 1000)", "test 1 of 2: it wrote more than 1048576 bytes"),
        ("print(7", "SyntaxError: '(' was never closed"),
        ("```\n```", "no program"),
        ("#" * 100_001, "the program has more than 100000 characters"),
    ],
)
def test_a_zero_says_why(backend: str, source: str, detail: str) -> None:
    got = score(source, ADDING, backend=backend, time_limit_s=1.5)
    assert (got, got.detail[-len(detail) :]) == (0.0, detail)


def test_a_fraction_counts_the_tests_that_pass(backend: str) -> None:
    row = adding(("3 4\n", "7\n"), ("1 1\n", "2\n"), ("0 7\n", "7\n"), ("1 2\n", "3\n"))
    assert score(ADD, row, backend=backend, score="fraction", time_limit_s=9, total_limit_s=9) == 1.0
    assert score("print(7)", row, backend=backend, score="fraction", time_limit_s=9, total_limit_s=9) == 0.5
    # One call that kills the process is one test that fails.
    calls = {"entry_point": "f", "tests": [{"input": [n], "output": n} for n in range(4)]}
    dies = "import os\ndef f(n): return os._exit(0) if n == 1 else n"
    assert score(dies, calls, backend=backend, score="fraction", time_limit_s=9, total_limit_s=9) == 0.75


def test_a_program_is_compiled_as_python_does(backend: str) -> None:
    source = "assert True\ndef f(x: int): 'doc'; return x\nprint(f.__annotations__, f.__doc__, __debug__)"
    assert score(source, adding(("", "{'x': <class 'int'>} doc True\n")), backend=backend) == 1.0
    row = {"tests": ["assert kind() == 'type'"]}
    source = "def f(x: int): pass\ndef kind(): return type(f.__annotations__['x']).__name__"
    assert score(source, row, backend=backend) == 1.0


def test_a_hundred_tests_of_a_right_program(backend: str) -> None:
    row = adding(*[(f"{number} 1\n", f"{number + 1}\n") for number in range(100)])
    before_s = _children_cpu_s()
    assert score(ADD, row, backend=backend) == 1.0
    assert _children_cpu_s() - before_s < 1.0  # 10 ms for each, sandbox included
    # Three times as long as its limit, of which each test has the whole.
    slow = f"import time\nwhile time.process_time() < 0.15: pass\n{ADD}"
    assert score(slow, adding(*[("3 4\n", "7\n")] * 6), backend=backend, time_limit_s=0.3) == 1.0
    late = score(f"{ADD}\nif input: 1 / (int('1') - 1)", row, backend=backend)
    assert late.detail == "test 1 of 100: exit code 1: ZeroDivisionError: division by zero"


def test_one_deadline_for_all_tests(backend: str) -> None:
    row = adding(*[("", "1\n")] * 9)
    slow = "import time\ntime.sleep(0.3)\nprint(1)"
    got = score(slow, row, backend=backend, score="fraction", time_limit_s=0.9, total_limit_s=0.9)
    assert 0.0 < got <= 3 / 9


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "the row has no tests: it needs one of the columns tests, test_code, input_output"),
        ({"tests": []}, "the row has no tests"),
        ({"tests": "[1"}, "the column tests is text, but no JSON"),
        ({"tests": [1]}, "every one of tests has to be"),
        ({"tests": [{"input": "1", "output": 1}]}, "tests of a function need the column entry_point"),
        ({"tests": [{"input": 1, "output": 1}], "entry_point": "f"}, "a list of arguments or an object, got 1"),
        ({"tests": [{"input": "x", "output": "1"}], "entry_point": "f"}, "are JSON when they are text"),
        ({"tests": ["assert f("]}, "the tests of the row are no Python"),
        ({"tests": ["assert f()"], "entry_point": "f; g"}, "entry_point has to be a name"),
        ({"test_code": "x = 1"}, "neither an assertion at its top level nor a function check"),
        ({"test_code": "def check(candidate): pass"}, "it needs the column entry_point"),
        ({"test_code": 3}, "the column test_code has to be text, got a int"),
        ({"tests": ["import numpy\nassert f()"]}, "the tests of the row import numpy, which is not in the sandbox"),
        ({"tests": ["__import__('numpy')\nassert f()"]}, "the tests of the row cannot be run: ModuleNotFoundError"),
        ({"tests": ["assert f()"], "test_setup": "1 / 0"}, "the tests of the row cannot be run: ZeroDivisionError"),
    ],
)
def test_a_row_that_cannot_judge_is_an_error_and_no_zero(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"test|entry_point") as raised:
        score("def f(): return 1", row)
    assert message in str(raised.value)


def test_a_name_that_is_another_in_the_program_is_a_zero() -> None:
    row = {"tests": ["assert f([1]) == 1"], "test_setup": "def helper(x: List[int]) -> int: return x"}
    got = score("from typing import List\ndef f(x: List[int]) -> int: return x[0]", row)
    assert (got, got.detail[:20]) == (0.0, "test 1 of 1: TypeErr")


def test_a_sandbox_that_fails_is_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollout.sandbox.backends.shutil.which", lambda _: "/bin/false")
    with (
        pytest.raises(SandboxError, match="the bwrap sandbox did not start \\(exit code 1\\)"),
        Sandbox("bwrap", Limits(), Contents(order={"source": ""})) as sandbox,
        sandbox.run(),
    ):
        pass


def test_without_a_sandbox_a_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_why_not", lambda backend: "it is not there")
    with pytest.raises(ConfigError, match="apt-get install bubblewrap") as raised:
        validate_reward_config(RewardConfig(functions=(RewardFunctionConfig(function="code"),)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"score": "half"}, "params.score: got 'half', allowed: 'all' or 'fraction'"),
        ({"backend": "docker"}, "params.backend: got 'docker', allowed: 'auto', 'bwrap' or 'namespaces'"),
        ({"memory_mib": 1}, "memory_mib has to be at least 64, got 1"),
        ({"time_limit_s": "1"}, "params.time_limit_s: got '1', allowed: a number"),
    ],
)
def test_params_are_checked(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate_reward_config(RewardConfig(functions=(RewardFunctionConfig(function="code", params=params),)))
    assert message in str(raised.value)


def test_the_deadline_of_a_completion_leaves_room_for_its_program() -> None:
    math, code_ = RewardFunctionConfig(function="math"), RewardFunctionConfig(function="code")
    short = RewardFunctionConfig(function="code", name="short", params={"total_limit_s": 2.0})
    assert [function.own_time_s for function in (math, code_, short)] == [0.0, 630.0, 50.0]
    assert RewardConfig(functions=(math, code_, short), timeout_s=3).longest_s == 3 * 3 + 630 + 50


def test_in_the_reward_worker_a_killed_child_takes_its_sandbox_with_it(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {"backend": backend, "time_limit_s": 20.0, "total_limit_s": 20.0}
    config = RewardFunctionConfig(function="code", params=params)
    # Without the time that programs have: here the child is to be killed while one runs.
    monkeypatch.setattr(RewardFunctionConfig, "own_time_s", 0.0)
    worker = RewardWorker(RewardConfig(functions=(config,), timeout_s=4, children_per_worker=2), "reward-0")
    try:
        worker.start()
        alive = len(descendants(os.getpid()))
        daemon = HOSTILE["a daemon"][1] + "\ntime.sleep(99)"
        rewards = worker.score(group([ADD, "print(7)", daemon], row=ADDING)).rewards
        assert [reward.outcome for reward in rewards] == [RewardOutcome.OK, RewardOutcome.OK, RewardOutcome.TIMEOUT]
        assert [reward.reward for reward in rewards] == [1.0, 0.0, None]
        assert rewards[1].detail == "code: test 2 of 2: wrong output"
        deadline_s = time.monotonic() + 1.0
        while len(descendants(os.getpid())) > alive and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert len(descendants(os.getpid())) <= alive
    finally:
        worker.close()


def test_an_owner_that_is_killed_takes_its_sandbox_with_it(backend: str) -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[1:2]\n"
        "from rollout.sandbox.limits import Limits\nfrom rollout.sandbox.process import Allowance\n"
        "from rollout.sandbox.sandbox import Contents, Sandbox\n"
        "source = 'import os, time; os.fork() or os.setsid(); time.sleep(99)'\n"
        "contents = Contents(order={'source': source})\n"
        "with Sandbox(sys.argv[2], Limits(), contents) as sandbox, sandbox.run() as program:\n"
        "  Allowance([program], own_s=99, until_s=1e9); print('started', flush=True); program.run_to_end(b'')"
    )
    command = [sys.executable, "-c", script, str(Path(check.__file__).parents[2]), backend]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"started\n"
        inside: set[int] = set()
        deadline_s = time.monotonic() + 20.0
        while len(inside) < 4 and time.monotonic() < deadline_s:  # launcher, process 1, program and its daemon
            inside = set(descendants(victim.pid)) - {victim.pid}
        assert len(inside) == 4
        victim.kill()
    deadline_s = time.monotonic() + 1.0
    while (left := {pid for pid in inside if _is_running(pid)}) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    for pid in inside:  # orphans that ended are ours now
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    assert left == set()


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_an_ordinary_user(backend: str) -> None:
    python = "/usr/bin/python3"
    if not os.access(python, os.X_OK) or subprocess.run([python, "-c", "import tomllib"]).returncode != 0:
        pytest.skip("no Python of the system that another user may run")
    script = (
        "import sys; sys.path[:0] = sys.argv[1:2]\n"
        "from rollout.sandbox.check import usable_backend\nprint(usable_backend(sys.argv[2]))"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        # A copy, because nobody may look into the home of the one who works here.
        os.chmod(folder, 0o755)
        room = Path(check.__file__).parent
        for package in (room.parent, room):
            copy = Path(folder) / package.relative_to(room.parents[1])
            copy.mkdir(mode=0o755)
            for path in package.glob("*.py"):
                (copy / path.name).write_text(path.read_text())
        done = subprocess.run(
            [python, "-c", script, folder, backend], capture_output=True, text=True, user=65534, group=65534,
            extra_groups=[], cwd="/", timeout=60,
        )  # fmt: skip
    assert (done.stdout, done.returncode) == (f"{backend}\n", 0), done.stderr
