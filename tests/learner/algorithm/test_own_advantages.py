"""Estimators of one's own: loaded by their import path, called with their params, and what they give is checked."""

from pathlib import Path

import pytest

from learner.algorithm.advantages import estimator_of
from learner.objective import OwnAdvantage
from rollout.errors import ConfigError, LearnerError
from tests.learner.algorithm.test_advantages import advantages, check, group

OWN = """
from collections.abc import Sequence

from learner.types import GroupAdvantages, GroupRewards

def halves(groups: Sequence[GroupRewards], by: float = 2.0) -> list[GroupAdvantages]:
    return [group.filled([reward / by for reward in group.scored]) for group in groups]

def fewer(groups):
    return halves(groups)[1:]

def without_none(groups):
    return [[0.0] * len(group.rewards_G) for group in groups]

def infinite(groups):
    return [group.filled([float("inf")] * len(group.scored)) for group in groups]

def shorter(groups):
    return [group.filled(group.scored)[:-1] for group in groups]

def gaps(groups):
    return [[None] * len(group.rewards_G) for group in groups]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_advantages.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return "my_advantages"


def test_an_estimator_of_ones_own_is_called_with_its_params(own: str) -> None:
    check(OwnAdvantage(function=f"{own}:halves"), [group([1.0, None, 3.0])], [[0.5, None, 1.5]])
    check(OwnAdvantage(function=f"{own}:halves", params={"by": 4}), [group([1.0, 3.0])], [[0.25, 0.75]])


def test_an_estimator_of_ones_own_that_cannot_be_called_is_one_sentence(own: str, tmp_path: Path) -> None:
    (tmp_path / "my_empty.py").write_text("def nothing(): ...\n")
    for function, message in (
        (f"{own}:absent", f"module '{own}' has no attribute 'absent'"),
        ("my_empty:nothing", "cannot be called with groups and its params: "),
    ):
        with pytest.raises(ConfigError) as raised:
            estimator_of(OwnAdvantage(function=function), {})
        assert str(raised.value).startswith(f"learner.objective.advantage.function '{function}'")
        assert message in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fewer", "my_advantages:fewer gave advantages for 1 groups of 2"),
        ("without_none", r"gave \(0.0, 0.0, 0.0\) for the rewards \(1.0, None, 3.0\) of group a: a finite number"),
        ("infinite", r"gave \(inf, None, inf\) for .* of group a"),
        ("shorter", r"gave \(1.0, None\) for .* of group a"),
        ("gaps", r"gave \(None, None, None\) for .* and None elsewhere"),
    ],
)
def test_what_an_estimator_of_ones_own_gives_is_checked(own: str, name: str, message: str) -> None:
    with pytest.raises(LearnerError, match=message):
        advantages(OwnAdvantage(function=f"{own}:{name}"), group([1.0, None, 3.0], name="a"), group([0.0], name="b"))
