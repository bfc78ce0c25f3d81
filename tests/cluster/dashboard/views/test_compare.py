import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.dashboard.figures.intervals import noise_freedom, student
from cluster.dashboard.figures.series import axes_of
from cluster.dashboard.figures.settings import flattened
from cluster.dashboard.records import MetricTable
from cluster.dashboard.views.compare import (
    charts,
    compare,
    config_differences,
    evaluation_x,
    final_figures,
    gain_of,
    mean_of_last,
)
from tests.cluster.dashboard.small_runs import QUESTIONS, RIGHT, open_store, write_run, write_step

TABLE = MetricTable(
    steps=[0, 1, 2],
    columns={"time/step_s": [5.0, 2.0, 3.0], "rollout/completion_tokens": [10.0, 20.0, None]},
)


def test_two_runs(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a")
    second = write_run(tmp_path / "b", learner__lr=0.5)
    write_step(second, 3, ((RIGHT,) * 4, (RIGHT,) * 4))
    answer = compare({"a": open_store(first.path), "b": open_store(second.path)}, 400)
    assert [info["run"] for info in answer["runs"]] == ["a", "b"]
    charts = {chart["id"]: chart for chart in answer["charts"]}
    assert [series["run"] for series in charts["reward_mean"]["series"]] == ["a", "b"]
    assert charts["reward_mean"]["series"][0]["values"] == [0.25, 0.5, 0.5]
    assert charts["reward_mean"]["series"][1]["values"] == [0.25, 0.5, 0.5, 1.0]
    assert charts["reward_mean"]["series"][0]["x"]["step"] == [0, 1, 2]
    assert charts["eval_pass_at_1"]["series"][0]["values"] == [0.5, 0.75]
    assert charts["eval_pass_at_1"]["series"][0]["x"]["step"] == [0, 3]
    assert "train_kl_ref" not in charts  # no run has it
    assert answer["config"] == [{"key": "learner.lr", "values": {"a": pytest.approx(1e-6), "b": 0.5}}]
    table = {line["name"]: line for line in answer["table"]}
    assert table["reward/mean"]["values"] == {"a": pytest.approx(1.25 / 3), "b": pytest.approx(2.25 / 4)}
    assert table["reward/mean"]["better"] == "up"
    assert table["accuracy_gain"]["values"] == {"a": 0.25, "b": 0.25}
    assert table["steps"]["values"] == {"a": 3, "b": 4}
    assert answer["num_shared"] == 2
    # pass rates: 1/2 and 5/8; 1/3 and 1/2
    assert [p["question"] for p in answer["prompts"]] == [QUESTIONS[1], QUESTIONS[0]]
    assert answer["prompts"][1]["runs"]["b"]["pass_rate"] == pytest.approx(5 / 8)
    assert answer["prompts"][1]["runs"]["b"]["last"]["step"] == 3


def test_runs_without_a_step_are_compared_too(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a")
    second = write_run(tmp_path / "b", num_steps=0, finished=False)
    answer = compare({"a": open_store(first.path), "b": open_store(second.path)}, 400)
    assert answer["num_shared"] == 0
    assert all(len(chart["series"]) == 1 for chart in answer["charts"] if chart["id"] == "reward_mean")
    assert next(line for line in answer["table"] if line["name"] == "reward/mean")["values"]["b"] is None


def test_a_run_alone_has_no_shared_prompts(tmp_path: Path) -> None:
    answer = compare({"a": open_store(write_run(tmp_path / "a").path)}, 2)
    assert (answer["prompts"], answer["num_shared"], answer["config"]) == ([], 0, [])
    reward = next(chart for chart in answer["charts"] if chart["id"] == "reward_mean")
    assert len(reward["series"][0]["values"]) == 2  # three steps in at most two points


def test_configurations_differ_by_key() -> None:
    a = {"learner": {"lr": 1e-05, "grpo": {}}, "name": "a", "seed": 1}
    b = {"learner": {"lr": 2e-5, "grpo": {"kl_coef": 0.1}}, "name": "b", "seed": 1}
    assert config_differences({"a": a, "b": b, "c": None}) == [
        {"key": "learner.grpo", "values": {"a": {}, "b": None, "c": None}},
        {"key": "learner.grpo.kl_coef", "values": {"a": None, "b": 0.1, "c": None}},
        {"key": "learner.lr", "values": {"a": 1e-5, "b": 2e-5, "c": None}},
        {"key": "seed", "values": {"a": 1, "b": 1, "c": None}},
    ]
    assert config_differences({"a": a, "b": {**a, "name": "b"}}) == []
    assert config_differences({}) == []


def test_values_are_compared_as_they_were_written() -> None:
    flat = flattened({"a": {"b": [1, 2], "c": "1e3", "d": "1e3x", "e": "12", "f": None}})
    assert flat == {"a.b": [1, 2], "a.c": "1e3", "a.d": "1e3x", "a.e": "12", "a.f": None}


def test_an_evaluation_is_where_the_step_before_it_ended() -> None:
    assert evaluation_x([0, 1, 3, 7], axes_of(TABLE)) == {
        "step": [0, 1, 3, 7],
        "time_s": [0.0, 5.0, 10.0, None],
        "tokens": [0.0, 10.0, 30.0, None],
    }


def test_final_figures_are_means_of_the_last_steps() -> None:
    assert mean_of_last([100.0] + [1.0] * 9 + [2.0]) == pytest.approx(1.1)
    assert mean_of_last([1.0, None, None]) == 1.0
    assert mean_of_last([None]) is None
    assert mean_of_last([]) is None


def test_gain_needs_an_evaluation_before_the_first_step() -> None:
    assert gain_of([0, 5, 9], [0.25, None, 0.75]) == 0.5
    assert gain_of([5, 9], [0.25, 0.75]) is None
    assert gain_of([0], [0.25]) is None


def columns_of(values: Sequence[float], *, name: str = "reward/mean") -> MetricTable:
    return MetricTable(steps=range(len(values)), columns={name: values})


def line_of(
    name: str, tables: dict[str, MetricTable], evaluations: dict[str, MetricTable] | None = None
) -> dict[str, Any]:
    fp32 = {"rollout": {"dtype": "float32"}, "learner": {"dtype": "float32"}}
    none = {run: MetricTable(steps=[], columns={}) for run in tables}
    axes = {run: axes_of(table) for run, table in tables.items()}
    lines = final_figures(tables, evaluations or none, axes, dict.fromkeys(tables, fp32))
    return next(line for line in lines if line["name"] == name)


def judged(name: str, tables: dict[str, MetricTable], evaluations: dict[str, MetricTable] | None = None) -> list[str]:
    found: list[str] = line_of(name, tables, evaluations)["judged"]
    return found


def test_a_difference_is_judged_where_it_is_more_than_chance() -> None:
    jumps = [0.4, 0.4, 0.6, 0.6] * 5
    runs = {"a": jumps, "b": [value + 0.05 for value in jumps], "c": [value + 0.3 for value in jumps]}
    assert judged("reward/mean", {run: columns_of(values) for run, values in runs.items()}) == ["c"]
    gaps = {"a": [1e-9] * 10, "b": [1.3e-9] * 10}
    assert judged("train/kl_rollout", {run: columns_of(v, name="train/kl_rollout") for run, v in gaps.items()}) == []
    gaps = {"a": [1e-9] * 10, "b": [2e-2] * 10}
    assert judged("train/kl_rollout", {run: columns_of(v, name="train/kl_rollout") for run, v in gaps.items()}) == ["b"]
    # 216 questions: 0.046 more is chance, 0.15 is not.
    evaluations = {
        run: MetricTable(steps=[0], columns={"eval/pass_at_1": [share], "eval/questions": [216.0]})
        for run, share in (("a", 0.6), ("b", 0.646), ("c", 0.75))
    }
    assert judged("accuracy_last", {run: columns_of([0.5]) for run in "abc"}, evaluations) == ["c"]


def test_a_difference_has_its_interval() -> None:
    """Ten steps each that jump by 0.2 at every second one: four jumps of nine, noise 0.0943 each."""
    jumps = [0.4, 0.4, 0.6, 0.6, 0.4, 0.4, 0.6, 0.6, 0.4, 0.4]
    runs = {"a": columns_of(jumps), "b": columns_of([value + 0.05 for value in jumps]), "c": columns_of([0.5])}
    line = line_of("reward/mean", runs)
    half = student(2 * noise_freedom(10)) * math.sqrt(2 * (4 * 0.2**2 / 9 / 2) / 10)
    assert line["intervals"] == {"b": [pytest.approx(0.05 - half, abs=1e-3), pytest.approx(0.05 + half, abs=1e-3)]}
    held_out = {
        run: MetricTable(steps=[0], columns={"eval/pass_at_1": [share], "eval/questions": [questions]})
        for run, share, questions in (("a", 48 / 80, 80.0), ("b", 56 / 70, 70.0), ("c", 0.5, None))
    }
    accuracy = line_of("accuracy_last", runs, held_out)
    # Newcombe (1998), table II, example (a).
    assert accuracy["intervals"] == {"b": [pytest.approx(0.0524, abs=2e-4), pytest.approx(0.3339, abs=2e-4)]}
    assert (accuracy["unit"], line_of("accuracy_best", runs, held_out)["unit"]) == ("share", "share")


def test_of_too_few_steps_no_difference_is_judged() -> None:
    for num_steps, found in ((1, []), (2, []), (4, []), (5, ["b"])):
        young = {"a": columns_of([0.4, 0.41] * 10), "b": columns_of(([0.6, 0.61] * 3)[:num_steps])}
        assert judged("reward/mean", young) == found
        assert judged("reward/mean", {"a": young["b"], "b": young["a"]}) == found


def test_a_gap_below_0_leaves_no_hole() -> None:
    table = columns_of([1e-3, -4e-10, 2e-3], name="train/kl_rollout")
    (chart,) = charts({"a": table}, {}, {"a": axes_of(table)}, 400)
    assert chart["scale"] == "log"
    assert chart["series"][0]["values"] == [1e-3, 1e-9, 2e-3]
