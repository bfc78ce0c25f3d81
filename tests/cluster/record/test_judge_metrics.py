"""Numbers about judges, worked out by hand."""

from dataclasses import replace

import pytest

from cluster.record.group_table import OpenGroup, read_groups, tables_of, write_tables
from cluster.record.judge_metrics import agreement, cost_metrics, judge_metrics, length_correlation
from reward.config import RewardConfig
from reward.types import RewardOutcome, RewardResult, ScoredGroup, ServerCost
from tests.cluster.examples import completion, failed, ok, opened, scored


def judged(*scores: tuple[float, float, int]) -> ScoredGroup:
    """A group of (judge, gold, tokens)."""
    results = [replace(ok(1.0), components={"judge": judge, "math": gold}) for judge, gold, _ in scores]
    samples = [completion(place, num_tokens=tokens) for place, (_, _, tokens) in enumerate(scores)]
    return scored(0, results, samples)


def test_agreement_is_of_pairs_that_the_gold_tells_apart() -> None:
    # Of the first group: right over wrong, a tie, and a pair the wrong way; of the second none differs.
    groups = [judged((0.9, 1, 2), (0.5, 0, 2), (0.9, 0, 2)), judged((0.1, 1, 2), (0.2, 1, 2))]
    assert agreement(groups, "judge", "math") == pytest.approx(1.5 / 2)
    groups.append(judged((0.1, 1, 2), (0.2, 0, 2)))
    assert agreement(groups, "judge", "math") == pytest.approx(1.5 / 3)
    assert agreement(groups[1:2], "judge", "math") is None
    assert agreement(groups, "judge", "other") is None


def test_correlation_with_length_is_within_groups() -> None:
    # In each group the longer one is better; the second group is longer and worse as a whole.
    groups = [judged((0.8, 1, 2), (0.9, 1, 4)), judged((0.1, 1, 20), (0.2, 1, 22))]
    assert length_correlation(groups, "judge") == pytest.approx(1.0)
    assert length_correlation([judged((0.9, 1, 2), (0.8, 1, 4))], "judge") == pytest.approx(-1.0)
    # Deviations (-0.1, 0.1, 0.1, -0.1) and (-1, 1, -1, 1): 0 together.
    assert length_correlation([groups[0], judged((0.2, 1, 20), (0.1, 1, 22))], "judge") == pytest.approx(0.0)
    assert length_correlation([judged((0.5, 1, 2), (0.5, 1, 4))], "judge") is None
    assert length_correlation([scored(0, [failed(), ok(1.0)])], "judge") is None


def test_only_judges_are_looked_at_and_the_gold_where_there_is_one() -> None:
    at = {"base_url": "http://h/v1", "model": "m"}
    functions = [{"function": "math"}, {"function": "judge", "params": at}]
    groups = [judged((0.8, 1, 2), (0.9, 0, 4))]
    reward = RewardConfig.model_validate({"functions": functions})
    assert set(judge_metrics(groups, reward)) == {"judge/length_correlation_judge"}
    functions[1] = {"function": "judge", "params": {**at, "gold": "math"}}
    reward = RewardConfig.model_validate({"functions": functions})
    assert judge_metrics(groups, reward)["judge/agreement_judge"] == 0.0
    assert judge_metrics(groups, RewardConfig()) == {}


def test_costs_are_added_up_and_absent_where_no_server_is_asked() -> None:
    group = judged((0.5, 1, 2))
    assert cost_metrics([group]) == {}
    costs = ServerCost(calls=2, cached=1, attempts=3, prompt_tokens=10, completion_tokens=5, waited_s=0.5, asked_s=1.0)
    dear = replace(group, scores=replace(group.scores, cost=costs))
    assert cost_metrics([dear, group, dear]) == {
        "judge/calls": 4,
        "judge/cached": 2,
        "judge/attempts": 6,
        "judge/prompt_tokens": 20,
        "judge/completion_tokens": 10,
        "judge/waited_s": 1.0,
        "judge/asked_s": 2.0,
    }
    assert cost_metrics([dear], "eval/judge_")["eval/judge_calls"] == 2


def test_verdicts_and_costs_come_back_from_a_table(tmp_path) -> None:  # type: ignore[no-untyped-def]
    verdict = {"mode": "score", "says": 7, "reason": "\u4f60 \ud800 <b>"}
    results = [
        replace(ok(0.7), verdicts={"judge": verdict}),
        RewardResult(outcome=RewardOutcome.INVALID, reward=None, detail="judge: no"),
    ]
    group = scored(0, results)
    group = replace(group, scores=replace(group.scores, cost=ServerCost(calls=1, waited_s=0.25)))
    for waiting in (True, False):
        path = tmp_path / f"{waiting}.parquet"
        with path.open("wb") as file:
            write_tables(file, tables_of(0, [opened(group)], waiting=waiting), waiting=waiting)
        (back,) = read_groups(path)
        assert isinstance(back, OpenGroup)
        assert [result.verdicts for result in back.scored.rewards] == [{"judge": verdict}, {}]
        assert back.scored.scores.cost == (group.scores.cost if waiting else None)
