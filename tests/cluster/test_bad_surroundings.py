"""A full disk, a changed run, no Ray where one is said to be: told in bounded time, and nothing lost."""

import asyncio
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.config import CheckpointConfig
from cluster.configuration.loading import load_config
from cluster.errors import ClusterError, ResumeError
from cluster.fleet.actors import Fleet
from cluster.fleet.ray_session import CONNECT_DEADLINE_S, ray_session
from cluster.groups.ledger import LedgerState
from cluster.record.append_log import RunWriteError
from cluster.record.run_directory import RunDirectory
from cluster.weights.checkpointing import Checkpoints, check_fingerprints
from cluster.weights.run_state import Fingerprints, RunState
from learner.saving.files import newest_valid
from rollout.prompts.stream import PromptStreamState
from tests.cluster.examples import scored

NOBODY = Fleet(samplers=(), learners=(), rewards=(), placement_group=None, launcher=None)  # type: ignore[arg-type]
"""No learners: what is saved here is the run's own state."""
FINGERPRINTS = Fingerprints(model="m" * 64, tokenizer="t" * 64, data="d" * 64, group_size=8, config="c" * 16)


def state(step: int, *, num_groups: int = 0) -> RunState:
    return RunState(
        step=step,
        policy_version=step,
        stream=PromptStreamState(index=0, seed=0, fingerprint="f"),
        ledger=LedgerState(),
        requeued=tuple(scored(index, []).group.prompt for index in range(num_groups)),
        fingerprints=FINGERPRINTS,
    )


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """The kernel refuses to write beyond: what a full disk is, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path: Path) -> None:
    warnings: list[str] = []
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(), warn=warnings.append)
    first = asyncio.run(checkpoints.save(NOBODY, state(1)))
    with files_of_at_most(4096):
        assert asyncio.run(checkpoints.save(NOBODY, state(2, num_groups=100))) is None
    assert len(warnings) == 1
    assert warnings[0].startswith("checkpoint of step 2 was not written, the one before stays: ")
    assert "File too large" in warnings[0]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert newest_valid(tmp_path) == first
    assert asyncio.run(checkpoints.save(NOBODY, state(2, num_groups=100))) == tmp_path / "step-00000002"


def test_a_disk_that_is_really_full() -> None:
    """In a user namespace with a file system of 64 KiB: the run directory says so and removes what it began."""
    code = """
import errno, os, sys
from pathlib import Path
from typing import Any
from cluster.record.append_log import RunDirectoryError
from cluster.configuration.loading import load_config
from cluster.record.run_directory import RunDirectory
disk = Path(sys.argv[1])
config = load_config("tiny")
run = RunDirectory.create(disk / "a", config)
run.append_metrics(0, {"reward/mean": 1.0})
try:
    with open(disk / "ballast", "wb") as ballast:
        ballast.write(bytes(1 << 20))
except OSError as error:
    assert error.errno == errno.ENOSPC, error
for action in (lambda: run.append_metrics(1, {"text" * 2000: 1.0}), lambda: RunDirectory.create(disk / "b", config)):
    try:
        action()
    except RunDirectoryError as error:
        print(error)
assert run.read_log("metrics") == [{"step": 0, "reward/mean": 1.0}]
assert run.read_config() == config
assert not (disk / "b").exists()
"""
    script = 'd=$(mktemp -d) && mount -t tmpfs -o size=64k none "$d" && exec "$0" -c "$1" "$d"'
    command = ["unshare", "-rm", "sh", "-c", script]
    if subprocess.run([*command[:4], "mount -t tmpfs none /mnt"], capture_output=True, timeout=30).returncode:
        pytest.skip("this system gives no user namespace with mounts")
    result = subprocess.run([*command, sys.executable, code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    told = result.stdout.splitlines()
    assert len(told) == 2
    assert "a/metrics.jsonl: " in told[0]
    assert told[1].endswith(
        "b: No space left on device; make room or fix permissions there, or choose another place "
        "with --run-dir or runs_dir"
    )


def test_a_summary_that_does_not_fit_leaves_the_logs(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "a", load_config("tiny"))
    run.append_metrics(0, {"reward/mean": 1.0})
    config = (run.path / "config.yaml").read_bytes()
    with files_of_at_most(100), pytest.raises(RunWriteError, match=r"cannot write .*config.yaml: File too large; make"):
        run.write_config(load_config("tiny", ["seed=5"]))
    assert (run.path / "config.yaml").read_bytes() == config
    assert run.read_log("metrics") == [{"step": 0, "reward/mean": 1.0}]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"model": "n" * 64}, "its model changed (was nnnnnnnnnnnn, is mmmmmmmmmmmm); restore it, or start a new run"),
        ({"tokenizer": "n" * 64}, "its tokenizer changed (was nnnnnnnnnnnn, is tttttttttttt)"),
        ({"data": "n" * 64}, "its data changed (was nnnnnnnnnnnn, is dddddddddddd)"),
        ({"group_size": 4}, "its rollout.group_size changed (was 4, is 8)"),
    ],
)
def test_a_changed_run_is_not_resumed(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ResumeError) as caught:
        check_fingerprints(FINGERPRINTS, replace(FINGERPRINTS, **changed), Path("runs/a"))
    assert str(caught.value).startswith(f"runs/a cannot be resumed: {sentence}")


def test_another_configuration_alone_is_no_reason_to_refuse() -> None:
    check_fingerprints(FINGERPRINTS, replace(FINGERPRINTS, config="x" * 16), Path("runs/a"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_an_address_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.fleet.ray_session.CONNECT_DEADLINE_S", 1.0)
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    started_s = time.monotonic()
    with pytest.raises(ClusterError) as caught, ray_session(num_cpus=1.0):
        pass
    assert time.monotonic() - started_s < 10.0
    assert str(caught.value) == (
        f"no Ray cluster answers at {address} (RAY_ADDRESS) within 1 s: [Errno 111] Connection refused; start it, "
        "correct the address, or unset RAY_ADDRESS to run on this machine"
    )
    assert CONNECT_DEADLINE_S <= 30.0


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:8265"])
def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    told = r"could not join the Ray cluster at .* \(RAY_ADDRESS\): .*; check the"
    with pytest.raises(ClusterError, match=told), ray_session(num_cpus=1.0):
        pass


def test_more_actors_than_the_machine_can_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    with pytest.raises(ClusterError) as caught, ray_session(num_cpus=13.0):
        pass
    assert str(caught.value).startswith(
        "the run asks for 13 CPUs, but this machine has 3, which actors may share up to 12; use fewer or smaller actors"
    )


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_whose_name_is_too_long_for_sockets(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[str] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr("ray.init", lambda **_: started.append(os.environ[variable]))
    monkeypatch.setattr("os.getpid", lambda: 12345)
    # 107 bytes, less 66 of "/ray/session_2026-01-01_00-00-00_000000_12345/sockets/plasma_store".
    fits, too_long = "/" + "x" * 40, "/" + "x" * 41
    monkeypatch.setenv(variable, too_long)
    with pytest.raises(ClusterError) as caught, ray_session(num_cpus=1.0):
        pass
    assert str(caught.value) == (
        f"the temporary folder {too_long} ({variable}) has 42 bytes, allowed: 41, since paths of sockets below it may "
        "have 107; set RAY_TMPDIR to a shorter folder, such as /tmp"
    )
    monkeypatch.setenv(variable, fits)
    with ray_session(num_cpus=1.0):
        assert started == [fits]


def test_a_ray_that_does_not_start_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def times_out(**_: object) -> None:
        raise Exception("The current node timed out during startup. This\ncould happen because some raylet failed")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", times_out)
    told = r"^could not start Ray on this machine: Exception: The current node timed out .*; .* end other programs on"
    with pytest.raises(ClusterError, match=told) as caught, ray_session(num_cpus=1.0):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.integration
def test_a_listener_that_is_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own waiting, once instead of twenty times: about 40 s."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        code = "from cluster.fleet.ray_session import ray_session\nwith ray_session(num_cpus=1.0):\n    pass\n"
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listener.getsockname()[1]}")
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=150)
    assert result.returncode == 1
    assert "ClusterError: could not join the Ray cluster at 127.0.0.1" in result.stderr
