"""The run that every disturbed one is held against."""

from pathlib import Path

import filelock
import pytest

from tests.faults import faults

DEADLINE_S = 300.0


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Six deterministic steps of `tiny` to which nothing happened. Processes of one pytest share it: whoever comes
    first makes it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "undisturbed"
    path = folder / "run"
    with filelock.FileLock(f"{folder}.lock", timeout=DEADLINE_S):
        if not (path / "summary.json").exists():
            folder.mkdir()
            run = faults.start(path, (), "tiny", *faults.SHORT)
            assert run.wait() == 0, run.output()
    return path
