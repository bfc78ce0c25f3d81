"""Where the weights of a run lie while they are evaluated."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.commands import evaluate
from cluster.record.append_log import RunDirectoryError

NOBODY: Any = SimpleNamespace(phase=lambda _: None)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(evaluate, "export_command", lambda _run, out: out.mkdir())
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("")
    return run


def test_they_are_beside_the_run_and_not_on_one_machine_and_are_gone_afterwards(run: Path) -> None:
    config: Any = None
    with evaluate._model_directory(str(run), config, NOBODY) as model_dir:
        assert model_dir.is_dir()
        assert model_dir.parent.parent == run.parent
        assert model_dir.parent.name.startswith(".one-eval-")
    assert [path.name for path in run.parent.iterdir()] == ["one"]


def test_a_place_that_cannot_be_written_is_told_in_a_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refused)
    config: Any = None
    with (
        pytest.raises(RunDirectoryError, match=r"one cannot be exported .* beside it: Permission denied; evaluate a"),
        evaluate._model_directory(str(run), config, NOBODY),
    ):
        pass
