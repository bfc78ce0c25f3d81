import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from cluster.config import EvalConfig, RunConfig
from cluster.errors import StageTimeoutError
from cluster.groups.reward_router import RewardRouter
from cluster.loop.evaluation import evaluate, metrics_of
from reward.types import RewardResult, ScoredGroup
from reward.worker import with_answer
from rollout.config import ReasoningGymTask, SamplingConfig
from rollout.types import RolloutGroup, SampleRequest
from tests.cluster.examples import completion, failed, ok, scored
from tests.cluster.fakes import FakeReward, FakeSampler, Journal, fleet_of
from tests.reward.samples import item

CONFIG = EvalConfig(num_samples=4, sampling=SamplingConfig(temperature=0.5, top_p=0.75, max_tokens=9))
RUN = RunConfig(task=ReasoningGymTask(generator="chain_sum"))


def answered(texts: list[str], rewards: list[RewardResult]) -> ScoredGroup:
    rewards = [with_answer(result, item(text), None) for result, text in zip(rewards, texts, strict=True)]
    return scored(0, rewards, [completion(i, text=text) for i, text in enumerate(texts)])


def test_equal_numbers_written_otherwise_vote_together() -> None:
    texts = ["The answer is 7", "The answer is 7", "The answer is 1,234", "#### 1234", r"\boxed{1,234}"]
    metrics = metrics_of(CONFIG, [answered(texts, [ok(0), ok(0), ok(1), ok(1), ok(1)])])
    # Apart, "7" would have the most votes.
    assert metrics["eval/maj_at_4"] == 1.0
    assert metrics["eval/pass_at_1"] == pytest.approx(3 / 5)


def test_means_are_over_the_questions() -> None:
    right = answered(["The answer is 3"] * 4, [ok(1)] * 4)
    # 3 of 4 vote for 5, which is wrong: pass@1 is 1/4, maj@4 is 0, pass@4 is 1.
    wrong = answered(["The answer is 5"] * 3 + ["The answer is 3"], [ok(0)] * 3 + [ok(1)])
    metrics = metrics_of(CONFIG, [right, wrong])
    assert metrics["eval/pass_at_1"] == pytest.approx((1 + 1 / 4) / 2)
    assert metrics["eval/pass_at_4"] == pytest.approx(1.0)
    assert metrics["eval/maj_at_4"] == pytest.approx(0.5)
    assert (metrics["eval/temperature"], metrics["eval/top_p"], metrics["eval/max_tokens"]) == (0.5, 0.75, 9.0)


def of_task(task: str, answer: ScoredGroup) -> ScoredGroup:
    prompt = dataclasses.replace(answer.group.prompt, task=task)
    return dataclasses.replace(answer, group=dataclasses.replace(answer.group, prompt=prompt))


def test_several_tasks_have_their_own_metrics_and_the_overall_ones() -> None:
    right = answered(["The answer is 3"] * 4, [ok(1)] * 4)
    wrong = answered(["The answer is 5"] * 3 + ["The answer is 3"], [ok(0)] * 3 + [ok(1)])
    groups = [of_task("sums", right), of_task("sums", wrong), of_task("words", wrong)]
    metrics = metrics_of(CONFIG, groups)
    assert metrics["eval/pass_at_1"] == pytest.approx((1 + 1 / 4 + 1 / 4) / 3)
    assert metrics["eval/sums/pass_at_1"] == pytest.approx((1 + 1 / 4) / 2)
    assert metrics["eval/words/pass_at_1"] == pytest.approx(1 / 4)
    assert (metrics["eval/sums/maj_at_4"], metrics["eval/words/maj_at_4"]) == (0.5, 0.0)
    assert (metrics["eval/sums/questions"], metrics["eval/words/questions"]) == (2, 1)
    assert "eval/sums/temperature" not in metrics
    assert not any(name.count("/") > 1 for name in metrics_of(CONFIG, groups[:2]))


def test_what_could_not_be_scored_has_no_vote() -> None:
    texts = ["The answer is 5", "The answer is 5", "The answer is 3", "The answer is 3"]
    half = answered(texts, [failed(), failed(), ok(1), failed()])
    none = answered(texts, [failed()] * 4)
    metrics = metrics_of(CONFIG, [half, none])
    assert metrics["eval/maj_at_4"] == metrics["eval/pass_at_1"] == 1.0
    assert metrics["eval/unscored_questions"] == 1.0
    assert "eval/maj_at_4" not in metrics_of(CONFIG, [none])


def test_a_text_without_an_answer_votes_for_itself_and_an_empty_one_not_at_all() -> None:
    metrics = metrics_of(CONFIG, [answered(["", "", " ", "yes"], [ok(0), ok(0), ok(0), ok(1)])])
    assert metrics["eval/maj_at_4"] == 1.0


def test_an_evaluation_asks_for_every_question_and_keeps_their_order() -> None:
    journal: Journal = []
    fleet = fleet_of(
        samplers=[FakeSampler(journal, name=f"sampler-{i}") for i in range(2)],
        rewards=[FakeReward(lambda group: [ok(float(group.prompt.index == 1))] * len(group.completions))],
    )
    first = scored(0, [ok(1)]).group.prompt
    prompts = [dataclasses.replace(first, index=i) for i in range(3)]
    result = asyncio.run(evaluate(CONFIG, prompts, fleet, RewardRouter(RUN, fleet)))
    assert [group.group.prompt.index for group in result.groups] == [0, 1, 2]
    assert [len(group.rewards) for group in result.groups] == [4, 4, 4]
    assert result.accuracy == pytest.approx(1 / 3)
    assert journal == [("submit", "sampler-0", "2"), ("submit", "sampler-1", "1")]


def test_no_two_evaluations_have_a_lease_in_common() -> None:
    keys: list[tuple[str, str, int]] = []

    class Noting(FakeSampler):
        def submit(self, requests: Sequence[SampleRequest], _sampling: object) -> None:
            keys.extend(request.key for request in requests)
            super().submit(requests, _sampling)

    fleet = fleet_of(samplers=[Noting([], name="sampler-0")], rewards=[FakeReward(lambda _: [ok(1)] * 4)])
    prompts = [scored(0, [ok(1)]).group.prompt]
    for _ in range(3):
        asyncio.run(evaluate(CONFIG, prompts, fleet, RewardRouter(RUN, fleet)))
    assert len(set(keys)) == 3


def test_an_evaluation_scores_no_steps() -> None:
    asked: list[bool] = []

    class Noting(FakeReward):
        def score(self, group: RolloutGroup, *, with_steps: bool = True) -> Any:
            asked.append(with_steps)
            return super().score(group)

    fleet = fleet_of(samplers=[FakeSampler([], name="sampler-0")], rewards=[Noting(lambda _: [ok(1)] * 4)])
    asyncio.run(evaluate(CONFIG, [scored(0, [ok(1)]).group.prompt], fleet, RewardRouter(RUN, fleet)))
    assert asked == [False]


def test_an_evaluation_past_its_deadline_says_so() -> None:
    class Stuck(FakeReward):
        def score(self, group: RolloutGroup, *, with_steps: bool = True) -> Any:
            return asyncio.sleep(30)

    fleet = fleet_of(samplers=[FakeSampler([], name="sampler-0")], rewards=[Stuck(lambda _: [])])
    config = CONFIG.model_copy(update={"deadline_s": 0.05})
    with pytest.raises(StageTimeoutError, match=r"eval: the samplers did not finish an evaluation within 0\.05 s"):
        asyncio.run(evaluate(config, [scored(0, [ok(1)]).group.prompt], fleet, RewardRouter(RUN, fleet)))
