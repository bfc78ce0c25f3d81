"""Tiles, charts and metrics of a run, from its files."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.dashboard.figures import samplers
from cluster.dashboard.figures.series import thin
from cluster.dashboard.figures.thresholds import facts_of
from cluster.dashboard.records import ActorStats, MetricTable
from cluster.dashboard.views.overview import metrics_view, overview
from cluster.dashboard.views.tiles import tiles_of
from cluster.record.run_directory import RunDirectory
from tests.cluster.dashboard.small_runs import (
    EQUAL,
    config,
    open_store,
    write_evaluation,
    write_run,
    write_step,
)

EMPTY = MetricTable(steps=[], columns={})


def tile_of(id: str, columns: Mapping[str, Sequence[float | None]], evaluations: MetricTable = EMPTY) -> dict[str, Any]:
    table = MetricTable(steps=range(len(next(iter(columns.values()), []))), columns=columns)
    fp32 = {"rollout": {"dtype": "float32"}, "learner": {"dtype": "float32"}}
    return next(tile for tile in tiles_of(table, evaluations, facts_of(fp32, table)) if tile["id"] == id)


def evaluations_of(*values: float, questions: float = 100.0) -> MetricTable:
    columns = {"eval/pass_at_1": list(values), "eval/questions": [questions] * len(values)}
    return MetricTable(steps=range(len(values)), columns=columns)


def test_the_overview_of_a_finished_run(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = overview(open_store(tmp_path / "run"))
    assert page["x"]["step"] == [0, 1, 2]
    assert page["x"]["time_s"] == [10.0, 20.0, 30.0]
    # A step has 8 completions of 4 tokens; CUT has 8. Step 0: MIXED and EQUAL, then MIXED twice.
    assert page["x"]["tokens"] == [36.0, 36.0 + 40.0, 36.0 + 80.0]
    tiles = {tile["id"]: tile for tile in page["tiles"]}
    assert list(tiles) == ["reward", "accuracy", "gap", "entropy", "equal_groups", "throughput"]
    assert tiles["reward"]["value"] == 0.5
    assert tiles["reward"]["spark"] == [0.25, 0.5, 0.5]
    assert tiles["accuracy"]["value"] == 0.75
    assert tiles["accuracy"]["delta"] == 0.25
    assert tiles["throughput"]["value"] == 20.0  # 40 tokens in the 2 s of sampling
    assert page["evaluations"]["step"] == [0, 3]
    assert page["evaluations"]["series"][0] == {"name": "eval/pass_at_1", "label": "pass@1", "values": [0.5, 0.75]}
    charts = {chart["id"]: chart for chart in page["charts"]}
    assert charts["groups"]["series"][0]["values"] == [0.0, 1.0, 0.0]
    json.dumps(page, allow_nan=False)


def test_each_task_of_several_is_a_line_of_the_evaluations(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", config())
    of_tasks = {"eval/sums/pass_at_1": 0.75, "eval/sums/pass_at_2": 1.0, "eval/words/pass_at_1": 0.25}
    run.append_evaluation(0, {"eval/pass_at_1": 0.5, **of_tasks})
    series = overview(open_store(run.path))["evaluations"]["series"]
    assert [(one["label"], one["values"]) for one in series] == [
        ("pass@1", [0.5]),
        ("sums pass@1", [0.75]),
        ("words pass@1", [0.25]),
    ]


def test_a_run_that_has_not_made_a_step_has_every_tile_without_a_value(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run", config())
    page = overview(open_store(tmp_path / "run"))
    assert [tile["value"] for tile in page["tiles"]] == [None] * 6
    assert {tile["state"] for tile in page["tiles"]} == {"none"}
    assert page["x"] == {"step": [], "time_s": [], "tokens": []}
    assert page["evaluations"] == {"step": [], "series": []}
    assert {series["name"] for chart in page["charts"] for series in chart["series"]} >= {"reward/mean", "train/lr"}


def test_a_run_without_a_configuration_is_shown_too(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").unlink()
    page = overview(open_store(tmp_path / "run"))
    assert page["tiles"][0]["value"] == 0.5


def test_metrics_that_are_null_in_some_lines_are_gaps(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", config())
    write_step(run, 0, metrics={"grad_norm": float("nan")})
    write_step(run, 1)
    page = overview(open_store(tmp_path / "run"))
    norm = next(chart for chart in page["charts"] if chart["id"] == "grad_norm")
    assert norm["series"][0]["values"] == [None, 1.0]
    json.dumps(page, allow_nan=False)


def test_a_window_of_steps_leaves_the_tiles_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = overview(open_store(tmp_path / "run"), from_step=1, to_step=1)
    assert page["x"]["step"] == [1]
    assert page["x"]["time_s"] == [20.0]
    assert page["tiles"][0]["spark"] == [0.25, 0.5, 0.5]
    assert page["evaluations"]["step"] == []


def test_metrics_by_name(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    view = metrics_view(open_store(tmp_path / "run"), names=["train/entropy", "time/wait_share", "no/such"], points=2)
    assert view["x"]["step"] == [0, 2]
    # Entropies 2, 1.5 and 1: the first two make one point. Waiting is 3 of 10 s.
    assert view["series"] == {"train/entropy": [1.75, 1.0], "time/wait_share": [pytest.approx(0.3)] * 2}
    assert "reward/mean" in view["names"]
    assert "step" not in view["names"]


def test_low_entropy_is_an_alarm_unless_the_task_is_solved() -> None:
    fallen: list[float | None] = [2.0, 0.1]
    assert tile_of("entropy", {"train/entropy": fallen, "reward/accuracy": [0.1, 0.3]})["state"] == "alarm"
    solved = tile_of("entropy", {"train/entropy": fallen, "reward/accuracy": [0.1, 0.95]})
    assert solved["state"] == "watch"
    assert solved["note"] == "0.05 of the first step's; accuracy is 95%, so little is left to choose"


def test_entropy_is_judged_over_all_sampled_tokens() -> None:
    columns: dict[str, list[float | None]] = {"train/entropy": [2.0, 0.1], "rollout/sampled_entropy": [2.0, 1.9]}
    tile = tile_of("entropy", columns | {"reward/accuracy": [0.1, 0.3]})
    assert (tile["state"], tile["value"], tile["note"]) == ("ok", 1.9, "0.95 of the first step's")


def test_the_share_of_equal_groups_is_judged_over_ten_steps() -> None:
    once = tile_of("equal_groups", {"reward/equal_groups_fraction": [0.0] * 9 + [1.0]})
    assert (once["value"], once["state"]) == (1.0, "ok")
    often = tile_of("equal_groups", {"reward/equal_groups_fraction": [0.0] * 20 + [0.9] * 10})
    assert often["state"] == "alarm"
    columns: dict[str, list[float | None]] = {"reward/equal_groups_fraction": [0.9] * 10}
    solved = tile_of("equal_groups", columns | {"reward/accuracy": [0.95] * 10})
    assert (solved["state"], solved["note"]) == ("watch", "accuracy is 95%: the task is learnt")


def test_rewards_that_could_not_be_scored_are_said_beside_the_reward() -> None:
    columns: dict[str, list[float | None]] = {
        "reward/mean": [0.5],
        "reward/std": [0.5],
        "reward/outcome_timeout": [3.0],
        "reward/outcome_error": [2.0],
        "reward/outcome_invalid": [0.0],
        "rollout/completions": [50.0],
    }
    tile = tile_of("reward", columns)
    assert (tile["state"], tile["note"]) == ("alarm", "std 0.50; 10.0% not scored")
    assert tile_of("reward", columns | {"rollout/completions": [5000.0]})["state"] == "ok"


def test_a_reward_without_any_spread_teaches_nothing() -> None:
    assert tile_of("reward", {"reward/mean": [0.0], "reward/std": [0.0]})["state"] == "watch"


def test_a_fall_of_the_held_out_accuracy_counts_when_it_is_more_than_chance() -> None:
    # Of 100 questions, 0.5 is 0.404 to 0.596: the difference of two such shares is known to about 0.137.
    assert tile_of("accuracy", {}, evaluations_of(0.5, 0.37))["state"] == "ok"
    tile = tile_of("accuracy", {}, evaluations_of(0.5, 0.36))
    assert (tile["state"], tile["note"]) == ("watch", "100 questions, 27.3% to 45.8%")
    assert tile_of("accuracy", {}, evaluations_of(0.5))["state"] == "none"
    # All right at first: one wrong answer afterwards is chance.
    assert tile_of("accuracy", {}, evaluations_of(1.0, 0.99))["state"] == "ok"
    assert tile_of("accuracy", {}, evaluations_of(1.0, 0.9))["state"] == "watch"


def test_a_reward_without_right_and_wrong_is_held_out_by_its_mean() -> None:
    rewards = MetricTable(steps=[0, 5], columns={"eval/reward_mean": [1.0, 2.5], "eval/questions": [8.0, 8.0]})
    tile = tile_of("accuracy", {}, rewards)
    assert (tile["label"], tile["value"], tile["unit"], tile["delta"]) == ("Held-out reward", 2.5, "", 1.5)


def test_a_delta_is_against_the_mean_of_what_came_before() -> None:
    tile = tile_of("reward", {"reward/mean": [9.0] + [1.0] * 10 + [3.0], "reward/std": [1.0] * 12})
    assert tile["delta"] == 2.0  # the 9 is the eleventh before
    assert tile["delta_text"] == "against the mean of the 10 before"
    assert tile_of("reward", {"reward/mean": [9.0]})["delta"] is None


def test_a_spark_line_of_a_long_run_is_short() -> None:
    assert len(tile_of("reward", {"reward/mean": [0.5] * 5000})["spark"]) <= 60


def sampler(actor: str, rates: dict[int, tuple[int, float]]) -> ActorStats:
    return ActorStats(
        actor=actor,
        role="sampler",
        counts={},
        seconds={},
        tokens=0,
        num_groups=0,
        last_kind="generate",
        last_end_s=0.0,
        policy_version=None,
        steps=list(rates),
        step_tokens=[tokens for tokens, _ in rates.values()],
        step_busy_s=[seconds for _, seconds in rates.values()],
    )


def test_one_slow_sampler_shows_beside_the_mean() -> None:
    stats = [sampler("sampler-0", {0: (100, 1.0), 1: (100, 1.0)}), sampler("sampler-1", {0: (100, 4.0)})]
    thinning = thin([0, 1], points=10, from_step=None, to_step=None)
    found = samplers.chart(stats, [0, 1], thinning)
    assert found is not None
    assert {series["label"]: series["values"] for series in found["series"]} == {
        "mean": [62.5, 100.0],
        "slowest": [25.0, 100.0],
        "fastest": [100.0, 100.0],
    }


def test_a_sampler_far_below_the_others_is_named_by_the_tile() -> None:
    table = MetricTable(steps=[0, 1], columns={"rollout/tokens_per_s": [200.0, 125.0]})
    # 100, 100 and 25 tokens per second: the last is a quarter of the median.
    slow = [sampler(f"sampler-{i}", {0: (100, 1.0), 1: (100, 1.0)}) for i in range(2)]
    slow.append(sampler("sampler-2", {0: (100, 4.0), 1: (100, 4.0)}))
    tile = tiles_of(table, EMPTY, facts_of({}, table), slow)[-1]
    assert (tile["state"], tile["note"]) == ("watch", "sampler-2 has 25% of the median sampler's speed")
    # 100 and 80: the lengths of completions make that much.
    even = [sampler("sampler-0", {0: (100, 1.0)}), sampler("sampler-1", {0: (80, 1.0)})]
    assert tiles_of(table, EMPTY, facts_of({}, table), even)[-1]["note"] == ""


def test_one_sampler_needs_no_comparison() -> None:
    thinning = thin([0], points=10, from_step=None, to_step=None)
    assert samplers.chart([sampler("sampler-0", {0: (1, 1.0)})], [0], thinning) is None
    assert samplers.chart([], [0], thinning) is None


def test_the_samplers_of_a_run_are_compared(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", config())
    write_step(run, 0)
    write_step(run, 1, (EQUAL, EQUAL))
    page = overview(open_store(tmp_path / "run"))
    chart = next(chart for chart in page["charts"] if chart["id"] == "samplers")
    # A sampler generates one group of 4 completions in 2 s: 20 tokens for MIXED, 16 for EQUAL.
    assert [series["values"] for series in chart["series"]] == [[10.0, 8.0]] * 3


def test_an_evaluation_after_the_last_step_is_in_the_overview(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", config())
    write_evaluation(run, 0)
    page = overview(open_store(tmp_path / "run"))
    assert page["evaluations"]["step"] == [0]
    assert next(tile for tile in page["tiles"] if tile["id"] == "accuracy")["value"] == 0.5


def test_files_that_are_gone_leave_what_there_is(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    for name in ("evaluations.jsonl", "events.jsonl", "ledger.jsonl"):
        (tmp_path / "run" / name).unlink()
    shutil.rmtree(tmp_path / "run" / "rollouts")
    page = overview(open_store(tmp_path / "run"))
    assert page["tiles"][0]["value"] == 0.5
    assert page["evaluations"]["step"] == []


def test_a_gap_is_never_below_0_and_noise_is_neither_good_nor_bad() -> None:
    # In fp32 rounding alone makes 1e-9 of it, and sometimes less than nothing.
    rounding: list[float | None] = [1e-9, 2e-9, -4.2e-10]
    tile = tile_of("gap", {"train/kl_rollout": rounding})
    assert (tile["value"], tile["state"], tile["judged"]) == (0.0, "ok", False)
    assert tile["spark"] == [1e-9, 2e-9, 0.0]
    risen = tile_of("gap", {"train/kl_rollout": [1e-9] * 20 + [2e-9]})
    assert (risen["delta"] > 0, risen["judged"]) == (True, False)
    alarm = tile_of("gap", {"train/kl_rollout": [1e-9] * 20 + [2e-3]})
    assert (alarm["state"], alarm["judged"]) == ("alarm", True)


def test_the_reward_of_a_step_is_judged_beyond_what_steps_jump_about() -> None:
    before = [0.4, 0.4, 0.6, 0.6] * 5  # a noise of 0.1 on the neighbours of ten
    assert tile_of("reward", {"reward/mean": [*before, 0.65]})["judged"] is False
    assert tile_of("reward", {"reward/mean": [*before, 0.95]})["judged"] is True
    assert tile_of("reward", {"reward/mean": [0.1, 0.9]})["judged"] is False  # too young
    assert tile_of("reward", {"reward/mean": [0.1]})["judged"] is False


def test_an_accuracy_is_judged_beyond_chance() -> None:
    assert tile_of("accuracy", {}, evaluations_of(0.5, 0.55))["judged"] is False
    assert tile_of("accuracy", {}, evaluations_of(0.5, 0.8))["judged"] is True
    assert tile_of("accuracy", {}, evaluations_of(0.8, 0.5))["judged"] is True
