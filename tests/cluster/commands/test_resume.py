"""A resumed run keeps its configuration, except for what does not change what was computed."""

from pathlib import Path

import pytest

from cluster.commands.resume import resume_config
from cluster.configuration.loading import load_config
from cluster.record.run_directory import RunDirectory
from rollout.errors import ConfigError


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    return RunDirectory.create(tmp_path / "a", load_config("tiny", ["seed=7"])).path


def test_without_a_recipe_it_is_the_runs_own(run_path: Path) -> None:
    config = resume_config(run_path, None, ["steps=40", "checkpoint.every=5", "learner.step_deadline_s=9"])
    assert (config.seed, config.steps, config.checkpoint.every, config.learner.step_deadline_s) == (7, 40, 5, 9)


def test_with_a_recipe_it_must_be_the_same_one(run_path: Path) -> None:
    assert resume_config(run_path, "tiny", ["seed=7"]).seed == 7
    with pytest.raises(ConfigError, match="was started with other values of seed; a resumed run may change only name"):
        resume_config(run_path, "tiny", [])


def test_what_would_train_differently_is_refused(run_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"other values of learner\.lr, rollout\.group_size;"):
        resume_config(run_path, None, ["learner.lr=1", "rollout.group_size=4", "steps=40"])


@pytest.mark.parametrize("changed", ["policy_with=other", "template='{demonstration}'", "coef=2", "kind=forward"])
def test_who_teaches_and_what_stays(tmp_path: Path, changed: str) -> None:
    own = ["learner.teacher.policy_with=answer", "learner.objective.kl.coef=0"]
    path = RunDirectory.create(tmp_path / "a", load_config("tiny", own)).path
    key = changed.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"other values of learner\.teacher\.{key};"):
        resume_config(path, None, [f"learner.teacher.{changed}"])


def test_the_server_of_a_teacher_may_move_and_nobody_else_teaches(tmp_path: Path) -> None:
    own = ["learner.teacher.base_url=http://a/v1", "deterministic=false", "rollout.sampling.temperature=1"]
    path = RunDirectory.create(tmp_path / "a", load_config("tiny", own)).path
    moved = ["learner.teacher.base_url=http://b/v1", "learner.teacher.endpoint.max_requests=4"]
    teacher = resume_config(path, None, moved).learner.teacher
    assert teacher is not None
    assert (teacher.base_url, teacher.endpoint.max_requests) == ("http://b/v1", 4)
    with pytest.raises(ConfigError, match=r"other values of learner\.teacher\.path;"):
        resume_config(path, None, ["learner.teacher.base_url=null", "learner.teacher.path=c"])


def test_a_parameter_of_a_task_is_no_deadline_whatever_its_name(tmp_path: Path) -> None:
    path = RunDirectory.create(tmp_path / "a", load_config("tiny", ["task.params.pause_s=1"])).path
    with pytest.raises(ConfigError, match=r"other values of task\.params\.pause_s;"):
        resume_config(path, None, ["task.params.pause_s=2"])


def test_steps_are_fixed_where_the_learning_rate_follows_from_them(tmp_path: Path) -> None:
    path = RunDirectory.create(tmp_path / "a", load_config("tiny", ["learner.schedule.kind=linear"])).path
    with pytest.raises(ConfigError, match="has steps = 40 and a linear learning rate"):
        resume_config(path, None, ["steps=50"])


def test_a_secret_is_given_again_and_may_be_another_one(tmp_path: Path) -> None:
    words = ["task.params.api_key=hunter2hunter2"]
    path = RunDirectory.create(tmp_path / "a", load_config("tiny", words)).path
    missing = r"the secret in task\.params\.api_key was not written there; give it again: task\.params\.api_key=\.\.\."
    with pytest.raises(ConfigError, match=missing):
        resume_config(path, None, ["steps=41"])
    for resumed, key in (
        (resume_config(path, None, ["task.params.api_key=changed-since"]), "changed-since"),
        (resume_config(path, "tiny", words), "hunter2hunter2"),
    ):
        assert resumed.task.model_dump()["params"]["api_key"] == key
    with pytest.raises(ConfigError, match=r"other values of task\.params\.other;"):
        resume_config(path, None, [*words, "task.params.other=1"])
