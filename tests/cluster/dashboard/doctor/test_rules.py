"""Each rule on made-up facts: an ill run that it must name, and one like it that is well."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from cluster.dashboard.doctor import rules_faults, rules_judge
from cluster.dashboard.doctor.facts import Conflict, Facts, StepDigest
from cluster.dashboard.doctor.rules import RULES
from cluster.dashboard.doctor.trends import jump, recent, rises_steadily, since, trend
from cluster.dashboard.figures.thresholds import facts_of
from cluster.dashboard.records import MetricTable, Problem

N = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    ill: Facts
    well: Facts
    severity: str
    says: str
    """A part of the evidence."""


def facts(
    columns: Mapping[str, Sequence[float | None]] | None = None, config: Mapping[str, Any] | None = None, **others: Any
) -> Facts:
    """A run of N steps; every column that is not named is missing."""
    columns = dict(columns or {})
    length = max((len(values) for values in columns.values()), default=N)
    table = MetricTable(steps=tuple(range(length)), columns=columns)
    config = {"rollout": {"group_size": 8, "dtype": "bfloat16"}, "learner": {"dtype": "bfloat16"}, **(config or {})}
    return Facts(table=table, limits=facts_of(config, table), config=config, **others)


def flat(value: float, number: int = N) -> list[float]:
    return [value] * number


def line(first: float, last: float, number: int = N) -> list[float]:
    return [first + (last - first) * i / (number - 1) for i in range(number)]


def digests(**columns: Any) -> tuple[StepDigest, ...]:
    """Of N steps; each column a function of the step."""
    base: dict[str, Callable[[int], Any]] = {
        "gaps": lambda step: {"sampler-0": 1e-4, "sampler-1": 1e-4},
        "lags": lambda step: {"sampler-0": 0, "sampler-1": 0},
        "repeating": lambda step: 0.0,
        "conflicts": lambda step: (),
    }
    named = base | columns
    return tuple(
        StepDigest(step=step, num_groups=12, **{name: column(step) for name, column in named.items()})
        for step in range(N)
    )


def conflict(group: str) -> Conflict:
    return Conflict(group_id=group, answer="42", num_right=3, num_wrong=2)


FAILING = {
    "rollout/completions": [96.0] * N,
    "reward/outcome_timeout": [0.0] * N,
    "reward/outcome_invalid": [0.0] * N,
}
RISING_REWARD = line(0.2, 0.8)
FLAT_REWARD = [0.39, 0.41] * (N // 2)


JUMPING = ([0.76, 0.76, 0.86, 0.86] * N)[:N]
"""A mean of 0.81 with a deviation of 0.05."""


def evaluated(*accuracy: float, questions: float = 100.0) -> dict[str, Any]:
    """The facts of evaluations after every ten steps."""
    columns = {"eval/pass_at_1": accuracy, "eval/questions": [questions] * len(accuracy)}
    return {"held_out": accuracy, "evaluations": MetricTable(steps=range(0, 10 * len(accuracy), 10), columns=columns)}


CASES: dict[str, Case] = {
    "reward_fell": Case(
        ill=facts({"reward/mean": [*JUMPING, 0.688, 0.695, 0.562]}),
        well=facts({"reward/mean": [*JUMPING, 0.74, 0.695, 0.562]}),  # the first is no more than noise
        severity="warning",
        says="The mean reward was 0.81 with a deviation of 0.0513 from step to step; since step 30 it is 0.648, 3.15 "
        "deviations lower.",
    ),
    "held_out_fell": Case(
        # 65 of 100 is 0.2 less than 85: 3.3 times the error of the difference, 0.0596.
        ill=facts(**evaluated(0.4, 0.85, 0.65)),
        well=facts(**evaluated(0.4, 0.85, 0.7)),  # 2.6 times
        severity="warning",
        says="Of 100 held-out questions 85 % were right after 10 steps, and 65 % after 20.",
    ),
    "run_ended_badly": Case(
        ill=facts({"reward/mean": flat(0.4)}, {"steps": 100}, status="stopped"),
        well=facts({"reward/mean": flat(0.4)}, {"steps": 100}, status="interrupted"),
        severity="warning",
        says="ends after 30 of 100 steps",
    ),
    "ledger_unbalanced": Case(
        ill=facts({"groups/unaccounted": [0.0] * 20 + [2.0] * 10}, anomalies={"consumed_twice": 1}),
        well=facts({"groups/unaccounted": [0.0] * N}),
        severity="error",
        says="2 groups are neither trained, rejected nor in flight; consumed twice: 1.",
    ),
    "steps_skipped": Case(
        ill=facts({"train/skipped": [0.0] * 28 + [1.0, 0.0], "train/bad_steps_in_a_row": [0.0] * 28 + [1.0, 0.0]}),
        well=facts({"train/skipped": [1.0] + [0.0] * 29}),
        severity="warning",
        says="1 of the last 20 steps changed nothing",
    ),
    "grader_fails": Case(
        ill=facts({**FAILING, "reward/outcome_error": [0.0] * 20 + [12.0] * 10}, rewards_failed_with="KeyError: 'x'"),
        well=facts({**FAILING, "reward/outcome_error": [0.0] * 29 + [1.0]}),
        severity="error",
        says="12.5 % of the completions of the last steps have no reward (60 error); the last one said: KeyError: 'x'.",
    ),
    "reward_constant": Case(
        ill=facts({**FAILING, "reward/outcome_error": flat(9), "reward/std": [0.0] * N, "reward/mean": [0.0] * N}),
        well=facts({**FAILING, "reward/outcome_error": [0.0] * N, "reward/std": [0.0] * N, "reward/mean": [0.0] * N}),
        severity="error",
        says="Every reward of the last 5 steps is 0, and 9.38 %",
    ),
    "same_answer_differs": Case(
        ill=facts(digests=digests(conflicts=lambda step: (conflict("a"), conflict("b")) if step > 20 else ())),
        well=facts(digests=digests(conflicts=lambda step: (conflict("a"),) if step == 28 else ())),
        severity="error",
        says='In 16.7 % of the groups of the last steps an answer is both right and wrong: "42" is right 3 times',
    ),
    "gap_jumped": Case(
        ill=facts(
            {"train/kl_rollout": flat(1e-4, 15) + flat(3e-2, 15)},
            digests=digests(
                gaps=lambda step: {"sampler-0": 1e-4, "sampler-1": 6e-2 if step >= 15 else 1e-4},
                lags=lambda step: {"sampler-0": 0, "sampler-1": max(0, step - 14)},
            ),
        ),
        # One bad step is an outlier, not a sync that failed.
        well=facts({"train/kl_rollout": [*flat(1e-4, 15), 3e-2, *flat(1e-4, 14)]}),
        severity="error",
        says="k3 rose from 0.0001 to 0.03 at step 15 and stayed there; sampler-1 has 0.06, the others 0.0001, and its "
        "tokens are stamped up to 15 versions behind.",
    ),
    "sampler_gap_differs": Case(
        ill=facts(digests=digests(gaps=lambda step: {"sampler-0": 1e-3, "sampler-1": 8e-3, "sampler-2": 1e-3})),
        well=facts(digests=digests(gaps=lambda step: {"sampler-0": 1e-3, "sampler-1": 4e-3, "sampler-2": 1e-3})),
        severity="warning",
        says="k3 of what sampler-1 sampled is 0.008 over the last steps, that of the others 0.001.",
    ),
    "gap_grows": Case(
        ill=facts({"train/kl_rollout": line(1e-3, 8e-3)}),
        well=facts({"train/kl_rollout": line(1e-4, 8e-4)}),
        severity="warning",
        says="k3 grew from 0.00209 to 0.00752",
    ),
    "gap_high": Case(
        ill=facts({"train/kl_rollout": flat(2e-2)}),
        well=facts({"train/kl_rollout": flat(2e-3)}),
        severity="error",
        says="k3 is 0.02 over the last steps; watch above 0.005, alarm above 0.01.",
    ),
    "ratios_cut_off": Case(
        ill=facts({"train/max_abs_log_ratio": [2.0] * (N - 1) + [20.5]}),
        well=facts({"train/max_abs_log_ratio": [20.0] * N}),
        severity="warning",
        says=f"1 of the last {N} steps have a token whose log-ratio is beyond 20 nats, the largest 20.5",
    ),
    "lag_over_bound": Case(
        ill=facts({"lag/max": [1.0] * 29 + [4.0]}, {"max_policy_lag": 2}),
        well=facts({"lag/max": [2.0] * N}, {"max_policy_lag": 2}),
        severity="error",
        says="1 steps trained on tokens up to 4 versions old, and max_policy_lag is 2.",
    ),
    "entropy_collapsed": Case(
        ill=facts(
            {
                "train/entropy": line(2.0, 0.1),
                "reward/mean": flat(0.4),
                "rollout/completion_tokens_mean": [100.0] * 10 + [40.0] * 20,
            }
        ),
        # The same fall on a task that is learnt.
        well=facts({"train/entropy": line(2.0, 0.1), "reward/mean": line(0.2, 0.98), "reward/accuracy": flat(0.95)}),
        severity="error",
        says="Entropy fell from 1.93 to 0.166 nats while the reward stays at 0.4; completions went from 100 to 40 "
        "tokens.",
    ),
    "entropy_exploded": Case(
        ill=facts({"train/entropy": line(1.0, 3.0)}),
        well=facts({"train/entropy": line(1.0, 1.8)}),
        severity="warning",
        says="Entropy rose from 1.07 to 2.86 nats, 2.68 times",
    ),
    "gradient_spikes": Case(
        ill=facts({"train/grad_norm": [*flat(1.0, 25), 5.0, 1.0, 6.0, 1.0, 1.0]}),
        well=facts({"train/grad_norm": [*flat(1.0, 25), 5.0, 1.0, 2.5, 1.0, 1.0]}),
        severity="warning",
        says="2 of the last 20 steps have more than 3 times the median of 1, the largest 6.",
    ),
    "clips_much": Case(
        ill=facts({"train/clip_fraction": flat(0.15)}),
        well=facts({"train/clip_fraction": flat(0.05)}),
        severity="warning",
        says="15 % of the tokens",
    ),
    "kl_without_reward": Case(
        ill=facts({"train/kl_ref": line(0.001, 0.2), "reward/mean": FLAT_REWARD}),
        well=facts({"train/kl_ref": line(0.001, 0.2), "reward/mean": RISING_REWARD}),
        severity="warning",
        says="KL to the reference went from 0.0319 to 0.169 in 30 steps",
    ),
    "evaluation_behind": Case(
        ill=facts({"reward/accuracy": line(0.2, 0.9)}, held_out=(0.2, 0.22, 0.21)),
        well=facts({"reward/accuracy": line(0.2, 0.9)}, held_out=(0.2, 0.4, 0.8)),
        severity="warning",
        says="on held-out questions it went from 20 % to 21 %",
    ),
    "repeats": Case(
        ill=facts(digests=digests(repeating=lambda step: 0.2 if step > 10 else 0.0)),
        well=facts(digests=digests(repeating=lambda step: 0.02)),
        severity="error",
        says="In 20 % of the completions",
    ),
    "truncated": Case(
        ill=facts({"rollout/truncated_fraction": flat(0.1)}, {"rollout": {"sampling": {"max_tokens": 64}}}),
        # Much was cut off when the run began.
        well=facts({"rollout/truncated_fraction": line(0.7, 0.0)[:26] + [0.01] * 5}),
        severity="warning",
        says="reached the limit of 64 tokens",
    ),
    "longer_for_nothing": Case(
        ill=facts({"rollout/completion_tokens_mean": line(100, 200), "reward/mean": FLAT_REWARD}),
        well=facts({"rollout/completion_tokens_mean": line(100, 200), "reward/mean": RISING_REWARD}),
        severity="warning",
        says="The mean length went from 116 to 184 tokens in 30 steps",
    ),
    "groups_equal": Case(
        ill=facts(
            {
                "reward/equal_groups_fraction": flat(0.9),
                "reward/all_wrong_groups": [10.0] * N,
                "reward/all_right_groups": [1.0] * N,
                "rollout/completions": [96.0] * N,
                "reward/accuracy": flat(0.1),
            }
        ),
        well=facts({"reward/equal_groups_fraction": flat(0.7), "reward/accuracy": flat(0.1)}),
        severity="warning",
        says="In 90 % of the groups of the last steps all rewards are equal (8.33 % all right, 83.3 % all wrong)",
    ),
    "rejects_many": Case(
        ill=facts({"groups/dispatched": line(12, 360), "groups/rejected_too_few_scored": line(0, 60)}),
        well=facts({"groups/dispatched": line(12, 360), "groups/rejected_too_few_scored": line(0, 10)}),
        severity="warning",
        says="41 of 240 groups of the last 20 steps",
    ),
    "sampler_slow": Case(
        ill=facts(
            {"time/wait_s": flat(6), "time/step_s": [10.0] * N},
            paces={"sampler-0": flat(800), "sampler-1": flat(800, 20) + flat(250, 10), "sampler-2": flat(820)},
        ),
        well=facts(paces={"sampler-0": flat(800), "sampler-1": flat(600), "sampler-2": flat(820)}),
        severity="warning",
        says="sampler-1 samples 250 tokens/s, the others 810",
    ),
    "learner_waits": Case(
        ill=facts({"time/wait_s": flat(4), "time/step_s": [10.0] * N}, {"max_policy_lag": 1}),
        well=facts({"time/wait_s": flat(2), "time/step_s": [10.0] * N}, {"max_policy_lag": 1}),
        severity="warning",
        says="It spends 40 % of a step waiting for its batch, with 1 sampler and a policy lag of 1.",
    ),
    "sync_slow": Case(
        ill=facts({"time/sync_s": flat(30), "time/step_s": [100.0] * N}),
        well=facts({"time/sync_s": flat(5), "time/step_s": [100.0] * N}),
        severity="error",
        says="A sync takes 30 s, 30 % of a step",
    ),
    "lag_near_bound": Case(
        ill=facts({"lag/mean": [7.9] * N}, {"max_policy_lag": 8}),
        well=facts({"lag/mean": [4.0] * N}, {"max_policy_lag": 8}),
        severity="warning",
        says="The mean lag of the last steps is 7.9 versions, the bound is 8.",
    ),
    "nothing_learnt": Case(
        ill=facts({"reward/mean": flat(0.3, 60)}),
        well=facts({"reward/mean": line(0.3, 0.6, 60)}),
        severity="info",
        says="The mean reward was 0.3 in the first third",
    ),
    "files_damaged": Case(
        ill=facts(problems=(Problem(file="metrics.jsonl", message="line 3 is no JSON"),)),
        well=facts(),
        severity="warning",
        says="metrics.jsonl: line 3 is no JSON",
    ),
}


def check(name: str) -> Callable[[Facts], Any]:
    return next(rule.check for rule in RULES if rule.name == name)


def test_every_rule_has_a_case_and_a_sentence() -> None:
    elsewhere = (rules_faults.__name__, rules_judge.__name__)  # in tests of their own
    assert {rule.name for rule in RULES if rule.check.__module__ not in elsewhere} == set(CASES)
    assert all(rule.help.endswith(".") for rule in RULES)


@pytest.mark.parametrize("name", list(CASES))
def test_an_ill_run_is_named(name: str) -> None:
    finding = check(name)(CASES[name].ill)
    assert finding is not None
    assert CASES[name].says in finding.evidence
    assert finding.severity == CASES[name].severity
    assert finding.causes
    assert finding.attempts


@pytest.mark.parametrize("name", list(CASES))
def test_a_run_that_is_well_is_not(name: str) -> None:
    assert check(name)(CASES[name].well) is None


@pytest.mark.parametrize("name", [rule.name for rule in RULES])
def test_nothing_is_said_where_nothing_is_known(name: str) -> None:
    assert check(name)(facts({"reward/mean": []})) is None
    assert check(name)(facts({"reward/mean": [None, None]})) is None


def test_entropy_that_falls_because_prompts_are_solved_is_no_finding() -> None:
    # The learner computes only groups whose rewards differ, so that its entropy falls as prompts of long, uncertain
    # answers are solved and leave it. What is sampled has the entropy that it had.
    columns = {
        "train/entropy": line(2.0, 0.1),
        "reward/mean": flat(0.4),
        "reward/accuracy": flat(0.4),
        "reward/equal_groups_fraction": line(0.1, 0.4),
    }
    stays = facts(columns | {"rollout/sampled_entropy": flat(2.0)})
    assert [rule.name for rule in RULES if rule.check(stays)] == []
    # Where the sampler says nothing, the learner is believed; where it says so itself, the collapse is one.
    for ill in (facts(columns), facts(columns | {"rollout/sampled_entropy": line(2.0, 0.1)})):
        assert [rule.name for rule in RULES if rule.check(ill)] == ["entropy_collapsed"]


def test_what_explains_it_makes_a_finding_harmless() -> None:
    synchronous = facts({"time/wait_s": flat(4), "time/step_s": [10.0] * N})
    assert check("learner_waits")(synchronous).severity == "info"
    short = facts({"time/sync_s": flat(2), "time/step_s": [5.0] * N})
    assert check("sync_slow")(short).severity == "info"
    learnt = facts({"reward/equal_groups_fraction": flat(0.9), "reward/accuracy": flat(0.97)})
    assert check("groups_equal")(learnt).severity == "info"
    old = facts(problems=(Problem(file="vocabulary.json", message="is missing"),))
    assert check("files_damaged")(old).severity == "info"


def test_a_failed_run_says_why() -> None:
    finding = check("run_ended_badly")(facts({"reward/mean": flat(0.4)}, status="failed", error="out of memory"))
    assert finding.severity == "error"
    assert finding.evidence.endswith("out of memory")


def test_trends() -> None:
    assert trend(line(0, 1)) == "rises"
    assert trend(line(1, 0)) == "falls"
    assert trend(flat(1)) == "flat"
    assert trend(FLAT_REWARD) == "flat"
    assert trend([0.4, 0.5, 0.3, 0.6, 0.4, 0.5, 0.5, 0.4, 0.6]) == "flat"
    assert trend([1.0, None, 2.0]) is None
    assert rises_steadily(line(0, 1))
    assert not rises_steadily(flat(1))
    assert recent([1.0, 1.0]) is None
    assert recent([9.0, 1.0, 2.0, None, 3.0, 4.0]) == 2.5


def test_since_and_jump_find_the_step() -> None:
    values = [0.0] * 10 + [1.0] * 10
    assert since(range(100, 120), values, lambda v: v > 0.5) == 110
    assert since(range(20), values, lambda v: v > 2) is None
    assert jump(values, factor=10, floor=0.1) == 10
    assert jump([0.0] * 10 + [1.0] + [0.0] * 9, factor=10, floor=0.1) is None
    assert jump([-1e-9, 1e-9] * 10, factor=10, floor=1e-4) is None


def test_a_chart_of_many_steps_keeps_what_the_finding_is_about() -> None:
    values = [1.0] * 801  # three steps are a point
    values[100], values[200] = 0.1, 9.0
    found = facts({"m": values})
    assert 9.0 in found.chart_of("m", values).values
    assert 0.1 not in found.chart_of("m", values).values
    assert 0.1 in found.chart_of("m", values, keep="least").values
    assert 9.0 not in found.chart_of("m", values, keep="least").values
    assert max(found.chart_of("m", values, keep="mean").values, key=lambda v: v or 0.0) == pytest.approx(11 / 3)
