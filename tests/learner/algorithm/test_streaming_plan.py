"""What can be streamed, and that the weights of a step's parts are those of the whole."""

import random

import pytest
from pydantic import ValidationError

from learner.algorithm.plan import PlanSettings, plan_step, shares
from learner.config import LearnerConfig
from learner.types import TrainBatch
from tests.learner.samples import scored_group

AGGREGATIONS = ("sequence_mean", "token_mean", "token_sum", "sequence_sum", "prompt_mean")


def settings_of(kind: str, *, streaming: bool, coef: float = 0.1) -> PlanSettings:
    objective = {"aggregation": {"kind": kind}, "kl": {"coef": coef}}
    learner = LearnerConfig.model_validate({"objective": objective, "streaming": streaming})
    return PlanSettings(learner=learner, max_tokens=12)


def batch() -> TrainBatch:
    rng = random.Random(3)
    patterns: list[list[float | None]] = [[1.0, 0.0, 0.0], [0.5, None, 1.0, 0.0], [1.0] * 3, [0.0, 2.0]]
    groups = [
        scored_group(i, rewards, rng=rng, lengths=[rng.randrange(1, 12) for _ in rewards], masked_first=i == 1)
        for i, rewards in enumerate(patterns)
    ]
    return TrainBatch(step=0, policy_version=0, groups=tuple(groups))


@pytest.mark.parametrize("kind", AGGREGATIONS)
def test_the_weights_of_parts_over_the_denominator_are_those_of_the_whole(kind: str) -> None:
    whole = plan_step(batch(), settings_of(kind, streaming=False))
    assert whole.denominator == 1
    expected = {sequence.key: (sequence.advantage, sequence.token_weight) for sequence in whole.sequences}
    settings = settings_of(kind, streaming=True)
    parts = [
        plan_step(TrainBatch(step=0, policy_version=0, groups=batch().groups[start:end]), settings)
        for start, end in ((0, 1), (1, 3), (3, 4))
    ]
    denominator = plan_step(batch(), settings).denominator
    assert denominator == sum(part.denominator for part in parts) > 1
    found = {
        sequence.key: (sequence.advantage, sequence.token_weight / denominator)
        for part in parts
        for sequence in part.sequences
    }
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=1e-12), key


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_share_of_the_rest_has_the_totals_of_the_step(num_ranks: int) -> None:
    settings, of = settings_of("token_mean", streaming=True), batch()
    plan, ids = plan_step(of, settings), [scored.group_id for scored in of.groups]
    whole, rest, nothing = (
        shares(of, plan, settings, num_ranks=num_ranks, accumulated=ids[:number]) for number in (0, 2, 4)
    )
    assert {share.denominator for dealt in (whole, rest, nothing) for share in dealt} == {plan.denominator}
    assert {s.group_id for share in rest for s in share.sequences} == set(ids[2:])
    assert all(share.mini_batches == ((),) for share in nothing), "a gradient is there: no pass is needed"
    for some in zip(whole, rest, nothing, strict=True):
        totals = {
            (one.num_completions, one.num_trained_tokens, one.num_sequences, one.num_sequence_tokens, one.denominator)
            for one in some
        }
        assert len(totals) == 1


def test_without_any_gradient_the_step_has_a_pass() -> None:
    """Ranks meet in it, and the optimizer needs a gradient to step with."""
    rng = random.Random(0)
    equal = scored_group(0, [1.0, 1.0], rng=rng, lengths=[3, 4])
    of = TrainBatch(step=0, policy_version=0, groups=(equal,))
    settings = settings_of("token_mean", streaming=True, coef=0.0)
    (share,) = shares(of, plan_step(of, settings), settings, num_ranks=1, accumulated=[equal.group_id])
    assert share.mini_batches == (((),),)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"updates_per_batch": 2}, "a batch has 2 optimizer steps"),
        ({"mini_batches": 4}, "a batch has 4 optimizer steps"),
        (
            {"objective": {"advantage": {"kind": "group", "scale": "batch_std"}}},
            "group with scale `batch_std` has advantages that",
        ),
        ({"objective": {"advantage": {"kind": "gdpo"}}}, "gdpo has advantages that depend on the whole batch"),
        (
            {"objective": {"advantage": {"kind": "reinforce_plus_plus"}, "kl": {"coef": 0.0}}},
            "reinforce_plus_plus has advantages that depend on the whole batch",
        ),
        ({"objective": {"advantage": {"kind": "own", "function": "a:b"}}}, "own has advantages that"),
        ({"objective": {"corrections": [{"kind": "top_entropy"}]}}, "something that depends on the whole batch"),
        (
            {"objective": {"corrections": [{"kind": "ratio_mask"}], "aggregation": {"count": "kept"}}},
            "something that depends on the whole batch",
        ),
    ],
)
def test_what_depends_on_the_whole_batch_is_not_streamed(fields: dict[str, object], message: str) -> None:
    LearnerConfig.model_validate(fields)
    with pytest.raises(ValidationError, match=message):
        LearnerConfig.model_validate({**fields, "streaming": True})
