"""Finding reward functions: names, import paths, params, and the one sentence for each mistake."""

from pathlib import Path

import pytest

from reward.config import RewardConfig, RewardFunctionConfig
from reward.function_loading import load_function
from reward.worker import validate_reward_config
from rollout.errors import ConfigError

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
