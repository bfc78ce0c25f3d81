"""The configuration of a run and what differs from the defaults."""

from pathlib import Path

from cluster.dashboard.views.config_view import changed_values, config_page
from cluster.record.run_directory import RunDirectory
from tests.cluster.dashboard.small_runs import config, open_store


def test_what_differs_from_the_defaults() -> None:
    changed = {line["key"]: (line["value"], line["default"]) for line in changed_values(config(learner__lr="3e-5"))}
    assert changed["learner.lr"] == (3e-5, 1e-6)
    assert changed["rollout.sampling.max_tokens"] == (8, 64)
    assert changed["steps"] == (5, 10)
    # It is what it would be anyway.
    assert "learner.dtype" not in changed
    assert "seed" not in changed


def test_what_has_no_default_is_always_told() -> None:
    changed = {line["key"]: line for line in changed_values(config())}
    assert changed["task.name"] == {"key": "task.name", "value": "sums", "default": None}
    assert changed["task.size"]["value"] == 10


def test_the_page_has_the_values_and_the_file(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", config(learner__lr="3e-5"))
    page = config_page(open_store(run.path))
    assert page["config"]["steps"] == 5
    assert page["yaml"] == (run.path / "config.yaml").read_text()
    assert page["note"] == ""
    assert {"key": "learner.lr", "value": 3e-5, "default": 1e-6} in page["changed"]


def test_a_configuration_of_another_version_is_shown_as_it_is(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", config())
    text = (run.path / "config.yaml").read_text() + "warp_factor: 9\n"
    (run.path / "config.yaml").write_text(text)
    page = config_page(open_store(run.path))
    assert page["config"]["warp_factor"] == 9
    assert page["changed"] == []
    assert "warp_factor" in page["note"]


def test_a_run_without_a_configuration_has_an_empty_page(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", config())
    (run.path / "config.yaml").unlink()
    assert config_page(open_store(run.path)) == {"config": {}, "changed": [], "yaml": "", "note": ""}


def test_a_torn_configuration_is_shown_as_text(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", config())
    (run.path / "config.yaml").write_text("steps: [1, 2\n")
    page = config_page(open_store(run.path))
    assert (page["config"], page["changed"]) == ({}, [])
    assert page["yaml"] == "steps: [1, 2\n"
