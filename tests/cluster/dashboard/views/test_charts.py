"""The charts: each metric that is named is one that a run writes, and what is shown follows from what there is."""

from pathlib import Path
from typing import Any

import pytest

from cluster.dashboard.figures import thresholds
from cluster.dashboard.figures.derived import DERIVED, metric, metric_names
from cluster.dashboard.figures.series import thin
from cluster.dashboard.figures.thresholds import facts_of
from cluster.dashboard.records import MetricTable
from cluster.dashboard.views.chart_list import CHARTS
from cluster.dashboard.views.charts import GROUPS, chart_of
from cluster.record.episode_metrics import EPISODE_METRICS
from cluster.record.metric_list import metric_of
from learner.metrics import LEARNER_METRICS
from tests.cluster.dashboard.small_runs import open_store, write_run

CONFIG = {"rollout": {"group_size": 4, "dtype": "float32"}, "learner": {"dtype": "float32"}}


def chart(id: str, columns: dict[str, list[float | None]], *, points: int = 100) -> dict[str, Any] | None:
    table = MetricTable(steps=range(len(next(iter(columns.values()), []))), columns=columns)
    spec = next(spec for spec in CHARTS if spec.id == id)
    thinning = thin(table.steps, points=points, from_step=None, to_step=None)
    return chart_of(spec, table, facts_of(CONFIG, table), thinning)


def test_charts_have_ids_of_their_own_a_known_group_and_help() -> None:
    assert len({spec.id for spec in CHARTS}) == len(CHARTS)
    for spec in CHARTS:
        assert spec.group in GROUPS
        assert spec.title
        assert len(spec.help) > 15, spec.id


def test_every_metric_of_a_chart_is_written_by_a_run_or_derived(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    written = set(open_store(tmp_path / "run").metrics().columns)
    # With a KL coefficient, masks, corrections, an entropy bonus.
    only_sometimes = {
        f"train/{name}" for name in ("kl_ref", "teacher_kl", "masked_fraction", "correction_weight", "entropy_coef")
    }
    assert all(metric_of(name) is not None for name in only_sometimes)
    of_episodes = {metric.name for metric in EPISODE_METRICS}
    for spec in CHARTS:
        for part in spec.series:
            if not part.name.endswith("*"):
                assert part.name in written | set(DERIVED) | only_sometimes | of_episodes, part.name


def test_a_run_that_is_starting_has_the_charts_that_it_will_have() -> None:
    ids = [spec.id for spec in CHARTS if chart(spec.id, {}) is not None]
    assert "reward" in ids
    assert "gap" in ids
    assert "kl_ref" not in ids
    assert chart("reward", {}) is not None
    assert chart("reward", {})["series"] == [{"name": "reward/mean", "label": "mean", "role": "line", "values": []}]  # type: ignore[index]


def test_the_kl_to_the_reference_is_shown_only_where_there_is_one() -> None:
    assert chart("kl_ref", {"reward/mean": [1.0]}) is None
    found = chart("kl_ref", {"train/kl_ref": [0.0, 0.5]})
    assert found is not None
    assert found["series"][0]["values"] == [0.0, 0.5]


def test_components_are_found_by_name_and_one_alone_is_no_chart() -> None:
    assert chart("components", {"reward/component_math": [1.0]}) is None
    found = chart("components", {"reward/component_math": [1.0], "reward/component_short_text": [0.5]})
    assert found is not None
    assert [series["label"] for series in found["series"]] == ["math", "short text"]


def test_the_band_around_the_reward_stays_within_what_was_seen() -> None:
    # Rewards 0 and 1 in equal parts: mean 0.5, std 0.5; three quarters right: mean 0.75, std 0.43, so 0.32 and 1.18.
    columns: dict[str, list[float | None]] = {
        "reward/mean": [0.5, 0.75, None],
        "reward/std": [0.5, 0.433, None],
        "reward/min": [0.0, 0.0, None],
        "reward/max": [1.0, 1.0, None],
    }
    found = chart("reward", columns)
    assert found is not None
    assert [series["role"] for series in found["series"]] == ["line", "low", "high"]
    assert found["series"][1]["values"] == [0.0, pytest.approx(0.317), None]
    assert found["series"][2]["values"] == [1.0, 1.0, None]


def test_equal_groups_are_split_into_all_right_and_all_wrong() -> None:
    # 16 completions in groups of 4 are 4 groups.
    columns: dict[str, list[float | None]] = {
        "reward/equal_groups_fraction": [0.75],
        "reward/all_right_groups": [1.0],
        "reward/all_wrong_groups": [2.0],
        "rollout/completions": [16.0],
    }
    found = chart("signal", columns)
    assert found is not None
    assert [series["values"] for series in found["series"]] == [[0.75], [0.25], [0.5]]
    assert found["bands"][-1] == {"from": 0.8, "to": None, "state": "alarm"}


def test_the_time_of_a_step_adds_up() -> None:
    columns: dict[str, list[float | None]] = {
        "time/step_s": [10.0],
        "time/wait_s": [3.0],
        "time/train_s": [4.0],
        "time/sync_s": [1.0],
    }
    found = chart("step_time", columns)
    assert found is not None
    assert [series["values"] for series in found["series"]] == [[3.0], [4.0], [1.0], [2.0]]
    assert {series["role"] for series in found["series"]} == {"stack"}


def test_what_is_0_is_drawn_at_the_bottom_of_a_log_scale() -> None:
    found = chart("gap", {"train/kl_rollout": [1e-3, 0.0, -1e-12, None]})
    assert found is not None
    assert found["scale"] == "log"
    assert found["series"][0]["values"] == [1e-3, 1e-9, 1e-9, None]


def test_what_the_learner_measures_of_ratios_is_drawn() -> None:
    columns: dict[str, list[float | None]] = {
        "train/clip_fraction": [0.3, 0.2],
        "train/clip_fraction_low": [0.1, 0.05],
        "train/clip_fraction_high": [0.2, 0.15],
        "train/ratio_std": [0.0, 0.5],
        "train/effective_sample_size": [1.0, 0.8],
        "train/masked_fraction": [0.0, 0.25],
        "train/correction_weight": [1.0, 0.9],
        "train/entropy_coef": [0.0, 0.005],
    }
    clip = chart("clip", columns)
    assert clip is not None
    assert [(s["label"], s["values"]) for s in clip["series"]] == [
        ("clipped", [0.3, 0.2]), ("below", [0.1, 0.05]), ("above", [0.2, 0.15])
    ]  # fmt: skip
    for id, unit in (
        ("ratio_std", ""),
        ("effective_sample_size", "share"),
        ("masked", "share"),
        ("correction_weight", ""),
        ("entropy_coef", ""),
    ):
        found = chart(id, columns)
        assert found is not None, id
        assert (found["unit"], len(found["series"])) == (unit, 1)
        assert chart(id, {"reward/mean": [1.0]}) is None, "only where there is one"
    # An older run has no low and high: the chart has one line.
    old = chart("clip", {"train/clip_fraction": [0.3]})
    assert old is not None
    assert len(old["series"]) == 1


def test_every_metric_of_a_ratio_is_in_a_chart() -> None:
    drawn = {part.name for spec in CHARTS for part in spec.series}
    names = {metric.name for metric in LEARNER_METRICS}
    assert {name for name in names if "ratio" in name or "clip" in name or "kl" in name} <= drawn


def test_the_bands_of_clipping_are_those_of_ppo_s_clip_of_tokens() -> None:
    for surrogate, bands in (({}, 2), ({"kind": "ppo_clip", "level": "sequence"}, 0), ({"kind": "cispo"}, 0)):
        facts = facts_of({"learner": {"objective": {"surrogate": surrogate}}}, MetricTable(steps=(), columns={}))
        assert len(thresholds.clip_fraction(facts).bands()) == bands, surrogate


def test_a_divergence_below_0_is_rounding_or_what_was_measured() -> None:
    columns: dict[str, list[float | None]] = {"train/kl_ref": [-4e-10, -0.02, 0.1, None], "train/kl_rollout": [-0.02]}
    table = MetricTable(steps=range(4), columns=columns)
    # k1, the difference of log-probabilities, is below 0 half of the time.
    assert metric(table, facts_of({}, table), "train/kl_ref") == [0.0, -0.02, 0.1, None]
    assert metric(table, facts_of({}, table), "train/kl_rollout") == [0.0]


def test_a_spike_is_not_averaged_away() -> None:
    spike: list[float | None] = [0.1, 0.1, 7.0, 0.1]
    found = chart("largest_gap", {"train/max_abs_log_ratio": spike}, points=2)
    assert found is not None
    assert found["series"][0]["values"] == [0.1, 7.0]


def test_rejected_groups_are_counted_by_step_and_named_by_reason() -> None:
    found = chart("groups", {"groups/rejected_equal_rewards": [2.0, 2.0, 5.0]})
    assert found is not None
    assert found["series"] == [
        {
            "name": "groups/step_rejected_equal_rewards",
            "label": "equal rewards",
            "role": "line",
            "values": [2.0, 0.0, 3.0],
        }
    ]


def test_derived_metrics_are_asked_for_by_name_like_recorded_ones() -> None:
    columns: dict[str, list[float | None]] = {
        "rollout/completion_tokens": [100.0],
        "time/step_s": [4.0],
        "groups/rejected_equal_rewards": [2.0],
    }
    table = MetricTable(steps=[0], columns=columns)
    facts = facts_of(CONFIG, table)
    assert metric(table, facts, "rollout/end_to_end_tokens_per_s") == [25.0]
    assert metric(table, facts, "no/such_thing") == [None]
    assert metric_names(table, facts) == [
        *columns,
        "rollout/end_to_end_tokens_per_s",
        "groups/step_rejected_equal_rewards",
    ]
