"""A filtered selection as a file: what is in it, in each format and shape, and what is refused."""

import csv
import io
import json
import os
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from cluster import cli
from cluster.configuration.loading import load_config
from cluster.dashboard.index.filters import FilterError
from cluster.dashboard.index.store import RunStore
from cluster.dashboard.selection import writers
from cluster.dashboard.selection.columns import TOKEN_COLUMNS
from cluster.dashboard.selection.completions import SelectionChangedError, SelectionError, read_completions
from cluster.dashboard.selection.export import Asked, open_export
from cluster.dashboard.selection.training_pairs import Shape
from cluster.dashboard.selection.writers import FORMATS, Format
from cluster.record.run_directory import RunDirectory
from rollout.types import FinishReason
from tests.cluster.dashboard.served import serving
from tests.cluster.dashboard.small_run import add_step, make_run
from tests.cluster.examples import completion, failed, ok, opened, scored

CORRECT = "phase=train & correct"
"""The first completion of each of the six groups of `make_run`."""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return make_run(tmp_path / "runs" / "a")


@pytest.fixture
def store(run: RunDirectory) -> Iterator[RunStore]:
    store = RunStore(run.path)
    store.refresh()
    yield store
    store.close()


def exported(
    store: RunStore, filter: str, *, shape: Shape = "rollouts", format: Format = "jsonl", tokens: bool = False
) -> list[dict[str, Any]]:
    asked = Asked(filter=filter, shape=shape, format=format, tokens=tokens)
    data = b"".join(open_export(store, asked).parts)
    if format == "jsonl":
        return [json.loads(line) for line in data.splitlines()]
    if format == "csv":
        return list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    return rows


def test_the_selection_is_what_the_table_of_the_page_shows(store: RunStore) -> None:
    rows = exported(store, CORRECT)
    shown = store.query(CORRECT, "", 0, 100).rows
    assert {(row["step"], row["group_id"], row["sample_index"]) for row in rows} == {
        (row.step, row.group_id, row.sample_index) for row in shown
    }
    assert len(rows) == len(shown) == 6
    first = next(row for row in rows if row["group_id"].startswith("000002"))
    assert (first["phase"], first["step"], first["reward"], first["advantage"]) == ("train", 1, 1.0, 0.5)
    assert (first["completion_text"], first["question"], first["components"]) == (
        "the answer is 3",
        "1 + 2 (2)",
        {"math": 1.0},
    )
    # Sampler -0.5, -0.5; learner -0.5, -0.25 (the examples): one token of two differs by 0.25.
    assert (first["max_gap"], first["entropy"], first["length"], first["lag"]) == (0.25, 0.5, 2, 1)
    assert not set(TOKEN_COLUMNS) & set(first)


def test_every_format_has_the_same_values(store: RunStore) -> None:
    lines, table = exported(store, ""), exported(store, "", format="parquet")
    cells = exported(store, "", format="csv")
    assert len(lines) == len(table) == len(cells) == 21
    for line, row, cell in zip(lines, table, cells, strict=True):
        assert json.loads(row["components"]) == line["components"]
        assert {**row, "components": 0, "version_spans": 0} == {**line, "components": 0, "version_spans": 0}
        assert (cell["step"], cell["group_id"]) == (str(line["step"]), line["group_id"])
        assert cell["reward"] == ("" if line["reward"] is None else str(line["reward"]))
        assert cell["completion_text"] == line["completion_text"]


def test_tokens_come_when_they_are_asked_for(store: RunStore) -> None:
    for format in ("jsonl", "parquet"):
        row = exported(store, CORRECT, format=format, tokens=True)[0]
        assert (row["token_ids"], row["rollout_logprobs"], row["policy_logprobs"]) == (
            [10, 11],
            [-0.5, -0.5],
            [-0.5, -0.25],
        )


@pytest.mark.parametrize("format", FORMATS)
def test_pairs_for_fine_tuning(store: RunStore, format: Format) -> None:
    def value(cell: Any) -> Any:
        return json.loads(cell) if format == "csv" else cell

    pairs = exported(store, "step:1", shape="dpo", format=format)
    assert [{name: value(cell) for name, cell in pair.items()} for pair in pairs] == [
        {
            "prompt": [{"role": "user", "content": f"1 + 2 ({index})"}],
            "chosen": [{"role": "assistant", "content": "the answer is 3"}],
            "rejected": [{"role": "assistant", "content": "The Answer is 3"}],
        }
        for index in (3, 2)  # as they stand in the file
    ]
    assert exported(store, "step:1 & correct", shape="sft-text", format=format) == [
        {"prompt": f"1 + 2 ({index})", "completion": "the answer is 3"} for index in (3, 2)
    ]


def test_the_best_and_the_worst_of_each_group_are_a_pair(tmp_path: Path) -> None:
    rewards = [ok(0.25), ok(0.75), failed(), ok(0.75), ok(0.0), ok(0.0)]
    run = RunDirectory.create(tmp_path / "a", load_config("tiny"))
    equal = scored(1, [ok(0.5), ok(0.5)], [completion(0, text="x"), completion(1, text="y")])
    mixed = scored(0, rewards, [completion(i, text=f"no. {i}") for i in range(6)])
    run.write_rollouts(0, [opened(equal), opened(mixed)], {}, {})
    with_store = RunStore(run.path)
    with_store.refresh()
    pairs = exported(with_store, "", shape="dpo-text")
    assert pairs == [{"prompt": "1 + 2", "chosen": "no. 1", "rejected": "no. 4"}]
    # The filter says between which completions it is chosen.
    assert exported(with_store, "sample!=1 & sample!=4", shape="dpo-text")[0] == {
        "prompt": "1 + 2",
        "chosen": "no. 3",
        "rejected": "no. 5",
    }
    with pytest.raises(SelectionError, match="no group has two selected completions with different rewards"):
        exported(with_store, "reward=0.75", shape="dpo")
    with_store.close()


def test_turns_are_those_that_the_question_was_asked_with(tmp_path: Path) -> None:
    config = load_config("tiny", ["task.system_prompt=Be brief.", "task.template=Q: {question}"])
    run = RunDirectory.create(tmp_path / "a", config)
    text = "<sys>Be brief.</sys><user>Q: 1 + 2</user>"
    group = scored(0, [ok(1.0)])
    prompt = replace(group.group.payload.prompt, text=text, question="1 + 2")
    run.write_rollouts(0, [replace(opened(group), group=replace(opened(group).group, prompt=prompt))], {}, {})
    other = scored(1, [ok(1.0)], text="system: a\n\nuser: b")
    run.write_rollouts(1, [opened(other)], {}, {})
    store = RunStore(run.path)
    store.refresh()
    assert exported(store, "step:0", shape="sft")[0]["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Q: 1 + 2"},
    ]
    assert exported(store, "step:0", shape="sft-text")[0]["prompt"] == text
    with pytest.raises(SelectionError, match="cannot be told from its question"):
        exported(store, "step:1", shape="sft")
    store.close()


def test_the_turns_of_a_mix_are_those_of_each_task(tmp_path: Path) -> None:
    tasks = [
        {"kind": "jsonl", "path": f"{name}.jsonl", "template": f"{name}: {{question}}"} for name in ("sums", "words")
    ]
    config = load_config("tiny", [f"task={json.dumps({'kind': 'mix', 'tasks': tasks})}"])
    run = RunDirectory.create(tmp_path / "a", config)
    groups = [opened(scored(index, [ok(1.0)])) for index in range(2)]
    asked = [
        replace(of.group.prompt, task=name, text=f"<user>{name}: 1 + 2</user>", question="1 + 2")
        for of, name in zip(groups, ("sums", "words"), strict=True)
    ]
    run.write_rollouts(
        0, [replace(of, group=replace(of.group, prompt=p)) for of, p in zip(groups, asked, strict=True)], {}, {}
    )
    store = RunStore(run.path)
    store.refresh()
    assert [one["prompt"][0]["content"] for one in exported(store, "", shape="sft")] == ["sums: 1 + 2", "words: 1 + 2"]
    store.close()


def test_a_cell_is_no_formula(tmp_path: Path) -> None:
    texts = ['=HYPERLINK("http://x")', "-5", "+3.5", "-x", "@a", "plain"]
    run = RunDirectory.create(tmp_path / "a", load_config("tiny"))
    run.write_rollouts(0, [opened(scored(0, [ok(0.0)] * 6, [completion(i, text=t) for i, t in enumerate(texts)]))])
    store = RunStore(run.path)
    store.refresh()
    cells = [row["completion_text"] for row in exported(store, "", format="csv")]
    assert cells == ['\'=HYPERLINK("http://x")', "-5", "+3.5", "'-x", "'@a", "plain"]
    assert [row["completion_text"] for row in exported(store, "", format="parquet")] == texts
    store.close()


def test_what_cannot_be_exported_is_said_before_the_first_byte(store: RunStore) -> None:
    for asked, error in [
        (Asked(filter="phase"), FilterError),
        (Asked(filter="step:99"), SelectionError),
        (Asked(shape="sft", tokens=True), SelectionError),
    ]:
        with pytest.raises(error):
            open_export(store, asked)


def test_a_file_that_is_replaced_while_it_is_read_ends_the_export(run: RunDirectory, store: RunStore) -> None:
    parts = open_export(store, Asked(filter="phase=train")).parts
    (run.path / "rollouts" / "step-000002.parquet").unlink()
    with pytest.raises(SelectionChangedError, match="step-000002"):
        list(parts)
    store.refresh()
    ids = store.select("")
    (run.path / "rollouts" / "step-000001.parquet").unlink()
    add_step(run, 2)
    store.refresh()
    with pytest.raises(SelectionChangedError, match="rollouts changed"):
        list(read_completions(store, ids, ("step",)))


def test_the_command_writes_a_whole_file_or_none(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "x.jsonl"
    assert cli.main(["rollouts", str(run.path), "--filter", CORRECT, "-o", str(out)]) == 0
    assert f"{out}: 6 rollouts" in capsys.readouterr().out
    assert len(out.read_text().splitlines()) == 6
    assert cli.main(["rollouts", str(run.path), "--filter", CORRECT, "--as", "sft", "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert "6 completions" in said.out
    assert "6 of the 6 completions were cut at the limit of tokens; add & !truncated" in said.err
    before = out.read_bytes()
    for words, sentence in [
        (["--filter", "step:99", "-o", str(out)], "no rollout passes the filter 'step:99'"),
        (
            ["-o", str(tmp_path / "x.xlsx")],
            "has the ending '.xlsx', by which the format is chosen; allowed: .jsonl, .csv, .parquet",
        ),
        (["--as", "sft"], "--as and --tokens are for a file"),
        (["-o", str(tmp_path)], "is a folder"),
        (["-o", "/proc/x.csv"], "cannot write /proc/x.csv"),
    ]:
        assert cli.main(["rollouts", str(run.path), *words]) != 0
        assert sentence in capsys.readouterr().err
    assert out.read_bytes() == before
    assert sorted(path.name for path in out.parent.iterdir()) == ["x.jsonl"]
    assert cli.main(["rollouts", str(tmp_path / "nothing")]) == 2


def test_the_command_lists_and_names_files_that_it_cannot_read(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.path / "rollouts" / "step-000001.parquet").write_bytes(b"torn")
    assert cli.main(["rollouts", str(run.path), "--filter", CORRECT]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "4 rollouts"
    assert said.out.splitlines()[0].split()[:4] == ["phase", "step", "group_id", "sample_index"]
    assert "rollouts/step-000001.parquet was left out" in said.err


def test_the_page_downloads_the_same(run: RunDirectory, tmp_path: Path) -> None:
    with serving([tmp_path / "runs"]) as served:
        target = "/api/runs/a/export?filter=phase%3Dtrain%26correct"
        reply = served.ask(target)
        assert (reply.status, reply.headers["content-disposition"]) == (200, 'attachment; filename="a-rollouts.jsonl"')
        assert reply.headers["content-type"] == "application/jsonl"
        assert reply.headers["transfer-encoding"] == "chunked"
        assert len(reply.body.splitlines()) == 6
        table = served.ask(f"{target}&format=parquet&as=sft-text")
        assert pyarrow.parquet.read_table(io.BytesIO(table.body)).num_rows == 6
        for wrong, status in [("filter=phase", 400), ("format=xls", 400), ("as=x", 400), ("filter=step:99", 400)]:
            refused = served.ask(f"/api/runs/a/export?{wrong}")
            assert (refused.status, list(refused.json())) == (status, ["error"])
        assert served.ask(target, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors").status == 403


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("list<int32>", [7] * 2000),
        ("string", "x" * 2000),
        ("turns", [{"role": "user", "content": "x" * 2000}]),
        ("list<list<int32>>", [[7] * 1000, [7] * 1000]),
    ],
)
def test_rows_are_held_up_to_a_size(format: Format, kind: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 2000 characters or tokens in parts of 10,000: no more than five are read before they are written."""
    monkeypatch.setattr(writers, "_CHUNK_SIZE", 10_000)
    read = 0

    def records() -> Iterator[dict[str, Any]]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield {"a": value}

    made = writers.write_records(records(), {"a": kind}, format)
    next(made)
    assert read == 5
    assert b"".join(made)
    assert read == 100


@pytest.mark.slow
def test_memory_does_not_grow_with_the_selection(tmp_path: Path) -> None:
    """Sixteen files of 16 MiB each of text that does not compress: no more than a few parts are held at a time."""
    run = RunDirectory.create(tmp_path / "a", load_config("tiny"))
    for step in range(16):
        texts = [os.urandom(8192).hex() for _ in range(1024)]
        completions = [completion(i, text=t, finish=FinishReason.STOP) for i, t in enumerate(texts)]
        run.write_rollouts(step, [opened(scored(step, [ok(1.0)] * 1024, completions))])
    store = RunStore(run.path)
    store.refresh()
    list(open_export(store, Asked(filter="step:0")).parts)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = sum(len(part) for part in open_export(store, Asked()).parts)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    store.close()
    assert total > 16 * 1024 * 16384
    assert grown_kib < 64 << 10, f"{grown_kib} KiB"
