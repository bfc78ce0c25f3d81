"""When a value is worth a look."""

import pytest

from cluster.config import RecoveryConfig
from cluster.dashboard.figures import thresholds
from cluster.dashboard.figures.settings import setting, written
from cluster.dashboard.figures.thresholds import Threshold, facts_of
from cluster.dashboard.records import MetricTable
from learner.objective import KlConfig

EMPTY = MetricTable(steps=[], columns={})
FP32 = {"rollout": {"dtype": "float32"}, "learner": {"dtype": "float32"}}


@pytest.mark.parametrize(
    ("value", "state"),
    [(None, "none"), (0.04, "alarm"), (0.1, "watch"), (0.5, "ok"), (1.0, "ok"), (1.5, "watch"), (2.1, "alarm")],
)
def test_states_on_both_sides(value: float | None, state: str) -> None:
    bound = Threshold(watch_above=1.0, alarm_above=2.0, watch_below=0.2, alarm_below=0.05)
    assert bound.state(value) == state


def test_bands_cover_what_is_not_healthy_and_leave_out_what_is() -> None:
    assert Threshold(watch_above=1.0, alarm_above=2.0, watch_below=0.2, alarm_below=0.05).bands() == [
        {"from": None, "to": 0.05, "state": "alarm"},
        {"from": 0.05, "to": 0.2, "state": "watch"},
        {"from": 1.0, "to": 2.0, "state": "watch"},
        {"from": 2.0, "to": None, "state": "alarm"},
    ]
    assert Threshold(watch_above=1.0).bands() == [{"from": 1.0, "to": None, "state": "watch"}]
    assert Threshold().bands() == []


def test_a_threshold_in_words() -> None:
    assert Threshold(watch_above=0.001, alarm_above=0.01).text() == "watch above 0.001, alarm above 0.01"
    assert Threshold(watch_above=0.5, alarm_above=0.8).text(share=True) == "watch above 50 %, alarm above 80 %"
    assert Threshold(watch_below=0.5, watch_above=2).text() == "watch below 0.5 or above 2"
    assert Threshold().text() == ""


def test_the_gap_is_judged_by_precision_and_lag() -> None:
    # A gap of 2e-3 is rounding in bf16 and an error in fp32.
    bf16 = FP32 | {"rollout": {"dtype": "bfloat16"}}
    assert thresholds.gap(facts_of(bf16, EMPTY)).state(2e-3) == "ok"
    assert thresholds.gap(facts_of(FP32, EMPTY)).state(2e-3) == "alarm"
    assert thresholds.gap(facts_of(FP32 | {"max_policy_lag": 1}, EMPTY)).state(2e-3) == "ok"
    # Without a configuration nothing is known, and the wider bound is taken.
    assert thresholds.gap(facts_of(None, EMPTY)).state(2e-3) == "ok"


def test_entropy_is_relative_to_the_first_step_that_has_it() -> None:
    table = MetricTable(steps=[0, 1, 2], columns={"train/entropy": [None, 2.0, 0.1]})
    bound = thresholds.entropy(facts_of({}, table))
    assert [bound.state(value) for value in (2.0, 0.5, 0.1, 4.1, 8.1)] == ["ok", "watch", "alarm", "watch", "alarm"]
    assert thresholds.entropy(facts_of({}, EMPTY)).bands() == []


def test_entropy_is_the_samplers_where_it_is_known() -> None:
    # The learner's is over completions with an advantage alone, and falls here because others are solved.
    columns: dict[str, list[float | None]] = {"train/entropy": [4.0, 0.1]}
    assert facts_of({}, MetricTable(steps=[0, 1], columns=columns)).first_entropy == 4.0
    columns["rollout/sampled_entropy"] = [None, 2.0]
    assert facts_of({}, MetricTable(steps=[0, 1], columns=columns)).first_entropy == 2.0


def test_the_gradient_norm_is_relative_to_the_median_once_there_is_one() -> None:
    norms: list[float | None] = [1.0, 1.0, 1.0, 1.0, 100.0]
    five = MetricTable(steps=range(5), columns={"train/grad_norm": norms})
    assert thresholds.grad_norm(facts_of({}, five)).state(4.0) == "watch"
    four = MetricTable(steps=range(4), columns={"train/grad_norm": norms[:4]})
    assert thresholds.grad_norm(facts_of({}, four)).bands() == []


@pytest.mark.parametrize("config", [None, {}, {"rollout": None}, {"rollout": "x"}, {"rollout": {"group_size": "8"}}])
def test_a_configuration_may_hold_anything(config: dict[str, object] | None) -> None:
    facts = facts_of(config, EMPTY)
    assert facts.group_size is None
    assert facts.max_policy_lag == 0


def test_settings_are_read_by_dotted_keys_and_kinds() -> None:
    config = {"learner": {"objective": {"kl": {"coef": 1, "on": True, "unbiased": None}}}}
    assert setting(config, "learner.objective.kl.coef", float) == 1.0
    assert written(config, "learner.objective.kl.unbiased", bool) is None
    assert written(config, "learner.objective.kl.on", int) is None
    assert written(config, "learner.objective.kl.coef.deeper", int) is None


def test_what_a_run_did_not_write_has_the_default_of_the_configuration() -> None:
    assert setting({}, "recovery.max_restarts", int) == RecoveryConfig().max_restarts
    assert setting(None, "learner.objective.kl.coef", float) == KlConfig().coef
    assert setting({"eval": {"at_end": "no"}}, "eval.at_end", bool) is True
    with pytest.raises(KeyError):
        setting(None, "learner.objective.of_another_version", float)
