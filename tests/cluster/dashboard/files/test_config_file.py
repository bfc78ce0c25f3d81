"""A run's configuration is read as the run wrote it, by YAML 1.2."""

from pathlib import Path

import pytest

from cluster.configuration.loading import build_config
from cluster.dashboard.figures.token_term import token_term
from cluster.dashboard.files.config_file import read_config
from cluster.dashboard.files.small_files import WatchedFile
from cluster.record.run_directory import RunDirectory


def test_every_value_is_the_one_that_was_written(tmp_path: Path) -> None:
    values = {
        "task": {"kind": "jsonl", "path": "12:30", "name": "on"},
        "learner": {"lr": 1e-06, "objective": {"kl": {"coef": 5e-05}}},
    }
    config = build_config(values, source="test")
    run = RunDirectory.create(tmp_path / "run", config)
    file = WatchedFile(run.path / "config.yaml")
    assert file.refresh()
    assert file.value == config.model_dump(mode="json")
    assert file.value["learner"]["lr"] == 1e-06
    assert (file.value["task"]["name"], file.value["task"]["path"]) == ("on", "12:30")
    # The token page draws the objective with its KL.
    assert token_term(file.value).kl_coef == 5e-05


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x\n",
        "a: &x {b: *x}\n",
        "[" * 100_000,
        "a: !!python/object:os.system x\n",
        "a: 1\na: 2\n",
        "\x00",
    ],
)
def test_what_no_run_writes_is_one_kind_of_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        read_config(text)
