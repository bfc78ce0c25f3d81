"""Metrics by hand, and the estimators against brute force."""

import math
from dataclasses import replace
from itertools import combinations
from math import sqrt

import numpy as np
import pytest

from cluster.dashboard.files.features import Lists
from cluster.dashboard.files.features import repetition as repetitions
from cluster.record.episode_metrics import MAX_SCORES, episode_metrics
from cluster.record.metrics import (
    count_metrics,
    evaluation_metrics,
    lag_metrics,
    maj_at_k,
    pass_at_k,
    prompt_metrics,
    reward_metrics,
    rollout_metrics,
    step_metrics,
    time_metrics,
    train_metrics,
)
from cluster.types import GroupCounts, StepTimings
from reward.types import RewardOutcome
from rollout.episode_types import summary_of
from rollout.episodes.environment import Outcome
from rollout.prompts.stream import StreamFacts
from rollout.repetition import repetition
from rollout.types import FinishReason, read_only
from tests.cluster.examples import completion, episode_completion, failed, ok, scored, step_output

TIMINGS = StepTimings(step_s=10.0, generate_s=4.0, score_s=1.0, train_s=2.0, sync_s=0.5)


def test_a_failed_reward_is_counted_and_enters_no_mean() -> None:
    # scored rewards 1, 0, 0, 1, 1: mean 3/5, variance 3/5 - 9/25 = 6/25; three of five right
    groups = [
        scored(0, [ok(1.0), ok(0.0), failed(RewardOutcome.TIMEOUT), ok(0.0)]),
        scored(1, [ok(1.0), ok(1.0), failed(RewardOutcome.ERROR)]),
    ]
    metrics = reward_metrics(groups)
    assert metrics["reward/mean"] == pytest.approx(0.6)
    assert metrics["reward/std"] == pytest.approx(sqrt(6) / 5)
    assert (metrics["reward/min"], metrics["reward/max"]) == (0.0, 1.0)
    assert metrics["reward/accuracy"] == pytest.approx(0.6)
    assert metrics["reward/component_math"] == pytest.approx(0.6)
    outcomes = {name: metrics[f"reward/outcome_{name}"] for name in ("ok", "timeout", "error", "invalid")}
    assert outcomes == {"ok": 5, "timeout": 1, "error": 1, "invalid": 0}
    assert metrics["reward/equal_groups_fraction"] == 0.5
    assert reward_metrics([scored(0, [ok(0.1 + 0.2), ok(0.3)])])["reward/equal_groups_fraction"] == 1
    assert (metrics["reward/all_right_groups"], metrics["reward/all_wrong_groups"]) == (1, 0)


def test_of_an_episode_what_the_world_said_was_not_sampled() -> None:
    """A single answer of 2 tokens at -0.5 each, and an episode of 10 tokens of which 6 were sampled, at 12 nats."""
    groups = [scored(0, [ok(1.0), ok(0.0)], [completion(0), episode_completion(1)])]
    metrics = rollout_metrics(groups)
    assert metrics["rollout/completion_tokens"] == 8
    assert metrics["rollout/completion_tokens_mean"] == 4
    assert metrics["rollout/completion_tokens_max"] == 6
    assert metrics["rollout/ended_tokens_mean"] == 2
    assert metrics["rollout/sampled_entropy"] == pytest.approx((2 * 0.5 + 12) / 8)
    assert time_metrics(groups, step_output(), TIMINGS)["rollout/tokens_per_s"] == 2  # 8 in 4 s
    facts = groups[0].group.facts
    assert (facts.num_tokens_G, facts.num_sampled_tokens_G, facts.num_trainable_tokens_G) == ((2, 10), (2, 6), (2, 6))


def test_what_episodes_are_told_by() -> None:
    """Beside a single answer two episodes: one of three turns, and one that was won in a turn, in another world."""
    won = episode_completion(1)
    assert won.episode is not None
    episode = replace(
        won.episode,
        outcome="done",
        turns=won.episode.turns[:1],
        scores={"won": 1.0},
        num_attempts=1,
        num_tool_calls=0,
        seconds=4.0,
        world_s=1.0,
    )
    groups = [
        scored(0, [ok(1.0), ok(0.0), ok(0.0)], [completion(2), episode_completion(), replace(won, episode=episode)])
    ]
    metrics = step_metrics(
        groups,
        step_output(),
        timings=TIMINGS,
        counts=GroupCounts(dispatched=1, trained=1, in_flight=0, rejected={}),
        policy_version=0,
    )
    ends = {f"episode/ended_{outcome}": 0.0 for outcome in Outcome}
    assert {name: value for name, value in metrics.items() if name.startswith("episode/")} == ends | {
        "episode/turns_mean": 2.0,  # 3 and 1
        "episode/tokens_mean": 10.0,
        "episode/tool_calls_mean": 0.5,
        "episode/begun_again": 1.0,
        "episode/ended_done": 0.5,
        "episode/ended_turns": 0.5,
        "episode/score_won": 0.5,
        "episode/score_tries": 3.0,
        "episode/seconds_mean": 3.0,
        "episode/seconds_max": 4.0,
        "episode/world_s_mean": 0.75,
        "episode/world_share": 0.25,
    }
    evaluation = evaluation_metrics(groups)
    assert evaluation["eval/episode_turns_mean"] == 2.0
    assert evaluation["eval/completion_tokens"] == 2 + 6 + 4
    assert not any(name.startswith("episode/") for name in step_metrics_of_single_answers())


def test_names_that_worlds_give_are_few_and_plain() -> None:
    episode = episode_completion().episode
    assert episode is not None
    scores = {"näm e/1": 0.5, "nothing": math.nan, **{f"round {i:02}": 1.0 for i in range(40)}}
    metrics = episode_metrics([(summary_of(replace(episode, scores=scores)), 10)])
    named = {name: value for name, value in metrics.items() if name.startswith("episode/score_")}
    assert named["episode/score_n_m_e_1"] == 0.5
    assert named["episode/score_round_00"] == 1.0
    assert len(named) == MAX_SCORES - 1  # `nothing` is no number


def step_metrics_of_single_answers() -> dict[str, float]:
    counts = GroupCounts(dispatched=1, trained=1, in_flight=0, rejected={})
    return step_metrics([scored(0, [ok(1.0)])], step_output(), timings=TIMINGS, counts=counts, policy_version=0)


def test_without_any_score_there_is_no_mean() -> None:
    metrics = reward_metrics([scored(0, [failed(), failed()])])
    assert "reward/mean" not in metrics
    assert "reward/accuracy" not in metrics
    assert metrics["reward/outcome_timeout"] == 2


def test_lengths_and_endings() -> None:
    samples = [
        completion(0, num_tokens=2),
        completion(1, num_tokens=8, finish=FinishReason.LENGTH),
        completion(2, num_tokens=4),
        completion(3, num_tokens=2, finish=FinishReason.ABORT),
        completion(4, num_tokens=4, finish=FinishReason.ERROR),
    ]
    metrics = rollout_metrics([scored(0, [ok(0.0)] * 5, samples)])
    assert metrics["rollout/completion_tokens"] == 20
    assert metrics["rollout/completion_tokens_mean"] == 4
    assert metrics["rollout/ended_tokens_mean"] == 3
    assert metrics["rollout/truncated_fraction"] == 0.2
    assert metrics["rollout/aborted_fraction"] == 0.4
    assert metrics["rollout/sampled_entropy"] == pytest.approx(0.5)


def test_repetition_is_the_mean_over_completions() -> None:
    """1 2 3 4 1 2 3 4 has five 4-grams, of which the last occurred before; four tokens have no second one."""
    again = replace(completion(0, num_tokens=8), token_ids=read_only((1, 2, 3, 4, 1, 2, 3, 4), np.int32))
    group = scored(0, [ok(0.0)] * 2, [again, completion(1, num_tokens=4)])
    assert rollout_metrics([group])["rollout/repetition"] == pytest.approx(0.1)


def test_repetition_is_what_the_dashboard_counts() -> None:
    rng = np.random.default_rng(0)
    samples = [rng.integers(0, 3, n).astype(np.int32) for n in (0, 1, 4, 5, 40, 300)]
    lists = Lists(np.concatenate(samples), np.array([len(one) for one in samples]))
    assert [repetition(one) for one in samples] == pytest.approx(repetitions(lists).tolist())
    assert repetition(samples[-1]) > 0.5


def test_lag_is_that_of_the_oldest_token_of_each_group() -> None:
    young = scored(0, [ok(0.0)] * 2, [completion(0, version=5), completion(1, version=5)])
    mixed = scored(1, [ok(0.0)] * 2, [completion(0, version=5), completion(1, version=2)])
    assert lag_metrics([young, mixed], policy_version=5) == {"lag/mean": 1.5, "lag/max": 3, "lag/mixed_completions": 0}


def test_group_counts_show_what_is_unaccounted_for() -> None:
    counts = GroupCounts(dispatched=20, trained=12, in_flight=4, rejected={"too_old": 1, "equal_rewards": 2})
    metrics = count_metrics(counts)
    assert metrics["groups/rejected"] == 3
    assert metrics["groups/rejected_too_old"] == 1
    assert metrics["groups/unaccounted"] == 1


def test_tokens_per_second_of_sampler_and_learner() -> None:
    # 4 completions of 2 tokens: 8 sampled in 4 s. The learner computed two of them, with their prompts of 3, in 2 s.
    output = step_output(0, {"train/sequence_tokens": 10.0})
    metrics = time_metrics([scored(0, [ok(1.0)] * 4)], output, TIMINGS)
    assert metrics["rollout/tokens_per_s"] == 2.0
    assert metrics["train/tokens_per_s"] == 5.0
    # A step in which nothing was computed has no speed.
    assert "train/tokens_per_s" not in time_metrics([], step_output(0), TIMINGS)


def test_learner_metrics_get_their_stage() -> None:
    metrics = train_metrics(step_output(4, {"loss": 0.25, "kl/reference": 0.5}))
    assert metrics["train/loss"] == 0.25
    assert metrics["kl/reference"] == 0.5
    assert metrics["train/policy_version"] == 5
    assert (metrics["train/skipped"], metrics["train/bad_steps_in_a_row"]) == (0, 0)


def test_each_task_of_several_has_its_share_and_its_accuracy() -> None:
    groups = [scored(0, [ok(1.0), ok(0.0)]), scored(1, [ok(1.0), failed()]), scored(2, [ok(1.0), ok(1.0)])]
    metrics = prompt_metrics(groups, StreamFacts(tasks=("sums", "words")))
    # All three groups are of sums: 4 of the 5 completions that were judged are right.
    assert metrics == {
        "prompts/share_sums": 1.0,
        "prompts/share_words": 0.0,
        "prompts/accuracy_sums": 0.8,
        "prompts/reward_sums": 0.8,
    }
    assert prompt_metrics(groups, StreamFacts(tasks=("sums",))) == {}
    known = StreamFacts(tasks=("sums",), num_known=3, pass_rate_mean=0.25, chance_mean=0.5)
    assert prompt_metrics(groups, known) == {
        "prompts/known": 3.0,
        "prompts/pass_rate_mean": 0.25,
        "prompts/chance_mean": 0.5,
    }


def test_step_metrics_have_every_stage_and_refuse_one_name_twice() -> None:
    groups = [scored(0, [ok(1.0), ok(0.0)])]
    counts = GroupCounts(dispatched=1, trained=1, in_flight=0)
    metrics = step_metrics(groups, step_output(), timings=TIMINGS, counts=counts, policy_version=0)
    assert {name.split("/")[0] for name in metrics} == {"reward", "rollout", "lag", "train", "groups", "time"}
    clash = step_output(0, {"lag/mean": 1.0})
    with pytest.raises(AssertionError, match="lag/mean"):
        step_metrics(groups, clash, timings=TIMINGS, counts=counts, policy_version=0)


@pytest.mark.parametrize(("n", "c"), [(1, 0), (1, 1), (5, 0), (5, 1), (5, 3), (6, 6), (7, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n: int, c: int) -> None:
    samples = [index < c for index in range(n)]
    for k in range(1, n + 1):
        subsets = list(combinations(samples, k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets), abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, 2, 5), (4, 2, 0), (4, -1, 1)])
def test_pass_at_k_refuses_what_has_no_meaning(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"got n = {n}, c = {c}, k = {k}"):
        pass_at_k(n, c, k)


def test_majority_is_independent_of_the_order_of_samples() -> None:
    assert maj_at_k(["4", "4", "5"], [True, True, False]) == 1.0
    assert maj_at_k(["5", "4", "5"], [False, True, False]) == 0.0
    assert maj_at_k(["4", "5"], [True, False]) == maj_at_k(["5", "4"], [False, True]) == 0.5
    assert maj_at_k([None, None, "4"], [False, False, True]) == 1.0
    assert maj_at_k([None, None], [False, False]) == 0.0
    with pytest.raises(ValueError, match="got 1 and 2"):
        maj_at_k(["4"], [True, False])


def test_evaluation_by_hand() -> None:
    # question 0: 2 of 4 right: pass@1 1/2, pass@2 1 - 1/6, pass@4 1; question 1: 0 of 4; question 2: nothing scored
    groups = [
        scored(0, [ok(1.0), ok(1.0), ok(0.0), ok(0.0)]),
        scored(1, [ok(0.0)] * 4),
        scored(2, [failed()] * 4),
    ]
    metrics = evaluation_metrics(groups)
    assert metrics["eval/pass_at_1"] == pytest.approx(0.25)
    assert metrics["eval/pass_at_2"] == pytest.approx(5 / 12)
    assert metrics["eval/pass_at_4"] == pytest.approx(0.5)
    assert (metrics["eval/questions"], metrics["eval/unscored_questions"], metrics["eval/failed_rewards"]) == (3, 1, 4)
    assert metrics["eval/completion_tokens_mean"] == 2
