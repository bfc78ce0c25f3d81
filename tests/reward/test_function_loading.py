"""Finding reward functions: names, import paths, params, and the one sentence for each mistake."""

from pathlib import Path

import pytest

from reward.config import RewardConfig, RewardFunctionConfig
from reward.function_loading import load_function
from reward.functions import CallForm
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
    assert loaded.form is CallForm.SINGLE


@pytest.mark.parametrize(
    ("function", "params", "message"),
    [
        (
            "no_such",
            {},
            "reward function 'no_such' is not known: use one of code, environment, exact_match, format, http,",
        ),
        ("nowhere.at_all:f", {}, "module 'nowhere.at_all' was not found"),
        (f"{MODULE}:absent", {}, "has no attribute 'absent'"),
        (f"{MODULE}:NOT_CALLABLE", {}, "is a int, which cannot be called"),
        (f"{MODULE}:", {}, "is no import path"),
        ("regex", {}, "params.pattern: missing; this parameter has no default"),
        ("regex", {"pattern": "("}, "is no regular expression"),
        ("regex", {"pattern": "a", "group": 1}, "has no group 1"),
        ("regex", {"pattern": "a", "mode": "match"}, "params.mode: got 'match', allowed: 'search' or 'full'"),
        ("regex", {"pattern": "a", "group": 1.5}, "params.group: got 1.5, allowed: an integer or text"),
        ("regex", {"pattern": "a", "dot_all": True}, "params.dot_all: no such key; did you mean params.dotall?"),
        ("math", {"tolerance": 1}, "params.tolerance: no such key; allowed here: "),
        ("overlong", {"buffer_tokens": "4"}, "params.buffer_tokens: got '4', allowed: an integer"),
        ("overlong", {"buffer_tokens": True}, "params.buffer_tokens: got True, allowed: an integer"),
        ("exact_match", {"strip": "no"}, "params.strip: got 'no', allowed: true or false"),
        ("length", {"target_tokens": None}, "params.target_tokens: got None, allowed: an integer"),
        ("overlong", {"buffer_tokens": 9, "max_tokens": 8}, "buffer_tokens is 9, more than max_tokens = 8"),
        ("length", {"target_tokens": 0}, "at least 1, got 0"),
        ("format", {"think_tag": "a b"}, "a tag is a word"),
        (f"{MODULE}:slow_echo", {"seconds": "1"}, "params.seconds: got '1', allowed: a number"),
        (f"{MODULE}:slow_echo", {"second": 1}, "params.second: no such key; did you mean params.seconds?"),
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


def test_a_file_whose_name_is_taken_is_to_be_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("reward", "json", "itertools"):
        (tmp_path / f"{name}.py").write_text("def score(item): return 0.25\n")
    monkeypatch.chdir(tmp_path)
    taken = rf"has no attribute 'score'; the name 'reward' is that of .*/__init__\.py, so rename {tmp_path}/reward\.py$"
    with pytest.raises(ConfigError, match=taken):
        load_function(config("reward:score"))
    with pytest.raises(ConfigError, match=r"the name 'json' is that of .*/json/__init__\.py, so rename .*/json\.py$"):
        load_function(config("json:score"))
    with pytest.raises(ConfigError, match=r"the name 'itertools' is that of Python itself, so rename .*\.py$"):
        load_function(config("itertools:score"))
    with pytest.raises(ConfigError, match=r"module 'reward\.mine' was not found .*, so rename .*/reward\.py$"):
        load_function(config("reward.mine:score"))


def test_a_module_is_found_where_the_program_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "started_there.py").write_text("def score(item): return 0.25\n")
    monkeypatch.setenv("SHOAL_USER_FOLDERS", str(tmp_path))
    assert load_function(config("started_there:score")).function(None) == 0.25


def test_the_form_of_a_function() -> None:
    assert load_function(config(f"{MODULE}:rank_by_length")).form is CallForm.BATCHED
    assert load_function(config(f"{MODULE}:slow_echo")).form is CallForm.CONCURRENT
    assert load_function(config(f"{MODULE}:length_of_text")).form is CallForm.SINGLE
