"""Episodes as the pages show them: found by filters, told as conversations, drawn as charts, asked by SQL."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.configuration.loading import load_config
from cluster.dashboard.exports.sql import connect, execute
from cluster.dashboard.index.store import RunStore
from cluster.dashboard.records import GroupAddress
from cluster.dashboard.selection.completions import SelectionError, read_completions
from cluster.dashboard.selection.export import Asked, open_export
from cluster.dashboard.selection.training_pairs import PAIR_COLUMNS, sft_records, turns_of
from cluster.dashboard.views.overview import overview
from cluster.dashboard.views.rollouts import rollout_page, rollout_table
from cluster.record.run_directory import RunDirectory
from rollout.episode_types import SpokenTurn
from tests.cluster.dashboard.episode_run import BOOK, HOSTILE, OPENING, write_episode_run
from tests.cluster.dashboard.small_runs import open_store, write_run
from tests.cluster.examples import episode_completion, ok, opened, scored

GROUP = GroupAddress(phase="train", step=0, group_id="000000-5f1c09be12aa03d4")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_episode_run(tmp_path_factory.mktemp("runs") / "game").path


@pytest.fixture(scope="module")
def store(path: Path) -> RunStore:
    return open_store(path)


@pytest.mark.parametrize(
    ("text", "samples"),
    [
        ("turns>=3", [0, 1]),
        ("turns:1-2", [2, 3]),
        ("turns=none", [0, 1]),  # the single answers
        ("episode=done", [0, 3]),
        ("episode_outcome!=done & turns!=none", [1, 2]),
        ("episode~tok", [2]),
        ("calls>0", [2]),
        ("tool_calls=0 & episode=turns", [1]),
    ],
)
def test_episodes_are_found_by_turns_calls_and_outcome(store: RunStore, text: str, samples: list[int]) -> None:
    found = rollout_table(store, filter_text=f"phase=train & ({text})", sort="sample_index", offset=0, limit=10)
    assert [row["sample_index"] for row in found["rows"]] == samples


def test_a_table_is_sorted_by_them(store: RunStore) -> None:
    by_turns = rollout_table(store, filter_text="phase=train", sort="-turns", offset=0, limit=10)["rows"]
    assert [row["turns"] for row in by_turns] == [4, 3, 2, 2, None, None]
    by_end = rollout_table(store, filter_text="phase=train", sort="episode", offset=0, limit=10)["rows"]
    assert [row["episode_outcome"] for row in by_end] == ["done", "done", "tokens", "turns", None, None]


def test_figures_of_the_rows_are_those_of_what_was_sampled(store: RunStore) -> None:
    """Four replies of a number and an end token are 8 tokens, and a gap of 9 nats on the world's tokens is none."""
    rows = rollout_table(store, filter_text="phase=train", sort="", offset=0, limit=10)["rows"]
    assert [row["length"] for row in rows[:2]] == [6, 8]
    assert [row["max_gap"] for row in rows] == pytest.approx([0.25] * 6)
    assert [row["entropy"] for row in rows] == pytest.approx([1.0] * 6)


def test_an_episode_is_told_turn_by_turn(store: RunStore) -> None:
    page = rollout_page(store, GROUP, 2)
    assert page is not None
    told = page["episode"]
    assert (told["opening"], told["outcome"], told["num_attempts"]) == (OPENING, "tokens", 1)
    assert told["scores"] == {"won": 0.0, "tries": 2.0}
    assert (told["seconds"], told["world_s"]) == (1.5, 0.25)
    first, last = told["turns"]
    assert (first["finish"], last["finish"]) == ("stop", "length")
    assert first["calls"] == [{"name": "look_up", "arguments": '{"number": 37}'}]
    assert [(one["role"], one["name"], one["text"]) for one in first["heard"]] == [
        ("tool", "look_up", BOOK[0].heard[0].text)
    ]
    assert (last["text"], last["heard"]) == (BOOK[1].text, [])
    assert first["start"] == 0
    assert last["end"] == len(page["tokens"]["ids"])
    assert first["end"] < last["start"]
    assert not any(page["tokens"]["loss_mask"][first["end"] : last["start"]])


def test_an_episode_is_exported_as_turns(store: RunStore) -> None:
    asked = Asked(filter="phase=train & episode=done & sample=0", shape="sft")
    with pytest.raises(SelectionError, match="cannot be told from its question"):
        open_export(store, asked)  # the opening has two roles
    (part,) = read_completions(store, store.select(asked.filter), PAIR_COLUMNS)
    question = {"question": "Guess my number from 1 to 100."}
    (record,) = sft_records(iter([[(placed, values | question) for placed, values in part]]), turns_of(store.config()))
    assert record["completion"] == [
        {"role": "assistant", "content": "50"},
        {"role": "user", "content": "lower"},
        {"role": "assistant", "content": "25"},
        {"role": "user", "content": "higher"},
        {"role": "assistant", "content": "37"},
    ]
    whole = open_export(store, Asked(filter=asked.filter))
    (line,) = b"".join(whole.parts).splitlines()
    row = json.loads(line)
    assert (row["turns"], row["episode_outcome"], row["episode"]["scores"]["won"]) == (3, "done", 1.0)


def test_a_single_answer_is_told_as_before(store: RunStore) -> None:
    page = rollout_page(store, GroupAddress(phase="train", step=0, group_id="000001-5f1c09be12aa03d4"), 0)
    assert page is not None
    assert (page["episode"], page["turns"], page["episode_outcome"]) == (None, None, None)


def test_charts_of_episodes_are_there_where_there_are_episodes(store: RunStore, tmp_path: Path) -> None:
    charts = {chart["id"]: chart for chart in overview(store)["charts"]}
    assert {chart["group"] for chart in charts.values()} == {
        *("Learning", "Stability", "Off-policy", "System", "Episodes")
    }
    turns = {line["name"]: line["values"] for line in charts["turns"]["series"]}
    assert turns == {"episode/turns_mean": [2.75], "episode/tool_calls_mean": [0.25]}
    ended = {line["label"]: line["values"] for line in charts["episode_ends"]["series"]}
    assert ended == {"done": [0.5], "tokens": [0.25], "turns": [0.25]}
    others = {chart["group"] for chart in overview(open_store(write_run(tmp_path / "other").path))["charts"]}
    assert "Episodes" not in others


def test_turns_are_rows_of_sql(path: Path) -> None:
    connection = connect(path, warn=lambda sentence: pytest.fail(sentence))
    query = (
        "select turn, text, heard, tokens, finish, calls, episode_outcome, reward from turns"
        " where phase = 'train' and sample_index = {} order by turn"
    )
    assert list(execute(connection, query.format(0))[1]) == [
        (1, "50", "lower", 2, "stop", 0, "done", 1.0),
        (2, "25", "higher", 2, "stop", 0, "done", 1.0),
        (3, "37", "", 2, "stop", 0, "done", 1.0),
    ]
    assert [row[1:3] for row in execute(connection, query.format(3))[1]] == [(HOSTILE, HOSTILE), ("37", "")]
    counts = execute(connection, "select phase, count(*), sum(calls) from turns group by phase order by phase")[1]
    assert list(counts) == [("eval", 11, 1), ("train", 11, 1)]


def test_a_text_that_is_no_unicode_is_a_row_all_the_same(tmp_path: Path) -> None:
    """Half of a surrogate pair, which a model may write; and an episode of another version, without words."""
    broken = episode_completion(0)
    assert broken.episode is not None
    words = (SpokenTurn(text="a \ud83d b"), *broken.episode.spoken[1:])
    older = replace(episode_completion(1), episode=replace(broken.episode, spoken=(), turns=broken.episode.turns[:1]))
    broken = replace(broken, episode=replace(broken.episode, spoken=words))
    run = RunDirectory.create(tmp_path / "run", load_config("tiny"))
    run.write_rollouts(0, [opened(scored(0, [ok(1.0), ok(0.0)], [broken, older]))], {}, {})
    connection = connect(run.path, warn=lambda sentence: pytest.fail(sentence))
    rows = execute(connection, "select sample_index, turn, text, calls, heard from turns order by sample_index, turn")[
        1
    ]
    assert list(rows) == [
        (0, 1, "a \ufffd b", 0, ""),
        (0, 2, "25", 1, "no"),
        (0, 3, "12", 0, ""),
        (1, 1, None, None, None),
    ]
