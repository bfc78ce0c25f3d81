"""What of a run does not go with its judges, and how long its groups may take with them."""

from typing import Any

import pytest

from cluster.config import RunConfig
from cluster.configuration.loading import load_config
from cluster.groups.deadlines import scoring_deadline_s
from reward.judging.config import JudgeConfig


def with_judge(params: dict[str, Any], **changes: Any) -> RunConfig:
    values = load_config("tiny").model_dump(mode="json")
    for key, value in changes.items():
        stage, _, name = key.partition("__")
        values[stage][name] = value
    params = {"base_url": "http://h/v1", "model": "m", **params}
    values["reward"]["functions"].append({"function": "judge", "params": params})
    return RunConfig.model_validate(values)


@pytest.mark.parametrize("mode", ["pairwise", "rank"])
def test_a_judge_that_compares_needs_more_than_one_completion(mode: str) -> None:
    with_judge({"mode": mode}, eval__num_samples=2)
    with pytest.raises(ValueError, match=rf"params\.mode is {mode}, which compares .* and eval\.num_samples is 1"):
        with_judge({"mode": mode}, eval__num_samples=1)
    with_judge({"mode": "score"}, eval__num_samples=1)


def test_limits_leave_time_for_what_is_scored_together() -> None:
    # tiny has few groups; all of them are scored at once.
    config = with_judge({})
    groups = min(config.reward.groups_at_once, config.rollout.prompts_per_step)
    requests = groups * config.rollout.group_size
    fits = {"requests_per_minute": requests, "deadline_s": 30}
    with_judge({"limits": fits})
    with pytest.raises(ValueError, match=rf"the {requests} requests that a reward worker has on its hands at a time"):
        with_judge({"limits": {**fits, "requests_per_minute": requests // 3}})
    pairs = JudgeConfig(base_url="http://h/v1", model="m", mode="pairwise")
    assert [pairs.num_requests(size) for size in (2, 8)] == [2, 56]
    assert JudgeConfig(base_url="http://h/v1", model="m", mode="pairwise", opponents=4).num_requests(8) == 32
    assert JudgeConfig(base_url="http://h/v1", model="m", mode="rank").num_requests(8) == 1


def test_groups_are_waited_for_as_long_as_judges_may_take() -> None:
    plain = load_config("tiny")
    judged = with_judge({"limits": {"deadline_s": 100, "requests_at_once": 4}})
    without = scoring_deadline_s(plain, 8, num_children=2)
    assert scoring_deadline_s(judged, 8, num_children=2) == pytest.approx(without + 100)
    assert judged.reward.groups_at_once == judged.reward.children_per_worker + 2 + 4
    smallest = min(judged.rollout.group_size, judged.eval.num_samples)
    many = smallest * judged.reward.groups_at_once + 1  # one group has to wait for another
    more = scoring_deadline_s(judged, many, num_children=2) - scoring_deadline_s(plain, many, num_children=2)
    assert more == pytest.approx(200)
