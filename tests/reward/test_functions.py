"""Finding reward functions: names, import paths, params, and the one sentence for each mistake."""

import subprocess
import sys
from pathlib import Path

import pytest

from reward.config import RewardConfig, RewardFunctionConfig
from reward.functions import load_function, register, reward_input, weighted_sum
from reward.types import RewardInput
from reward.worker import validate_reward_config
from rollout.errors import ConfigError
from rollout.types import FinishReason
from tests.reward.samples import group

MODULE = "tests.reward.misbehaving"


def config(function: str, **params: object) -> RewardFunctionConfig:
    return RewardFunctionConfig(function=function, params=params)


@pytest.mark.parametrize(
    ("function", "params"),
    [
        ("exact_match", {}),
        ("regex", {"pattern": "a"}),
        ("length", {"target_tokens": 5}),
        ("length_penalty", {}),
        ("overlong", {"buffer_tokens": 4}),
        ("format", {}),
        ("math", {}),
        ("reasoning_gym", {"generator": "chain_sum"}),
    ],
)
def test_builtin_functions_load_by_name(function: str, params: dict[str, object]) -> None:
    loaded = load_function(config(function, **params))
    assert loaded.component == function
    assert not loaded.is_batched


@pytest.mark.parametrize(
    ("function", "params", "message"),
    [
        ("no_such", {}, "reward function 'no_such' is not known: use one of code, exact_match"),
        ("nowhere.at_all:f", {}, "module 'nowhere.at_all' was not found"),
        (f"{MODULE}:absent", {}, "has no attribute 'absent'"),
        (f"{MODULE}:NOT_CALLABLE", {}, "is a int, which cannot be called"),
        (f"{MODULE}:", {}, "is no import path"),
        ("regex", {}, "missing a required argument: 'pattern'"),
        ("regex", {"pattern": "("}, "is no regular expression"),
        ("regex", {"pattern": "a", "group": 1}, "has no group 1"),
        ("regex", {"pattern": "a", "mode": "match"}, "mode has to be 'search' or 'full', got 'match'"),
        ("math", {"tolerance": 1}, "unexpected keyword argument 'tolerance'"),
        ("overlong", {"buffer_tokens": 9, "max_tokens": 8}, "buffer_tokens is 9, more than max_tokens = 8"),
        ("length", {"target_tokens": 0}, "at least 1, got 0"),
        ("format", {"think_tag": "a b"}, "a tag is a word"),
    ],
)
def test_mistakes_are_one_sentence(function: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match="reward function") as raised:
        validate_reward_config(RewardConfig(functions=(config(function, **params),)))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_dependency_of_the_module_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import not_installed_here\n")
    (tmp_path / "raises.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="needs the module 'not_installed_here'"):
        load_function(config("needs_more:f"))
    with pytest.raises(ConfigError, match="importing 'raises' raised RuntimeError: no licence"):
        load_function(config("raises:f"))


def test_the_working_directory_is_importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_reward.py").write_text("class Score:\n    @staticmethod\n    def f(item): return 0.25\n")
    monkeypatch.chdir(tmp_path)
    loaded = load_function(config("my_own_reward:Score.f"))
    assert loaded.component == "Score.f"
    assert loaded.function(None) == 0.25


def test_batched_functions_are_marked() -> None:
    assert load_function(config(f"{MODULE}:rank_by_length")).is_batched


def test_a_name_is_given_once() -> None:
    def another(item: RewardInput) -> float:
        return 0.0

    load_function(config("exact_match"))
    with pytest.raises(ValueError, match="'exact_match' is taken"):
        register("exact_match")(another)


def test_reward_input_shows_prompt_and_completion() -> None:
    sampled = group(["hello"], ground_truth="7", row={"level": 2})
    seen = reward_input(sampled.prompt, sampled.completions[0], max_tokens=64)
    assert (seen.question, seen.completion, seen.ground_truth, seen.row["level"]) == ("q", "hello", "7", 2)
    assert (tuple(seen.token_ids), seen.finish_reason, seen.max_tokens, seen.task) == ((5,), FinishReason.STOP, 64, "t")


def test_weighted_sum() -> None:
    # 2 * 1.0 + 0.5 * 0.5 + 0 * 9 = 2.25
    assert weighted_sum({"a": 1.0, "b": 0.5, "c": 9.0}, {"a": 2.0, "b": 0.5, "c": 0.0}) == 2.25


def test_importing_the_contract_loads_nothing_heavy() -> None:
    code = (
        "import sys, reward.functions, reward.worker, reward.math.extraction\n"
        "print([m for m in ('sympy', 'torch', 'transformers', 'ray', 'vllm', 'reasoning_gym') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
