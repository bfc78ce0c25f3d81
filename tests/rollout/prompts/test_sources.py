"""Every kind of malformed row and unreadable source gives one sentence that names file, line and column."""

import gzip
import json
from pathlib import Path
from typing import Any, Literal

import pytest

from rollout.config import ColumnMapping, HubTask, JsonlTask, ParquetTask
from rollout.errors import DataError
from rollout.prompts.jsonl import MAX_LINE_BYTES
from rollout.prompts.tasks import load_rows

GOOD = b'{"question": "What is 1 + 1?", "answer": "2"}\n'

BAD_LINES = [
    (b'{"question": "a", "answer"\n', "invalid JSON", "invalid JSON"),
    (b'{"question": "a", "answer": NaN}\n', "invalid JSON", "NaN is no JSON number"),
    (b'{"question": "a", "answer": ' + b"1" * 5000 + b"}\n", "invalid JSON", "invalid JSON"),
    (b'{"question": ' + b"[" * 100_000 + b"\n", "invalid JSON", "nested too deeply"),
    (b'["a", "1"]\n', "not an object", "JSON list"),
    (b'{"question": "a", "answer": "1", "answer": "2"}\n', "invalid JSON", "the key 'answer' comes twice"),
    (b'{"question": "a", "answer": "1", "x": [{"y": 1, "y": 1}]}\n', "invalid JSON", "the key 'y' comes twice"),
    (
        b'{"question": "a", "answer": "1", "x": ' + b"[" * 102 + b"]" * 102 + b"}\n",
        "nested too deeply",
        "column 'x' is nested more than 100 deep",
    ),
    (b'{"question": "a", "answer": ' + b"[" * 900 + b"]" * 900 + b"}\n", "wrong type", "column 'answer' holds list "),
    (b'{"question": "a", "answer": "1", "\\ud800": 1}\n', "lone surrogate", "column '\\ud800' holds half a character"),
    (
        b'{"question": [{"role": "user", "content": [{"type": "image", "url": "a"}]}], "answer": "1"}\n',
        "wrong type",
        "content list [{'type': 'image'",
    ),
    (b'{"question": "a"}\n', "missing column", "column 'answer' is missing; the row's columns are 'question'"),
    (b'{"question": "  ", "answer": "1"}\n', "empty question", "column 'question' is empty"),
    (b'{"question": [], "answer": "1"}\n', "empty question", "empty list"),
    (b'{"question": "a", "answer": ""}\n', "empty answer", "column 'answer' is empty"),
    (b'{"question": 7, "answer": "1"}\n', "wrong type", "column 'question' holds int 7"),
    (b'{"question": "a", "answer": null}\n', "wrong type", "column 'answer' holds null"),
    (b'{"question": "a", "answer": true}\n', "wrong type", "holds bool True"),
    (b'{"question": "a", "answer": ["1"]}\n', "wrong type", "holds list ['1']"),
    (b'{"question": ["a"], "answer": "1"}\n', "wrong type", "without a role"),
    (b'{"question": [{"role": "boss", "content": "a"}], "answer": "1"}\n', "wrong type", "role 'boss'"),
    (b'{"question": [{"role": "user", "content": [1]}], "answer": "1"}\n', "wrong type", "content list [1]"),
    (b'{"question": [{"role": "assistant", "content": "a"}], "answer": "1"}\n', "wrong type", "nothing is asked"),
    (
        b'{"question": "a \\ud800", "answer": "1"}\n',
        "lone surrogate",
        "column 'question' holds half a character, U+D800",
    ),
    (b'{"question": "a", "answer": "1", "x": {"y": ["\\udfff"]}}\n', "lone surrogate", "column 'x'"),
    (b'{"question": "a\\u0000b", "answer": "1"}\n', "NUL character", "at offset 1"),
    (b'{"question": "\xff", "answer": "1"}\n', "not UTF-8", "byte 0xff at offset 14"),
    (b'\xff\xfe{\x00"\x00\n', "not UTF-8", "byte 0xff at offset 0"),
]


def write(folder: Path, content: bytes) -> str:
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(("line", "reason", "message"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_malformed_line_is_named_or_counted(tmp_path: Path, line: bytes, reason: str, message: str) -> None:
    path = write(tmp_path, GOOD + b"\n" + line + b'{"question": "last", "answer": 3}')
    with pytest.raises(DataError) as caught:
        load_rows(JsonlTask(path=path, eval_fraction=0), split="train")
    # Line 3: the blank line 2 is no row but counts as a line, as an editor counts.
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)

    rows = load_rows(JsonlTask(path=path, eval_fraction=0, on_bad_row="skip"), split="train")
    assert [row.question for row in rows.rows] == ["What is 1 + 1?", "last"]
    assert [row.ground_truth for row in rows.rows] == ["2", "3"]
    assert rows.skipped == {reason: 1}
    assert rows.num_skipped == 1


def test_a_gigantic_line_is_skipped_without_losing_the_next(tmp_path: Path) -> None:
    giant = b'{"question": "' + b"x" * (2 * MAX_LINE_BYTES) + b'"}\n'
    path = write(tmp_path, giant + GOOD)
    rows = load_rows(JsonlTask(path=path, eval_fraction=0, on_bad_row="skip"), split="train")
    assert rows.skipped == {"line too long": 1}
    assert [row.source for row in rows.rows] == [f"{path}:2"]


def test_a_byte_order_mark_starts_a_file_and_not_a_question(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbf" + GOOD)
    assert load_rows(JsonlTask(path=path, eval_fraction=0), split="train").rows[0].question == "What is 1 + 1?"


def test_when_all_rows_are_malformed_the_reasons_are_told(tmp_path: Path) -> None:
    path = write(tmp_path, b'{"question": "a"}\n{"question": "b"}\n[]\n')
    with pytest.raises(DataError, match=r"no usable row.*2 x missing column, 1 x not an object"):
        load_rows(JsonlTask(path=path, on_bad_row="skip"), split="train")


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="the train source of task 'rows' is empty"):
        load_rows(JsonlTask(path=write(tmp_path, content)), split="train")


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl does not exist"):
        load_rows(JsonlTask(path=str(tmp_path / "nowhere.jsonl")), split="train")
    with pytest.raises(DataError, match="is a folder, expected a file"):
        load_rows(ParquetTask(path=str(tmp_path)), split="train")


def test_columns_are_mapped_and_the_others_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path, b'{"q": "How many?", "n": 3.5, "level": 2, "tags": ["a", {"b": null}]}\n')
    task = JsonlTask(path=path, columns=ColumnMapping(question="q", ground_truth="n"), eval_fraction=0)
    (row,) = load_rows(task, split="train").rows
    assert (row.question, row.ground_truth, row.source) == ("How many?", "3.5", f"{path}:1")
    assert row.columns == {"level": 2, "tags": ["a", {"b": None}]}

    task = JsonlTask(path=path, columns=ColumnMapping(question="q", ground_truth=None), eval_fraction=0)
    (row,) = load_rows(task, split="train").rows
    assert row.ground_truth is None
    assert row.columns["n"] == 3.5


def test_a_column_within_a_column(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = {"prompt": [{"role": "user", "content": "1+1?"}], "reward_model": {"style": "rule", "ground_truth": "2"}}
    columns = ColumnMapping(question="prompt", ground_truth="reward_model.ground_truth")
    (tmp_path / "rows.jsonl").write_text(json.dumps(values) + "\n")
    pq.write_table(pa.Table.from_pylist([values]), tmp_path / "rows.parquet")
    for kind, name in ((JsonlTask, "rows.jsonl"), (ParquetTask, "rows.parquet")):
        (row,) = load_rows(kind(path=str(tmp_path / name), columns=columns, eval_fraction=0), split="train").rows
        assert (row.question_text, row.ground_truth) == ("1+1?", "2")
        assert row.columns == {"reward_model": {"style": "rule", "ground_truth": "2"}}
        wrong = columns.model_copy(update={"ground_truth": "reward_model.answer"})
        with pytest.raises(DataError, match=rf"{name}:1: column 'reward_model\.answer' is missing"):
            load_rows(kind(path=str(tmp_path / name), columns=wrong, eval_fraction=0), split="train")
    flat = columns.model_copy(update={"ground_truth": "rewards.answer"})
    with pytest.raises(DataError, match=r"has no column 'rewards', its columns are \['prompt', 'reward_model'\]; "):
        load_rows(ParquetTask(path=str(tmp_path / "rows.parquet"), columns=flat), split="train")
    (tmp_path / "dotted.jsonl").write_text('{"a.b": "1+1?", "answer": "2"}\n')
    dotted = JsonlTask(path=str(tmp_path / "dotted.jsonl"), columns=ColumnMapping(question="a.b"), eval_fraction=0)
    assert load_rows(dotted, split="train").rows[0].question == "1+1?"


def test_texts_that_come_in_parts(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "1"}, {"type": "text", "text": "+1?"}]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": [{"role": "user", "content": parts}], "answer": "2"}) + "\n")
    (row,) = load_rows(JsonlTask(path=str(path), eval_fraction=0), split="train").rows
    assert row.question_text == "1+1?"


@pytest.mark.parametrize("indent", [None, 2])
def test_a_file_that_is_one_list_is_read(indent: int | None, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [{"question": "1+1?", "answer": "2"}, {"question": "1+2?", "answer": "3"}, "no row"]
    path.write_bytes(b"\xef\xbb\xbf\n" + json.dumps(rows[:2], indent=indent).encode())
    read = load_rows(JsonlTask(path=str(path), eval_fraction=0), split="train").rows
    assert [(row.question, row.ground_truth, row.source) for row in read] == [
        ("1+1?", "2", f"{path}:1"),
        ("1+2?", "3", f"{path}:2"),
    ]
    path.write_text(json.dumps(rows, indent=indent))
    with pytest.raises(DataError, match=r"rows\.json:3: the row holds a JSON str, expected an object with columns"):
        load_rows(JsonlTask(path=str(path)), split="train")
    path.write_text('[{"question": "a",\n "answer": }]')
    with pytest.raises(DataError, match=r"rows\.json, line 2, column 12: this is no valid JSON list, Expecting value"):
        load_rows(JsonlTask(path=str(path)), split="train")


OTHER_FILES = [
    # Without the time: it would be in the test's name, and processes that collect in different seconds would disagree.
    ("rows.jsonl", gzip.compress(GOOD, mtime=0), "it is compressed with gzip; unpack it"),
    ("rows.jsonl", b"PAR1" + b"0" * 99, "it is a Parquet file; set task.kind to parquet"),
    ("rows.jsonl", GOOD.decode().encode("utf-16"), "it is text in UTF-16; save it as UTF-8"),
    ("rows.csv", b'question,answer\n"a, b",1\n', "it is a table of comma- or tab-separated values; save it as JSON"),
    ("rows.json", b'{\n  "question": "a",\n  "answer": "1"\n}\n', "its first object goes over several lines"),
]


@pytest.mark.parametrize(("name", "content", "sentence"), OTHER_FILES)
@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
def test_a_file_of_another_kind_is_named(
    name: str, content: bytes, sentence: str, on_bad_row: Literal["error", "skip"], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} holds no JSON lines: {sentence}"):
        load_rows(JsonlTask(path=str(tmp_path / name), on_bad_row=on_bad_row), split="train")


def test_a_path_that_no_file_can_have() -> None:
    with pytest.raises(DataError, match=r"^x+ cannot be read: File name too long; set task\.path"):
        load_rows(JsonlTask(path="x" * 5000), split="train")
    with pytest.raises(DataError, match=r"^/dev/null is a device or a pipe"):
        load_rows(JsonlTask(path="/dev/null"), split="train")


def unreadable_columns() -> dict[str, tuple[Any, str, str]]:
    """Name -> column whose second value has no form in Python, the reason that is counted, and what is told."""
    import pyarrow as pa

    texts = pa.array([b"fine", b"\xff\xfe"], pa.binary())
    bad_text = pa.Array.from_buffers(pa.string(), 2, texts.buffers())
    not_utf8 = "column 'unused' holds text that is not UTF-8 (byte 0xff at offset 0)"
    return {
        "text": (bad_text, "not UTF-8", not_utf8),
        "within": (pa.StructArray.from_arrays([bad_text], ["x"]), "not UTF-8", not_utf8),
        "date": (
            pa.array([0, 2**31 - 1], pa.date32()),
            "unreadable value",
            "column 'unused' has no readable date32[day]: ",
        ),
        "duration": (
            pa.array([0, 2**62], pa.duration("s")),
            "unreadable value",
            "column 'unused' has no readable duration[s]: ",
        ),
    }


@pytest.mark.parametrize("name", ["text", "within", "date", "duration"])
def test_values_of_parquet_that_cannot_be_read_are_named_or_counted(name: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    values, reason, message = unreadable_columns()[name]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"question": ["1+1?", "1+2?"], "answer": ["2", "3"], "unused": values}), path)
    with pytest.raises(DataError) as caught:
        load_rows(ParquetTask(path=str(path)), split="train")
    assert str(caught.value).startswith(f"{path}:2: {message}")
    assert "\n" not in str(caught.value)
    rows = load_rows(ParquetTask(path=str(path), on_bad_row="skip", eval_fraction=0), split="train")
    assert [row.question for row in rows.rows] == ["1+1?"]
    assert rows.skipped == {reason: 1}


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table([pa.array(["a"]), pa.array(["b"]), pa.array(["1"])], names=["question", "question", "answer"])
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="has two columns named 'question'; give one of them another name"):
        load_rows(ParquetTask(path=str(tmp_path / "rows.parquet")), split="train")


def test_parquet_rows_become_json_values(tmp_path: Path) -> None:
    import datetime
    import decimal

    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "sums.parquet"
    table = {
        "question": ["1 + 1?", None, "2 + 2?"],
        "answer": [2, 3, 4],
        "day": [datetime.date(2024, 2, 29)] * 3,
        "price": [decimal.Decimal("1.50")] * 3,
        "share": [float("nan"), 0.5, 0.5],
        "image": [b"\x89PNG"] * 3,
    }
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    rows = load_rows(ParquetTask(path=str(path), eval_fraction=0, on_bad_row="skip"), split="train")
    assert [(row.question, row.ground_truth) for row in rows.rows] == [("1 + 1?", "2"), ("2 + 2?", "4")]
    assert rows.rows[0].columns == {"day": "2024-02-29", "price": "1.50", "share": None}
    assert json.loads(json.dumps(rows.rows[0].columns, allow_nan=False)) == rows.rows[0].columns
    assert rows.skipped == {"wrong type": 1}
    with pytest.raises(DataError, match=r"sums\.parquet:2: column 'question' holds null"):
        load_rows(ParquetTask(path=str(path)), split="train")
    wrong = ParquetTask(path=str(path), columns=ColumnMapping(question="questions"), on_bad_row="skip")
    with pytest.raises(DataError, match=r"has no column 'questions'.*did you mean 'question'"):
        load_rows(wrong, split="train")


def test_a_file_that_is_no_parquet_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "sums.parquet"
    path.write_bytes(GOOD * 10)
    with pytest.raises(DataError, match=r"sums\.parquet cannot be read as a Parquet file"):
        load_rows(ParquetTask(path=str(path)), split="train")


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets`, sure not to look at the network or at the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


@pytest.mark.usefixtures("offline_hub")
def test_a_data_set_is_read_through_the_datasets_library(tmp_path: Path) -> None:
    folder = tmp_path / "sums"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(GOOD + b'{"question": "What is 2 + 2?", "answer": "4"}\n')
    (folder / "test.jsonl").write_bytes(GOOD)
    task = HubTask(dataset=str(folder), eval_split="test")
    rows = load_rows(task, split="train")
    assert [row.question for row in rows.rows] == ["What is 2 + 2?"]
    assert rows.num_in_eval == 1
    assert load_rows(task, split="eval").rows[0].source == f"{folder}[test]:1"
    with pytest.raises(DataError, match='Unknown split "validation"'):
        load_rows(HubTask(dataset=str(folder), split="validation"), split="train")
    with pytest.raises(DataError, match="has no column 'problem'"):
        load_rows(HubTask(dataset=str(folder), columns=ColumnMapping(question="problem")), split="train")


@pytest.mark.usefixtures("offline_hub")
def test_an_unreachable_hub_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"'nobody/nothing' cannot be fetched.*go online or use files") as caught:
        load_rows(HubTask(dataset="nobody/nothing"), split="train")
    assert "\n" not in str(caught.value)
