from cluster.dashboard.figures.lanes import lane_order, role_of, step_of_groups, with_steps
from tests.cluster.dashboard.span_store import span


def test_lanes_are_ordered_by_role_and_number() -> None:
    actors = ["sampler-10", "reward-0", "learner-1", "sampler-2", "controller", "learner-0", "sampler-2", "proxy-1"]
    assert lane_order(actors) == [
        "controller",
        "learner-0",
        "learner-1",
        "sampler-2",
        "sampler-10",
        "reward-0",
        "proxy-1",
    ]
    assert role_of("sampler-10") == "sampler"
    assert role_of("controller") == "controller"


def test_a_group_has_the_step_that_consumed_it() -> None:
    train = span("train", "learner-0", 10, 12, "a", "b", step=7)
    steps = step_of_groups([train, span("generate", "sampler-0", 0, 1, "c")])
    assert steps == {"a": 7, "b": 7}
    spans = [span("generate", "sampler-0", 0, 5, "a"), span("score", "reward-0", 5, 6, "c"), train]
    assert [s.step for s in with_steps(spans, steps, in_step_order=True)] == [7, None, 7]


def test_spans_without_groups_get_the_next_step_only_when_nothing_runs_ahead() -> None:
    spans = [
        span("generate", "sampler-0", 0, 5),
        span("train", "learner-0", 5, 6, step=0),
        span("generate", "sampler-0", 6, 9),
        span("train", "learner-0", 9, 12, step=1),
        span("generate", "sampler-0", 12, 14),
    ]
    assert [s.step for s in with_steps(spans, {}, in_step_order=True)] == [0, 0, 1, 1, None]
    assert [s.step for s in with_steps(spans, {}, in_step_order=False)] == [None, 0, None, 1, None]
