"""Completions that would go on behind their end, and prompts that do not fit the rewards: told at the start."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.commands.run_prompts import read_eval_prompts
from cluster.commands.start_checks import (
    check_own_parts,
    check_step_ends,
    check_stop_tokens,
    check_turns,
    curriculum_warnings,
    ending_warnings,
    prefill_warnings,
    samplings_of,
    stop_warnings,
)
from cluster.commands.train import train_command
from cluster.config import RunConfig
from cluster.configuration.loading import load_config
from rollout.errors import ConfigError, DataError, ModelError
from rollout.types import Prompt
from tests.rollout.byte_tokenizer import byte_tokenizer


def endings(tokenizer: Any, folder: Path, *overrides: str) -> list[str]:
    return list(ending_warnings(samplings_of(load_config("tiny", overrides)), tokenizer, folder))


def other_end() -> Any:
    """A tokenizer whose end token is not the one with which its chat template ends a turn."""
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = "<|bos|>"
    return tokenizer


def test_a_stop_token_that_the_model_does_not_have_is_refused() -> None:
    tokenizer = byte_tokenizer()
    assert len(tokenizer) == 262
    check_stop_tokens(samplings_of(load_config("tiny", ["rollout.sampling.stop_token_ids=[261]"])), tokenizer)
    wrong = load_config("tiny", ["eval.sampling.stop_token_ids=[1, 262]"])
    with pytest.raises(ConfigError, match=r"^eval\.sampling\.stop_token_ids: got 262, allowed: .*, 0 to 261$"):
        check_stop_tokens(samplings_of(wrong), tokenizer)


@pytest.mark.parametrize("part", ["advantage", "surrogate"])
@pytest.mark.parametrize(
    ("function", "params", "message"),
    [
        ("nowhere_at_all:f", "{}", "module 'nowhere_at_all' was not found in "),
        ("my_parts:absent", "{}", "module 'my_parts' has no attribute 'absent'"),
        ("my_parts:NUMBER", "{}", "is a int, which cannot be called"),
        ("my_raising:f", "{}", "importing 'my_raising' raised RuntimeError: no licence"),
        ("my_parts:f", "{}", "params.by: missing; this parameter has no default"),
        ("my_parts:f", "{by: x}", "params.by: got 'x', allowed: a number"),
        ("my_parts:f", "{buy: 1}", "params.buy: no such key; did you mean params.by?"),
        ("my_parts:nothing", "{}", " and its params: "),
    ],
)
def test_a_part_of_ones_own_that_cannot_be_called_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, function: str, params: str, message: str
) -> None:
    (tmp_path / "my_parts.py").write_text("NUMBER = 1\ndef f(given, by: float): ...\ndef nothing(): ...\n")
    (tmp_path / "my_raising.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.chdir(tmp_path)
    key = f"learner.objective.{part}"
    config = load_config("tiny", [f"{key}={{kind: own, function: '{function}', params: {params}}}"])
    with pytest.raises(ConfigError) as raised:
        check_own_parts(config.learner.objective)
    assert str(raised.value).startswith(f"{key}.function '{function}'")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_parts_of_ones_own_that_can_be_called_are_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_good_parts.py").write_text("def f(given, *, by: float = 2.0): ...\n")
    monkeypatch.chdir(tmp_path)
    of = "{kind: own, function: 'my_good_parts:f', params: {by: 3}}"
    own = [f"learner.objective.{part}={of}" for part in ("advantage", "surrogate")]
    check_own_parts(load_config("tiny", own).learner.objective)
    check_own_parts(load_config("tiny", []).learner.objective)


def test_nothing_is_started_for_a_part_of_ones_own_that_is_not_there(tmp_path: Path) -> None:
    config = load_config("tiny", ["learner.objective.surrogate={kind: own, function: 'nowhere_at_all:f'}"])
    with pytest.raises(ConfigError, match="nowhere_at_all"):
        train_command(config, tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()


def test_a_turn_that_ends_with_the_end_token_is_no_matter(tmp_path: Path) -> None:
    assert endings(byte_tokenizer(), tmp_path) == []


def test_a_turn_that_ends_with_another_token_is_told_unless_it_stops(tmp_path: Path) -> None:
    (only,) = endings(other_end(), tmp_path)
    assert only == (
        "the chat template ends a turn with '<|end|>', which does not end a completion of this model (what does is "
        "'<|bos|>'), so that completions go on behind it; set rollout.sampling.stop_token_ids=[1] and "
        "eval.sampling.stop_token_ids=[1]"
    )
    (only,) = endings(other_end(), tmp_path, "rollout.sampling.stop_token_ids=[1]")
    assert only.endswith("set eval.sampling.stop_token_ids=[1]")
    assert endings(other_end(), tmp_path, 'rollout.sampling.stop=["<|end|>"]', "eval.sampling.stop_token_ids=[1]") == []
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 1]}')
    assert endings(other_end(), tmp_path) == []


def test_a_model_without_an_end_is_told(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(None)
    tokenizer.eos_token = None
    (only,) = endings(tokenizer, tmp_path, 'rollout.sampling.stop=["x"]')
    assert "names no end token, so that every completion is as long as its max_tokens" in only
    assert "eval.sampling.stop_token_ids" in only
    assert "rollout.sampling" not in only


def test_an_evaluation_that_stops_elsewhere_is_told() -> None:
    assert list(stop_warnings(load_config("tiny"))) == []
    same = ['rollout.sampling.stop=["x"]', 'eval.sampling.stop=["x", "y"]']
    assert list(stop_warnings(load_config("tiny", same))) == []
    (only,) = stop_warnings(load_config("tiny", ['rollout.sampling.stop=["x"]', "rollout.sampling.stop_token_ids=[3]"]))
    assert only.startswith("eval.sampling does not stop at 'x', 3 as rollout.sampling does")


def with_format(**params: object) -> RunConfig:
    return load_config("tiny", [f"reward.functions={json.dumps([{'function': 'format', 'params': params}])}"])


def prompt(text: str) -> Prompt:
    return Prompt(
        uid="0" * 16, epoch=0, index=0, token_ids=(1,), text=text, question="q", ground_truth=None, task="t", row={}
    )


@pytest.mark.parametrize(
    ("params", "text", "told"),
    [
        ({}, "q<|assistant|>", None),
        ({}, "q<|assistant|><think>\n", "the prompts end with <think>, so that completions begin inside it"),
        ({"prefilled": True}, "q<|assistant|><think>\n", None),
        ({"prefilled": True}, "q<|assistant|>", "says that prompts end with <think>, and they do not"),
        ({"think_tag": "plan"}, "q<|assistant|><think>\n", None),
        ({"think_tag": None}, "q<|assistant|><think>\n", None),
    ],
)
def test_a_think_tag_that_the_prompt_opens(params: dict[str, object], text: str, told: str | None) -> None:
    found = list(prefill_warnings(with_format(**params), [prompt(text)]))
    assert len(found) == (told is not None)
    assert told is None or told in found[0]
    assert list(prefill_warnings(load_config("tiny"), [prompt(text)])) == []


def test_a_think_tag_counts_for_the_prompts_that_the_function_scores() -> None:
    one, other = prompt("q<think>"), replace(prompt("q"), task="other")
    functions = json.dumps([{"function": "format", "tasks": ["other"]}, {"function": "math", "tasks": ["t"]}])
    config = load_config("tiny", [f"reward.functions={functions}"])
    assert list(prefill_warnings(config, [one, other])) == []
    assert list(prefill_warnings(config, [one])) == []
    (only,) = prefill_warnings(config, [one, replace(other, text="q<think>")])
    assert "set its param prefilled to true" in only


def test_a_tokenizer_whose_tokens_do_not_spell_a_text_cannot_have_steps() -> None:
    tokenizer = byte_tokenizer()
    steps = load_config("tiny", ["objective=deepseekmath_process"]).reward
    fits = replace(prompt("a é"), token_ids=tuple(tokenizer("a é", add_special_tokens=False).input_ids))
    check_step_ends(steps, tokenizer, [fits])
    with pytest.raises(ConfigError, match="so that the ends of steps are not known; set it to null"):
        check_step_ends(steps, tokenizer, [fits, replace(fits, text="a e")])
    check_step_ends(load_config("tiny").reward, tokenizer, [replace(fits, text="a e")])


@pytest.mark.parametrize(("steps", "is_told"), [(12, True), (13, False)])
def test_a_run_that_ends_before_its_curriculum_begins_is_told(steps: int, is_told: bool) -> None:
    config = load_config("tiny", ["curriculum.enabled=true", "rollout.prompts_per_step=16", f"steps={steps}"])
    questions = [replace(prompt("a"), uid=str(i)) for i in range(200)]  # 12 steps ask 192 of them
    found = list(curriculum_warnings(config, questions))
    assert len(found) == is_told
    if is_told:
        assert "asks 192 of its 200" in found[0]
    assert list(curriculum_warnings(load_config("tiny"), questions)) == []


def test_a_task_that_is_neither_trained_on_nor_evaluated_is_refused() -> None:
    tasks = [f"{{name: {name}, kind: reasoning_gym, generator: chain_sum, eval_fraction: 0}}" for name in "ab"]
    mix = f"task={{kind: mix, tasks: [{', '.join(tasks)}], weights: {{b: 0}}}}"
    with pytest.raises(DataError, match="task b has the weight 0"):
        read_eval_prompts(load_config("tiny", [mix]), None)


def test_a_template_of_one_question_is_refused_where_there_are_worlds(tmp_path: Path) -> None:
    one_turn = "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}{{ messages[0].content }}"
    byte_tokenizer(one_turn).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="chat template cannot be used for several turns"):
        check_turns(load_config("guess"), tmp_path)
    check_turns(load_config("tiny"), tmp_path)
