"""A teacher that cannot score what the policy samples is told before anything starts."""

import json
from pathlib import Path

import pytest

from cluster.commands.teacher_check import check_same_tokens, demonstrations_of, find_teacher
from cluster.config import RunConfig
from cluster.configuration.loading import load_config
from cluster.configuration.plan import make_plan
from cluster.record.terminal import make_reporter
from rollout.errors import ConfigError, ModelError
from tests.learner.samples import VOCABULARY, save_toy_model
from tests.rollout.byte_tokenizer import byte_tokenizer


def config_of(*overrides: str) -> RunConfig:
    return load_config("tiny", list(overrides))


def find(config: RunConfig, num_embeddings: int) -> str | None:
    found = find_teacher(config, byte_tokenizer(), num_embeddings, make_reporter())
    assert bool(found.folders) == bool(found.fingerprint)
    return found.folders.get("")


def test_tokens_that_differ_are_told_and_more_of_them_are_no_fault() -> None:
    ours, theirs = byte_tokenizer(), byte_tokenizer()
    theirs.add_tokens(["seven"])
    check_same_tokens(ours, theirs, "key is 't'")
    with pytest.raises(ModelError) as error:
        check_same_tokens(theirs, ours, "key is 't'")
    number = theirs.get_vocab()["seven"]
    assert str(error.value).startswith(
        f"key is 't', whose tokenizer is not the policy's: 1 of {len(theirs.get_vocab())} tokens "
        f"differ, the first is 'seven', number {number}, which is not there in the teacher's; take"
    )


def teacher(tmp_path: Path) -> Path:
    folder = tmp_path / "teacher"
    save_toy_model(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def test_a_teacher_is_found_and_its_sizes_are_compared(tmp_path: Path) -> None:
    folder = teacher(tmp_path)
    path = f"learner.teacher.path={folder}"
    assert find(config_of(path), VOCABULARY) == str(folder)
    assert find(config_of(path), VOCABULARY - 1) == str(folder)
    with pytest.raises(ModelError, match=f"embeddings for {VOCABULARY} tokens where the model has {VOCABULARY + 1}"):
        find(config_of(path), VOCABULARY + 1)
    with pytest.raises(ModelError, match="`reverse` compares them one by one: set it to `sampled`"):
        find(config_of(path, "learner.teacher.kind=reverse"), VOCABULARY - 1)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "max_position_embeddings": 16}))
    with pytest.raises(ModelError, match=r"reads 16 tokens at most, and model.max_context_tokens is 64"):
        find(config_of(path), VOCABULARY)


def test_a_teacher_that_is_not_there_is_told_by_its_own_key() -> None:
    with pytest.raises(ModelError, match=r"learner.teacher.path is './no-teacher', which is no folder here"):
        find(config_of("learner.teacher.path=./no-teacher"), 1)
    assert find(config_of(), 1) is None


def test_the_policy_as_its_own_teacher_needs_no_directory() -> None:
    config = config_of("learner.teacher.policy_with=answer", "learner.teacher.template='{question} {demonstration}'")
    assert find(config, 1) is None
    found = demonstrations_of(config)
    assert found is not None
    assert (found.column, found.template) == ("answer", "{question} {demonstration}")
    assert demonstrations_of(config_of()) is None


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["learner.teacher.coef=1"], "exactly one of path, paths, base_url and policy_with says who teaches; got none"),
        (["learner.teacher.path=a", "learner.teacher.policy_with=b"], "got path and policy_with"),
        (["learner.teacher.path=a", "learner.teacher.paths.x=b", "learner.teacher.column=c"], "got path and paths"),
        (["learner.teacher.paths.x=b"], "paths and column go together"),
        (["learner.teacher.path=a", "learner.teacher.column=c"], "got column alone"),
        (["learner.teacher.path=a", "learner.teacher.few_shot=[[q, a]]"], "policy_with is not set"),
        (["learner.teacher.path=a", "learner.teacher.template='{question}'"], "template has no {demonstration}"),
        (["learner.teacher.path=a", "learner.objective.surrogate.level=sequence"], "an advantage of each token"),
        (["learner.teacher.path=a", "learner.objective.surrogate.level=product"], "an advantage of each token"),
        (["learner.teacher.path=a", "learner.objective.surrogate.kind=gmpo"], "an advantage of each token"),
        (
            [
                "learner.teacher.path=a",
                "learner.objective.kl.coef=0.1",
                "learner.objective.kl.place=reward",
                "learner.objective.advantage.scale=none",
                "learner.objective.kl.estimator=k1",
            ],
            "nothing is learnt from rewards",
        ),
        (
            ["learner.teacher.policy_with=a", "learner.teacher.kind=jsd", "learner.mini_batches=2"],
            "a batch has 2 optimizer steps",
        ),
        (["learner.teacher.path=a", "dynamic_sampling.enabled=true"], "learns from every group"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_of(*overrides)
    assert says in str(error.value)


def test_the_plan_has_the_teacher(tmp_path: Path) -> None:
    def memory(*overrides: str) -> dict[str, int | None]:
        return {part.what: part.num_bytes for part in make_plan(config_of(*overrides)).memory}

    added = memory("learner.teacher.path=tiny:", "learner.teacher.kind=jsd")
    plain = memory()
    own = memory("learner.teacher.policy_with=answer")
    assert added["teacher in float32"] == plain["weights in float32"]
    assert set(added) - set(plain) == {"teacher in float32", "logits of a chunk of two models that are compared"}
    assert set(own) == set(plain)
    assert memory("learner.teacher.path=./unknown")["teacher in float32"] is None
