"""All metrics of a run, and the values of some."""

from pathlib import Path

import pytest

from cluster.dashboard.index.store import RunStore
from cluster.dashboard.views.metric_charts import metric_charts
from tests.cluster.dashboard.small_run import make_run


def test_every_metric_is_named_and_those_asked_for_have_values(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    run.append_metrics(3, {"reward/mean": 1.0, "reward/component_=1+1, x": 2.0})
    run.append_evaluation(4, {"eval/pass_at_1": 0.75})
    store = RunStore(run.path)
    store.refresh()
    page = metric_charts(store, names=["reward/mean", "eval/pass_at_1", "no/such"], points=100)
    names = {metric["name"]: metric for metric in page["metrics"]}
    assert {"reward/mean", "train/skipped", "reward/component_=1+1, x", "eval/pass_at_1"} <= set(names)
    assert (names["reward/mean"]["label"], names["reward/mean"]["of"]) == ("Reward", "steps")
    assert names["reward/mean"]["help"] == "mean over scored completions"
    assert names["eval/pass_at_1"]["of"] == "evaluations"
    assert page["steps"] == {"reward/mean": pytest.approx([0.5, 0.5, 0.5, 1.0])}
    assert page["evaluations"] == {"step": [0, 4], "series": {"eval/pass_at_1": [0.5, 0.75]}}
    assert page["x"]["step"] == [0, 1, 2, 3]
    assert metric_charts(store, names=[], points=1)["steps"] == {}
    within = metric_charts(store, names=["reward/mean"], points=100, from_step=2, to_step=3)
    assert within["steps"]["reward/mean"] == pytest.approx([0.5, 1.0])
    store.close()
