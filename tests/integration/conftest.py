"""Runs that several tests look at are made once."""

from pathlib import Path

import pytest

from tests.integration import runs


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    """Seven deterministic steps of `tiny`, never stopped."""
    path: Path = tmp_path_factory.mktemp("reference") / "run"
    return runs.train(path, "tiny", *runs.SHORT)
