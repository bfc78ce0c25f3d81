"""Every number that is written of a step or an evaluation is declared: its unit, what it is over, how it is reduced."""

from dataclasses import replace

from cluster.config import EvalConfig
from cluster.loop.evaluation import metrics_of
from cluster.record.judge_metrics import cost_metrics, judge_metrics
from cluster.record.metric_list import EVALUATION_METRICS, STEP_METRICS, metric_of
from cluster.record.metrics import step_metrics
from cluster.types import GroupCounts, StepTimings
from learner.metrics import LEARNER_METRICS
from reward.config import RewardConfig
from reward.types import RewardOutcome, ServerCost
from rollout.prompts.stream import StreamFacts
from rollout.types import FinishReason
from tests.cluster.examples import completion, episode_completion, failed, ok, scored, step_output
from tests.cluster.record.metric_docs import PAGE, metrics_page

JUDGED = [
    replace(ok(reward), components={"math": reward, "judge": score}) for reward, score in ((0.0, 0.5), (1.0, 0.75))
]
GROUPS = [
    scored(0, [ok(1.0), failed(RewardOutcome.TIMEOUT)], [completion(0), completion(1, finish=FinishReason.STOP)]),
    scored(1, JUDGED, [completion(0, num_tokens=2), episode_completion(1)]),
]
GROUPS[1] = replace(GROUPS[1], scores=replace(GROUPS[1].scores, cost=ServerCost(calls=2)))
REWARD = RewardConfig.model_validate(
    {
        "functions": [
            {"function": "math"},
            {"function": "judge", "params": {"base_url": "http://h/v1", "model": "m", "gold": "math"}},
        ]
    }
)
"""Of every outcome and ending, so that no name is left out for want of a value."""


def covered(names: set[str], declared: set[str]) -> tuple[set[str], set[str]]:
    """(names that nothing declares, declarations that no name is of)"""
    families = {name.removesuffix("*") for name in declared if name.endswith("*")}
    undeclared = {name for name in names - declared if not name.startswith(tuple(families))}
    unused = {
        name for name in declared - names if not (name.endswith("*") and any(n.startswith(name[:-1]) for n in names))
    }
    return undeclared, unused


def test_every_name_of_a_step_is_declared_and_every_declaration_is_of_one() -> None:
    counts = GroupCounts(dispatched=3, trained=2, in_flight=0, rejected={"equal_rewards": 1})
    timings = StepTimings(
        step_s=10.0, generate_s=4.0, score_s=1.0, train_s=2.0, sync_s=0.5, streamed_s=1.0, ended_s=1.0
    )
    output = step_output(0, {metric.name: 1.0 for metric in LEARNER_METRICS})
    stream = StreamFacts(tasks=("sums", "words"), num_known=2, pass_rate_mean=0.5, chance_mean=1.0)
    metrics = step_metrics(GROUPS, output, timings=timings, counts=counts, policy_version=0, stream=stream)
    names = {*metrics, *cost_metrics(GROUPS), *judge_metrics(GROUPS, REWARD)}
    assert covered(names, {metric.name for metric in STEP_METRICS}) == (set(), set())


def test_every_name_of_an_evaluation_is_declared_and_every_declaration_is_of_one() -> None:
    names = {*metrics_of(EvalConfig(), GROUPS), "eval/policy_version"}
    assert covered(names, {metric.name for metric in EVALUATION_METRICS}) == (set(), set())


def test_no_name_is_declared_twice() -> None:
    names = [metric.name for metric in (*STEP_METRICS, *EVALUATION_METRICS)]
    assert len(set(names)) == len(names)


def test_a_member_of_a_family_has_its_own_name_and_label() -> None:
    assert (found := metric_of("eval/pass_at_8")) is not None
    assert (found.name, found.label, found.unit) == ("eval/pass_at_8", "Held-out pass@8", "share")
    assert (found := metric_of("groups/rejected_too_few_scored")) is not None
    assert found.label == "Rejected: too few scored"
    assert metric_of("groups/rejected_") is None
    assert (found := metric_of("eval/sums/pass_at_8")) is not None
    assert (found.name, found.label, found.unit) == ("eval/sums/pass_at_8", "Held-out pass@8, sums", "share")
    assert metric_of("eval/sums/of_another_version") is None
    assert metric_of("train/of_another_version") is None


def test_the_documentation_lists_all_of_them() -> None:
    assert PAGE.read_text(encoding="utf-8") == metrics_page(), "write it: python -m tests.cluster.record.metric_docs"
