"""The run that every disturbed one is held against."""

from pathlib import Path

import pytest

from tests.faults import faults


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six deterministic steps of `tiny` to which nothing happened."""
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    run = faults.start(path, (), "tiny", *faults.SHORT)
    assert run.wait() == 0, run.output()
    return path
