"""The garbage collector stays out of what imports make, and is on again afterwards; no module of a user's takes the
place of one of ours."""

import gc
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.module_loading import (
    OWN_PACKAGES,
    ROOT,
    USER_FOLDERS,
    loading_modules,
    ours_first,
    python_path,
    user_folders,
)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


def test_nothing_is_collected_meanwhile_and_what_is_alive_counts_as_permanent() -> None:
    before = gc.get_freeze_count()
    with loading_modules():
        assert not gc.isenabled()
        kept: list[list[int]] = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() - before > len(kept)


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with loading_modules():
        pass
    assert not gc.isenabled()


def test_it_is_on_again_after_an_import_that_fails() -> None:
    with pytest.raises(ModuleNotFoundError), loading_modules():
        importlib.import_module("no_such_module")
    assert gc.isenabled()


@pytest.fixture
def shadowing(tmp_path: Path) -> Path:
    """A folder whose modules have the names of ours, and that has one of its own."""
    folder = tmp_path / "shadowing"
    (folder / "learner").mkdir(parents=True)
    for name in ("reward.py", "rollout.py", "learner/__init__.py"):
        (folder / name).write_text(f"raise RuntimeError('{name} of the user was loaded')\n")
    (folder / "my_reward.py").write_text("def score(item): return 0.25\n")
    return folder


def test_folders_with_modules_named_like_ours_come_last(shadowing: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "reward").mkdir(parents=True)  # not a package: Python takes it only where there is no other
    assert ours_first([str(shadowing), str(other)]) == [str(other), str(ROOT), str(shadowing)]
    assert ours_first([str(ROOT), str(other)]) == [str(ROOT), str(other)]


def test_what_a_process_of_ours_searches(shadowing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(USER_FOLDERS, raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["shadowing", "", "other", str(ROOT)]))
    assert python_path() == [str(ROOT), str(other)]
    assert user_folders() == [str(tmp_path), str(shadowing)]
    monkeypatch.setenv(USER_FOLDERS, "/where/it/was/started")
    assert user_folders() == ["/where/it/was/started", str(tmp_path), str(shadowing)]


@pytest.mark.parametrize("options", [["-m"], ["-P", "-m"]])
def test_the_command_line_starts_beside_such_files(shadowing: Path, options: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *options, "cluster.cli", "plan", "tiny", 'reward.functions=[{function: "my_reward:score"}]'],
        cwd=shadowing,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([".", str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_reward_functions_and_generators_run_beside_such_files(shadowing: Path) -> None:
    code = """
from reward.children.pool import ScoringChildren
from reward.config import RewardFunctionConfig
from rollout.config import ReasoningGymTask
from rollout.prompts.sources import read_rows

children = ScoringChildren([RewardFunctionConfig(function="my_reward:score")], num_children=1)
children.start()
children.close()
print(len(list(read_rows(ReasoningGymTask(generator="chain_sum", size=2), "train"))))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import cluster\n" + code],
        cwd=shadowing,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([".", str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr


def test_every_python_that_is_started_for_us_is_safe_of_the_working_directory() -> None:
    started = [
        (path.relative_to(ROOT), line.strip())
        for package in OWN_PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for line in path.read_text().splitlines()
        if "sys.executable, " in line and "getattr" not in line
    ]
    assert len(started) >= 4
    assert [(path, line) for path, line in started if "*SAFE_PYTHON" not in line] == []
