"""Recipes and overrides: what they become, and how each mistake is told."""

from pathlib import Path

import pytest

from cluster.configuration.loading import (
    build_config,
    changed_keys,
    config_fingerprint,
    dump_config,
    load_config,
    parse_config,
)
from rollout.config import Gsm8kTask, ReasoningGymTask
from rollout.errors import ConfigError


def problem(name: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(name, overrides)
    return str(caught.value)


def test_overrides_reach_every_kind_of_value() -> None:
    config = load_config(
        "quickstart",
        [
            "learner.lr=1e-5",
            "steps=3",
            "task.params.max_digits=2",
            'rollout.sampling.stop=["\\n"]',
            "learner.betas=[0.9, 0.95]",
            "checkpoint.every=2",
            "deterministic=true",
            "name=null",
            "task.template=Q: {question} #",
        ],
    )
    assert isinstance(config.task, ReasoningGymTask)
    assert config.learner.lr == 1e-5
    assert config.steps == 3
    assert config.task.params["max_digits"] == 2
    assert config.task.params["operators"] == ["+"]
    assert config.rollout.sampling.stop == ("\n",)
    assert config.rollout.sampling.max_tokens == 32
    assert config.learner.betas == (0.9, 0.95)
    assert config.checkpoint.every == 2
    assert config.deterministic
    assert config.task.template == "Q: {question} #"


def test_a_number_in_the_path_is_a_place_in_a_list() -> None:
    functions = "reward.functions=[{function: math}, {function: format}]"
    config = load_config("quickstart", [functions, "reward.functions.1.weight=0.5"])
    assert [function.weight for function in config.reward.functions] == [1.0, 0.5]
    rows = load_config("quickstart", ["reward.functions=[{function: math, rows: {a: x, b.c: [1, true, null]}}]"])
    assert rows.reward.functions[0].rows == {"a": ("x",), "b.c": (1, True, None)}
    assert parse_config(dump_config(rows), source="here") == rows
    assert "reward.functions is a list of 2: got place '2', allowed: 0 to 1" in problem(
        "quickstart", functions, "reward.functions.2.weight=1"
    )


def test_another_kind_of_task_drops_the_keys_of_the_old_one() -> None:
    config = load_config("quickstart", ["task.path=/data", "task.kind=gsm8k"])
    assert config.task == Gsm8kTask(path="/data")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("learner.lrr=1", "quickstart: learner.lrr: no such key; did you mean learner.lr?"),
        ("stepz=1", "quickstart: stepz: no such key; did you mean steps?"),
        (
            "rollout.sampling.zz=1",
            "no such key; allowed here: max_tokens, stop, stop_token_ids, temperature, top_k, top_p",
        ),
        ("task.generatr=x", "quickstart: task.generatr: no such key; did you mean task.generator?"),
        ("steps.x=3", "steps: this is one value (15), it has no key 'x'"),
        ("steps=0", "quickstart: steps: got 0, allowed: greater than or equal to 1"),
        ('steps="3"', "quickstart: steps: got '3', allowed: an integer"),
        ("steps=3.5", "quickstart: steps: got 3.5, allowed: an integer"),
        ("seed=true", "quickstart: seed: got True, allowed: an integer"),
        ("deterministic=1", "quickstart: deterministic: got 1, allowed: true or false"),
        ("name=7", "quickstart: name: got 7, allowed: text (quote what looks like a number)"),
        ("rollout.sampling.stop=x", "quickstart: rollout.sampling.stop: got 'x', allowed: a list"),
        ("rollout=3", "quickstart: rollout: got 3, allowed: a mapping"),
        ("rollout.dtype=fp32", "quickstart: rollout.dtype: got 'fp32', allowed: 'auto', 'float32' or 'bfloat16'"),
        ("learner.lr=.inf", "quickstart: learner.lr: got inf, allowed: a finite number"),
        ("task.template=\udcff", "quickstart: task.template: got '\\udcff', allowed: text in UTF-8"),
        ('rollout.sampling.stop=[""]', "quickstart: rollout.sampling.stop.0: got '', allowed: text that is not empty"),
        ("rollout.sampling.stop_token_ids=[-1]", "stop_token_ids.0: got -1, allowed: greater than or equal to 0"),
        ("learner.betas=[1.5, 0.9]", "quickstart: learner.betas.0: got 1.5, allowed: less than 1"),
        ("learner.betas=[0.9, -1]", "learner.betas.1: got -1, allowed: greater than or equal to 0"),
        ("learner.betas=[0.9]", "quickstart: learner.betas.1: missing"),
        (
            "task.kind=gsm9k",
            "task.kind: got 'gsm9k', allowed: reasoning_gym, jsonl, parquet, hub, gsm8k, environment, mix (did you "
            "mean gsm8k?)",
        ),
        ("eval_task={path: x}", "quickstart: eval_task.kind: missing; allowed: reasoning_gym, jsonl"),
        ("task=null", "quickstart: task: got None, allowed: a mapping"),
        ("rollout.sampling.temperature=0", "quickstart: rollout: sampling.temperature is 0"),
        ("rollout.sampling.max_tokens=128", "rollout.sampling.max_tokens is 128, which leaves no room for a prompt"),
        ("steps", "got 'steps' as an override, allowed: key=value"),
        ("steps..x=1", "got 'steps..x=1' as an override"),
        ("rollout.sampling.stop=[a", "the override of rollout.sampling.stop, line 1"),
    ],
)
def test_a_mistake_is_one_sentence_with_path_value_and_what_is_allowed(override: str, sentence: str) -> None:
    message = problem("quickstart", override)
    assert sentence in message
    assert "\n" not in message


def test_combinations_that_cannot_run_are_refused() -> None:
    message = problem("quickstart", "deterministic=true", "max_policy_lag=2")
    assert message.startswith("quickstart: deterministic is true and max_policy_lag is 2")


def test_several_problems_have_a_line_each() -> None:
    lines = problem("quickstart", "steps=0", "learner.lrr=1", "rollout.group_size=1").splitlines()
    assert [line.split(":")[1].strip() for line in lines] == ["steps", "rollout.group_size", "learner.lrr"]


def test_an_unknown_recipe_lists_the_shipped_ones() -> None:
    assert "shipped ones are async, cispo_scale_rl, dapo" in problem("quikstart")
    assert "cannot read the recipe nowhere/x.yaml: No such file" in problem("nowhere/x.yaml")


def test_a_recipe_file_starts_from_another(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: tiny\nsteps: 5\nlearner: {lr: 1e-4}\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\nrollout: {sampling: {max_tokens: 4}}\n")
    config = load_config(str(tmp_path / "b.yaml"))
    assert (config.steps, config.learner.lr, config.rollout.sampling.max_tokens) == (5, 1e-4, 4)
    assert config.model == load_config("tiny").model
    assert config.learner.betas == load_config("tiny").learner.betas


def test_a_recipe_of_another_kind_of_task_replaces_the_base_task(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: quickstart\ntask: {kind: gsm8k, path: /data}\n")
    assert load_config(str(tmp_path / "a.yaml")).task == Gsm8kTask(path="/data")


def test_bases_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    assert "`base` leads back to where it began: a.yaml -> b.yaml -> a.yaml" in problem(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(("text", "found"), [("- a\n", "got list"), ("7\n", "got int"), ("1: 2\n", "got dict")])
def test_a_recipe_that_is_no_mapping_is_refused(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    assert f"{found}, allowed: a mapping of configuration keys" in problem(str(tmp_path / "a.yaml"))


def test_a_recipe_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe")
    assert "it is not UTF-8 text" in problem(str(tmp_path / "a.yaml"))


def test_dump_is_parsed_back_to_an_equal_configuration() -> None:
    config = load_config("quickstart", ['rollout.sampling.stop=["\\n", "é", "1e5"]', "learner.lr=3e-7", 'name="12"'])
    assert parse_config(dump_config(config), source="dump") == config


def test_fingerprint_follows_the_values() -> None:
    config = load_config("quickstart")
    assert config_fingerprint(config) == config_fingerprint(load_config("quickstart", ["steps=15"]))
    assert config_fingerprint(config) != config_fingerprint(load_config("quickstart", ["seed=1"]))
    assert len(config_fingerprint(config)) == 16


def test_changed_keys_are_dotted_and_sorted() -> None:
    old = load_config("quickstart")
    new = load_config("quickstart", ["steps=3", "learner.objective.kl.coef=0.1", "task.params.max_digits=2"])
    assert changed_keys(old, new) == ("learner.objective.kl.coef", "steps", "task.params.max_digits")
    assert changed_keys(old, old) == ()
    gsm8k = load_config("quickstart", ["task.kind=gsm8k"])
    assert {"task.kind", "task.generator", "task.path"} <= set(changed_keys(old, gsm8k))


def test_what_is_built_does_not_change_its_input() -> None:
    values = {"task": {"kind": "gsm8k"}}
    build_config(values, ["task.path=/x", "steps=4"], source="test")
    assert values == {"task": {"kind": "gsm8k"}}
