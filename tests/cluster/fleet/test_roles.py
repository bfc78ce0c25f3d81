"""What each role's processes are given, read from its row."""

from pathlib import Path
from typing import Any

import pytest

from cluster.config import RunConfig
from cluster.fleet.roles import LEARNER, REWARD, REWARD_MODEL, ROLES, SAMPLER, TEACHER, Restart, Seat, Site, role_of
from learner.config import LearnerConfig
from reward.config import RewardConfig, RewardModelConfig
from rollout.config import ReasoningGymTask, RolloutConfig
from rollout.errors import ConfigError

CONFIG = RunConfig(
    task=ReasoningGymTask(generator="chain_sum"),
    rollout=RolloutConfig(num_engines=2),
    learner=LearnerConfig(num_ranks=4),
    reward=RewardConfig(
        num_workers=3, children_per_worker=4, reward_model=RewardModelConfig(path="m", num_workers=2, gpus=0.5)
    ),
)
SITE = Site(config=CONFIG, model_dir="/m", fleet_name="f")


def seat(name: str, threads: int = 1) -> Seat:
    return Seat(name=name, index=1, count=4, threads=threads)


def arguments(role: Any, name: str, meeting: Any = None, site: Site = SITE) -> dict[str, Any]:
    return dict(role.arguments(site, seat(name, threads=7), meeting))


def test_a_name_leads_to_its_row() -> None:
    assert [role_of(f"{role.name}-12") for role in ROLES] == [SAMPLER, LEARNER, REWARD, REWARD_MODEL, TEACHER]
    assert [role.name for role in ROLES if role.restart is Restart.TOGETHER] == ["learner"]
    assert [role.name for role in ROLES if role.is_synced] == ["sampler"]
    assert [role.name for role in ROLES if role.probe] == ["sampler", "reward_model"]


def test_a_row_counts_its_processes() -> None:
    assert [role.asks(CONFIG).count for role in ROLES] == [2, 4, 3, 2, 0]
    assert REWARD_MODEL.asks(CONFIG).gpus == 0.5
    without = CONFIG.model_copy(update={"reward": RewardConfig()})
    assert REWARD_MODEL.asks(without).count == 0
    assert arguments(REWARD, "reward-1", site=Site(config=without, model_dir="", fleet_name=""))["reward_model"] is None


def test_every_call_that_waits_on_a_reward_model_has_room_beside_who_asks_how_far_it_is() -> None:
    callers = 3 * REWARD.calls_at_once(CONFIG)
    assert REWARD_MODEL.calls_at_once(CONFIG) > 2 * callers


def test_a_reward_worker_is_told_what_its_judges_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sesame")
    params = {"base_url": "http://h/v1", "model": "m", "limits": {"requests_at_once": 12}}
    functions = [
        {"function": "math"},
        {"function": "judge", "params": {**params, "api_key_env": "JUDGE_KEY"}},
        {"function": "judge", "name": "open", "params": params},
    ]
    reward = RewardConfig.model_validate({"functions": functions, "num_workers": 4, "children_per_worker": 2})
    config = CONFIG.model_copy(update={"reward": reward, "seed": 5})
    site = Site(config=config, model_dir="/m", fleet_name="f", run_dir=Path("/runs/a"))
    asking = arguments(REWARD, "reward-1", site=site)["asking"]
    assert (asking.seed, asking.run_dir, asking.num_workers) == (5, Path("/runs/a"), 4)
    assert asking.api_keys == {"judge": "sesame"}
    assert "sesame" not in str(REWARD.environment(config))
    # Its requests may be of as many groups.
    assert REWARD.calls_at_once(config) == 2 + 2 + 12
    assert REWARD.calls_at_once(CONFIG) == 4 + 2
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ConfigError, match=r"params\.api_key_env is JUDGE_KEY, and the environment has nothing"):
        arguments(REWARD, "reward-1", site=site)


@pytest.mark.parametrize(
    ("deterministic", "gpus", "asked", "expected"),
    [
        (False, 0.0, None, True),  # on a CPU a seed costs nothing
        (False, 1.0, None, False),  # on a GPU rows with seeds are drawn one by one
        (True, 1.0, None, True),
        (False, 1.0, True, True),
        (False, 0.0, False, False),
    ],
)
def test_samples_have_seeds_where_the_run_asks_for_them_or_they_cost_nothing(
    deterministic: bool, gpus: float, asked: bool | None, expected: bool
) -> None:
    rollout = RolloutConfig(gpus_per_engine=gpus, sample_seeds=asked)
    config = CONFIG.model_copy(update={"rollout": rollout, "deterministic": deterministic})
    site = Site(config=config, model_dir="/m", fleet_name="f")
    assert arguments(SAMPLER, "sampler-1", site=site)["has_seeds"] is expected


@pytest.mark.parametrize(("asked", "expected"), [(0, 16), (3, 3)])
def test_a_sampler_has_its_nodes_cores_unless_it_is_told(asked: int, expected: int) -> None:
    config = CONFIG.model_copy(update={"rollout": RolloutConfig(threads=asked)})
    assert SAMPLER.threads(config, 16, 2) == expected


def test_ranks_share_the_cores_of_their_node_and_are_told_so() -> None:
    # Four ranks on two nodes: two are on each, so each has half of its node's cores, and not a quarter of ours.
    assert LEARNER.threads(CONFIG, 16, 2) == 8
    assert LEARNER.threads(CONFIG, 1, 2) == 1

    class Meeting:
        address = "here"

    assert arguments(LEARNER, "learner-1", Meeting)["config"].threads == 7
    place = arguments(LEARNER, "learner-1", Meeting)["place"]
    assert (place.rendezvous, place.local_rank, place.on_gpu) == ("here", 0, CONFIG.learner.gpus_per_rank > 0)


def test_a_deterministic_run_computes_each_group_alone_and_caches_no_prefix() -> None:
    assert arguments(REWARD_MODEL, "reward_model-0")["across_groups"]
    fixed = Site(config=CONFIG.model_copy(update={"deterministic": True}), model_dir="/m", fleet_name="f")
    assert not arguments(REWARD_MODEL, "reward_model-0", site=fixed)["across_groups"]
    for site, cached in ((SITE, True), (fixed, False)):
        _, _, rollout, _ = arguments(SAMPLER, "sampler-0", site=site)["build_engine"].args
        assert rollout.prefix_caching is cached
