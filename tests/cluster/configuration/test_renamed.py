"""Runs of before, whose configurations have other names for the same things."""

import pytest

from cluster.configuration.loading import build_config, dump_config, load_config, parse_config
from cluster.configuration.recipe_yaml import dump_yaml, parse_yaml
from cluster.configuration.renamed import upgraded
from learner.objective import GroupAdvantage
from learner.surrogate_config import PpoClip
from rollout.errors import ConfigError

BEFORE = {"clip_eps": 0.1, "clip_eps_high": 0.28, "kl_coef": 0.0, "advantage_std": False}


def before(grpo: object) -> str:
    """What a run wrote when `learner.objective` was `learner.grpo`."""
    values = parse_yaml(dump_config(load_config("quickstart")), "now")
    del values["learner"]["objective"]
    values["learner"]["grpo"] = grpo
    return dump_yaml(values)


def test_a_run_of_before_is_read_as_what_it_was() -> None:
    config = parse_config(before(BEFORE), source="config.yaml")
    objective = config.learner.objective
    assert objective.surrogate == PpoClip(eps=0.1, eps_high=0.28)
    assert objective.advantage == GroupAdvantage(scale="none")
    assert objective.kl.coef == 0.0
    assert parse_config(dump_config(config), source="again") == config


def test_a_key_that_was_none_then_is_none_now() -> None:
    with pytest.raises(ConfigError, match=r"learner\.objective\.clip_low"):
        parse_config(before({"clip_low": 0.1}), source="config.yaml")


@pytest.mark.parametrize("values", [None, 3, [], {}, {"learner": None}, {"learner": {"grpo": 3}}])
def test_anything_else_stays_as_it_is(values: object) -> None:
    assert upgraded(values) == values


def test_who_writes_the_old_name_today_is_told_the_new_one() -> None:
    with pytest.raises(ConfigError, match=r"learner\.grpo: this key is learner\.objective now: "):
        build_config({"task": {"kind": "gsm8k"}, "learner": {"grpo": BEFORE}}, source="mine.yaml")
