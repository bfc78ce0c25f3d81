"""The reward for programs: run what the model wrote against the tests of the row, in a sandbox.

    completion --> its last fenced block --> a sandbox, a fork for each run --> verdict, made outside --> 0 ... 1

A program that is wrong, crashes or takes too much is 0, and the record says why. A sandbox that fails, or a row whose
tests cannot be run, raises: that is an `error`, and no reward.
"""

from typing import Literal

from reward.code.program import program_of
from reward.code.rows import row_tests
from reward.code.verdict import Procedure, judge
from reward.config import CODE_TOTAL_LIMIT_S
from reward.functions import register
from reward.types import ExplainedScore, RewardInput
from rollout.sandbox.check import usable_backend
from rollout.sandbox.limits import Limits

MAX_SOURCE_CHARS = 100_000


def _check(  # noqa: PLR0913  # its parameters are the configuration, as those of `code`
    score: str = "all",
    time_limit_s: float = 2.0,
    total_limit_s: float = CODE_TOTAL_LIMIT_S,
    memory_mib: int = 512,
    max_processes: int = 32,
    output_kib: int = 1024,
    disk_mib: int = 16,
    tolerance: float = 1e-6,
    backend: str = "auto",
    packages: tuple[str, ...] = (),
) -> None:
    if score not in ("all", "fraction"):
        raise ValueError(f"score has to be 'all' or 'fraction', got {score!r}")
    if backend not in ("auto", "bwrap", "namespaces"):
        raise ValueError(f"backend has to be 'auto', 'bwrap' or 'namespaces', got {backend!r}")
    least = {
        "time_limit_s": (time_limit_s, 0.1),
        "total_limit_s": (total_limit_s, 0.1),
        "memory_mib": (memory_mib, 64),
        "max_processes": (max_processes, 1),
        "output_kib": (output_kib, 1),
        "disk_mib": (disk_mib, 1),
        "tolerance": (tolerance, 0),
    }
    for name, (value, minimum) in least.items():
        if not isinstance(value, (int, float)) or not minimum <= value < 10**9:
            raise ValueError(f"{name} has to be at least {minimum}, got {value!r}")
    # Before a run starts, and not when the first program comes.
    usable_backend(backend, tuple(packages), Limits(memory_bytes=memory_mib * 2**20))


def _check_row(item: RewardInput, packages: tuple[str, ...] = (), **_others: object) -> None:
    row_tests(item, tuple(packages))


@register("code", check=_check, check_row=_check_row)
def code(  # noqa: PLR0913  # its parameters are the configuration
    item: RewardInput,
    score: Literal["all", "fraction"] = "all",
    time_limit_s: float = 2.0,
    total_limit_s: float = CODE_TOTAL_LIMIT_S,
    memory_mib: int = 512,
    max_processes: int = 32,
    output_kib: int = 1024,
    disk_mib: int = 16,
    tolerance: float = 1e-6,
    backend: Literal["auto", "bwrap", "namespaces"] = "auto",
    packages: tuple[str, ...] = (),
) -> ExplainedScore:
    """1 when the program passes every test, else 0; with `score: fraction` the part of the tests that it passes.

    The columns of the row that hold the tests are described in reward/code/row_tests.py and data_sets.py. Programs have
    Python's standard library and the installed `packages`, with what those require.

    Limits are for one test (`time_limit_s`), for all tests together (`total_limit_s`, and no more than `time_limit_s`
    for each) and for all processes of a program together (the others). Times are the program's own, so they do not
    depend on what else the machine does: processor time, and time in which it has nothing to do.

    Raises:
        ValueError: the row has no tests, or tests that cannot be run.
        SandboxError: the sandbox failed.
    """
    packages = tuple(packages)
    row = row_tests(item, packages)
    source = program_of(item.completion)
    if not source.strip():
        return ExplainedScore(0.0, "no program")
    if len(source) > MAX_SOURCE_CHARS:
        return ExplainedScore(0.0, f"the program has more than {MAX_SOURCE_CHARS} characters")
    limits = Limits(
        time_s=time_limit_s,
        total_s=total_limit_s,
        memory_bytes=memory_mib * 2**20,
        processes=max_processes,
        output_bytes=output_kib * 2**10,
        disk_bytes=disk_mib * 2**20,
    )
    procedure = Procedure(
        backend=usable_backend(backend),
        limits=limits,
        tolerance=tolerance,
        stops_at_failure=score == "all",
        packages=packages,
    )
    verdict = judge(row.source(source), row.tests, procedure, row.checker)
    passed = verdict.num_passed / verdict.num_tests
    return ExplainedScore(passed if score == "fraction" else float(passed == 1.0), verdict.detail)
