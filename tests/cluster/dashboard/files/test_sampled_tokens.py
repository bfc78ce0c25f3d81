"""Figures of completions are over what was sampled: values by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from cluster.dashboard.files.arrow_arrays import numpy_of
from cluster.dashboard.files.features import Lists
from cluster.dashboard.files.features import repetition as repetitions
from cluster.dashboard.files.rollout_file import RolloutFile, read_rollout_file
from cluster.dashboard.files.sampled_tokens import counted, only, read_episodes, stretches
from cluster.record.episode_text import episode_of, episode_text
from cluster.record.group_table import read_groups, tables_of, write_tables
from cluster.record.metrics import rollout_metrics
from rollout.repetition import repetition
from rollout.types import read_only
from tests.cluster.examples import completion, episode_completion, ok, opened, scored, values_of

LEARNER = (-1, -2.5, -1, -2, -7, -7, -2, -7, -7, -3)
"""log p of the learner of all ten tokens: of those that were sampled it differs by -0.5 and +1, and the world's are as
unlikely to it as may be."""


def written(path: Path) -> RolloutFile:
    group = scored(0, [ok(1.0), ok(0.0)], [completion(0), episode_completion(1)])
    key = (group.group_id, 1)
    values = {key: values_of(LEARNER, (), (1, 1, 1, 1, 9, 9, 4, 9, 9, 4))}
    with path.open("wb") as file:
        write_tables(file, tables_of(0, [opened(group)], {key: 0.5}, values))
    return read_rollout_file(path)


def test_figures_of_an_episode_are_over_what_was_sampled(tmp_path: Path) -> None:
    found = written(tmp_path / "step-000000.parquet")
    features = {name: values[1] for name, values in found.features.items()}
    gaps = (0, -0.5, 0, 0, 1, 0)
    assert features["length"] == 6
    assert features["max_gap"] == 1  # with the world's tokens it would be 7
    assert features["k3"] == pytest.approx(sum(math.expm1(d) - d for d in gaps) / 6)
    assert features["entropy"] == (4 * 1 + 2 * 4) / 6
    assert (features["turns"], features["tool_calls"]) == (3, 1)
    assert found.episode_outcomes == [None, "turns"]


def test_a_single_answer_is_as_it_was(tmp_path: Path) -> None:
    found = written(tmp_path / "step-000000.parquet")
    assert (found.features["length"][0], found.features["entropy"][0]) == (2, 0.5)
    assert np.isnan([found.features[name][0] for name in ("turns", "tool_calls", "max_gap")]).all()


def test_a_masked_token_of_a_single_answer_is_in_no_gap() -> None:
    """The sampler's log-probability was not finite, and is told as 0."""
    tokens = Lists(np.arange(5), np.array([2, 3]))
    mask = Lists(np.array([True, False, False, False, False]), np.array([2, 3]))
    flags = counted(tokens, stretches(tokens, [None, None]), mask)
    # Of the second, which was given up, nothing may be trained on: its figures are over all of it.
    assert flags.values.tolist() == [True, False, True, True, True]
    kept = only(Lists(np.array([-1.0, 0.0, -2.0, -3.0, -4.0]), np.array([2, 3])), flags)
    assert (kept.values.tolist(), kept.lengths.tolist()) == ([-1, -2, -3, -4], [1, 3])
    assert only(Lists(np.zeros(0), np.array([0, 0])), flags).lengths.tolist() == [0, 0]
    assert only(Lists(np.array([-1.0]), np.array([1, 0])), flags).values.tolist() == [-1]


def test_flags_are_read_from_their_bits() -> None:
    flags = [True, None, False, True, True, False, None, True, True, False]
    assert numpy_of(pyarrow.array(flags)[3:]).tolist() == [True, True, False, False, True, True, False]
    assert numpy_of(pyarrow.array([True, False])).tolist() == [True, False]
    assert numpy_of(pyarrow.nulls(2, pyarrow.bool_())).tolist() == [False, False]


def test_what_the_world_repeats_is_no_repetition_of_the_policy(tmp_path: Path) -> None:
    """Twice `1 2 3 4 5`, with `7 7 7 7 7 7` of the world between: of four 4-grams two were said before. None is counted
    that begins in one turn and ends in another."""
    tokens = read_only((1, 2, 3, 4, 5, *[7] * 6, 1, 2, 3, 4, 5), np.int32)
    episode = episode_of('{"outcome":"done","scores":{},"turns":[[0,5,"a"],[11,16,"b"]],"tool_calls":0,"attempts":1}')
    assert episode is not None
    assert repetition(tokens, episode.turns) == 0.5
    assert repetition(tokens) == (3 - 1 + 2) / 13  # two more 7 7 7 7, and 1 2 3 4 and 2 3 4 5 again
    lists = Lists(tokens, np.array([16]))
    assert repetitions(lists, stretches(lists, [episode])).tolist() == [0.5]


def test_an_episode_goes_through_a_table_whole(tmp_path: Path) -> None:
    written(tmp_path / "step-000000.parquet")
    (group,) = read_groups(tmp_path / "step-000000.parquet")
    episode = group.group.completions[1].episode
    assert episode == episode_completion().episode
    assert episode is not None
    assert (episode.seconds, episode.world_s) == (2.0, 0.5)  # which are not compared
    assert episode_text(episode_of(episode_text(episode))) == episode_text(episode)
    assert rollout_metrics([group.scored])["rollout/completion_tokens"] == 8


def test_a_column_of_another_version_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = {"outcome": "done", "scores": {}, "turns": [[0, 2, "f"]], "tool_calls": 0, "attempts": 1}
    spoken = {"text": "a", "calls": [["b", "{}"]], "heard": [["user", "c", ""]]}
    others: list[dict[str, object]] = [
        {"turns": [["a", "b", "c"]]},
        {"turns": [[0, 1 << 40, "f"]]},
        {"turns": 3},
        {"outcome": {}},
        {"scores": {"won": "much"}},
        {"scores": []},
        {"scores": {"won": 10**400}},
        {"spoken": [spoken | {"text": None}]},
        {"spoken": [spoken | {"heard": [["user", 3, ""]]}]},
        {"spoken": [spoken | {"calls": [["b"]]}]},
        {"seconds": "long"},
    ]
    texts = [json.dumps(whole), *("", "[]", "{}", "3", "[" * 100_000), *(json.dumps(whole | one) for one in others)]
    found = read_episodes([*texts, None])
    assert [one is not None for one in found] == [True] + [False] * (len(texts))
    assert read_episodes([json.dumps(whole | {"spoken": [spoken], "scores": {"won": None}})]) != [None]
    assert found[0] is not None
    assert (found[0].turns[0].finish, found[0].spoken, found[0].seconds) == ("", (), 0)


def test_a_table_without_mask_and_episodes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "step-000000.parquet"
    written(path)
    table = pyarrow.parquet.read_table(path).drop_columns(["loss_mask", "episode"])
    pyarrow.parquet.write_table(table, path)
    found = read_rollout_file(path)
    assert found.features["length"].tolist() == [2, 10]
    assert found.features["max_gap"][1] == 7
