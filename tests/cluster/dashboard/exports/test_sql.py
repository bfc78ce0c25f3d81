"""`shoal sql`: what the tables hold, how results are written, and what a query may not do."""

import csv
import io
import json
import os
from pathlib import Path

import pytest

from cluster import cli
from cluster.dashboard.exports.sql import QueryError, connect, execute, sql_command, write_csv, write_json, write_table
from cluster.record.run_directory import RunDirectory
from rollout.errors import ConfigError
from tests.cluster.dashboard.small_runs import write_run


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return write_run(tmp_path_factory.mktemp("it's a folder") / "one")


def rows_of(run: Path, query: str) -> list[tuple[object, ...]]:
    connection = connect(run, warn=lambda sentence: None)
    try:
        return list(execute(connection, query)[1])
    finally:
        connection.close()


def test_every_table_answers_with_the_numbers_of_the_run(run: RunDirectory) -> None:
    mean_reward = "select step, count(*), avg(reward) from rollouts group by step order by step"
    assert rows_of(run.path, mean_reward) == [(0, 8, 0.25), (1, 8, 0.5), (2, 8, 0.5)]
    assert rows_of(run.path, "select step, count(*) from evals group by step order by step") == [(0, 4), (3, 4)]
    assert rows_of(run.path, 'select step, "reward/mean" from metrics order by step') == [(0, 0.25), (1, 0.5), (2, 0.5)]
    assert rows_of(run.path, 'select step, "eval/pass_at_1" from evaluations order by 1') == [(0, 0.5), (3, 0.75)]
    assert rows_of(run.path, "select count(*) from ledger where state = 'rejected'") == [(1,)]
    assert rows_of(run.path, "select count(*), count(step) from events where kind = 'train'") == [(3, 3)]
    assert rows_of(run.path, "select extra->>'tokens' from events where kind = 'generate' limit 1") != [(None,)]


def test_a_live_run_with_torn_and_missing_files(run: RunDirectory, tmp_path: Path) -> None:
    live = write_run(tmp_path / "live", num_steps=2, finished=False).path
    with (live / "metrics.jsonl").open("a") as file:
        file.write('{"step":2,"reward/me')
    tables = sorted((live / "rollouts").glob("step-*.parquet"))
    tables[1].write_bytes(tables[1].read_bytes()[:-100])
    (live / "evaluations.jsonl").unlink()
    warnings: list[str] = []
    connection = connect(live, warn=warnings.append)
    assert list(execute(connection, "select step from metrics order by step")[1]) == [(0,), (1,)]
    assert list(execute(connection, "select distinct step from rollouts")[1]) == [(0,)]
    assert [warning.split(" was left out")[0] for warning in warnings] == [str(tables[1])]
    with pytest.raises(
        QueryError, match="evaluations does not exist; this run has: evals, events, ledger, metrics, rollouts, turns"
    ):
        execute(connection, "select * from evaluations")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("drop view rollouts", "got DROP, allowed: statements that only read"),
        ("copy rollouts to 'x.csv'", "got COPY"),
        ("create table t as select 1", "got CREATE"),
        ("attach '/tmp/x.db'", "got ATTACH"),
        ("set enable_external_access = true", "got SET"),
        ("install httpfs", "got LOAD"),
        ("pragma database_list", "got PRAGMA"),
        ("select 1; select 2", "got 2 statements, allowed: one"),
        ("", "got 0 statements, allowed: one"),
        ("selec 1", "the query failed: Parser Error"),
        ("select nothing from rollouts", 'Referenced column "nothing" not found'),
        ("select * from read_text('/etc/passwd')", "file system operations are disabled"),
        ("select * from '/etc/passwd'", "the query failed"),
        ("select * from glob('/etc/*')", "the query failed"),
        ("select * from read_csv('{run}/../other/config.yaml')", "file system operations are disabled"),
        ("explain analyze copy (select 1) to '{run}/x.csv'", "got COPY, allowed: statements that only read"),
        ("explain (analyze) copy (select 1) to '{run}/metrics.jsonl'", "got COPY"),
        ("explain (/* ) select 1 -- */ analyze) copy (select 1) to '{run}/x.csv'", "the query failed"),
        ("/**/ explain analyze create table t as select 1", "got EXPLAIN"),
        ("select * from read_text('{run}/config.yaml')", "file system operations are disabled"),
        ("select cast(question as int) from rollouts", "the query failed: Conversion Error"),
    ],
)
def test_a_query_reads_this_run_and_nothing_else(run: RunDirectory, query: str, says: str) -> None:
    (run.path.parent / "other").mkdir(exist_ok=True)
    (run.path.parent / "other" / "config.yaml").write_text("secret: 1")
    before = sorted(path.name for path in run.path.iterdir())
    with pytest.raises(QueryError) as error:
        rows_of(run.path, query.replace("{run}", str(run.path).replace("'", "''")))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in run.path.iterdir()) == before


def test_a_query_may_be_explained(run: RunDirectory) -> None:
    for head in ("explain", "EXPLAIN ANALYZE", "explain (analyze, format json)"):
        assert rows_of(run.path, f"{head} select * from rollouts")


def test_pipes_and_links_are_left_out_and_the_rest_is_read(run: RunDirectory, tmp_path: Path) -> None:
    path = write_run(tmp_path / "one").path
    (tmp_path / "other.parquet").write_bytes((path / "rollouts" / "step-000000.parquet").read_bytes())
    (path / "rollouts" / "step-000008.parquet").symlink_to(tmp_path / "other.parquet")
    os.mkfifo(path / "rollouts" / "step-000009.parquet")
    (path / "ledger.jsonl").unlink()
    os.mkfifo(path / "ledger.jsonl")
    warnings: list[str] = []
    connection = connect(path, warn=warnings.append)
    assert list(execute(connection, "select count(distinct step) from rollouts")[1]) == [(3,)]
    assert [Path(warning.split(" was left out")[0]).name for warning in warnings] == [
        "step-000008.parquet",
        "step-000009.parquet",
        "ledger.jsonl",
    ]


def test_table_csv_and_json() -> None:
    names: list[str] = ["name", "n"]
    rows: list[list[object]] = [["a\x1b[31m\u202e", 10], ["表", None], ["b", 2.5]]
    out = io.StringIO()
    write_table(names, rows, out)
    assert out.getvalue().splitlines() == [
        "name" + " " * 15 + "n",
        "-" * 15 + "  ---",
        r"a\x1b[31m\u202e" + "   10",
        "表",
        "b" + " " * 16 + "2.5",
    ]
    out = io.StringIO()
    write_csv(names, [["a,\n", [1, 2]], ["\x1b", None]], out)
    assert list(csv.reader(io.StringIO(out.getvalue()))) == [names, ["a,\n", "[1,2]"], ["\\x1b", ""]]
    terminal = Terminal()
    write_csv(names, [["\x1b]0;owned\x07", 1]], terminal)
    assert terminal.getvalue() == "name,n\n\\x1b]0;owned\\x07,1\n"
    out = io.StringIO()
    write_json(names, [["\ud800", float("nan")], ["x", {"k": (1, None)}]], out)
    assert json.loads(out.getvalue()) == [{"name": "\ud800", "n": None}, {"name": "x", "n": {"k": [1, None]}}]
    out = io.StringIO()
    write_json(names, [], out)
    assert json.loads(out.getvalue()) == []


def test_csv_for_a_pipe_neither_steers_a_terminal_nor_computes_in_a_spreadsheet() -> None:
    cells = {
        "\x1b[2J\x1b]52;c;b3du\x07": r"\x1b[2J\x1b]52;c;b3du\x07",  # clears the screen, sets the clipboard
        "\x9b2J\x7f\r": r"\x9b2J\x7f\r",
        "two\nlines\tand a tab": "two\nlines\tand a tab",
        '=HYPERLINK("http://x")': '\'=HYPERLINK("http://x")',
        "@SUM(1)": "'@SUM(1)",
        "+1+cmd": "'+1+cmd",
        "-x": "'-x",
        "-1.5": "-1.5",
        "\tx": "'\tx",
        "\ud800": r"\ud800",
        "می\u200cخواهم 表": "می\u200cخواهم 表",
    }
    out = io.StringIO()
    write_csv(["=name", "n"], [[text, -1.5] for text in cells], out)
    out.getvalue().encode()
    read = list(csv.reader(io.StringIO(out.getvalue(), newline="")))
    assert read == [["'=name", "n"], *([shown, "-1.5"] for shown in cells.values())]


def test_the_format_follows_the_output(run: RunDirectory) -> None:
    pipe, terminal = io.StringIO(), Terminal()
    sql_command(run.path, "select 1 as one", None, pipe)
    sql_command(run.path, "select 1 as one", None, terminal)
    assert (pipe.getvalue(), terminal.getvalue()) == ("one\n1\n", "one\n---\n  1\n")


def test_long_tables_and_cells_are_cut() -> None:
    out = io.StringIO()
    write_table(["text"], [["x" * 100]] * 1500, out)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2 + 1000 + 1
    assert (lines[2], lines[-1].startswith("... more than 1000 rows")) == ("x" * 57 + "...", True)


def test_command_line(run: RunDirectory, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert (
        cli.main(["sql", str(run.path), "select count(*) as n from rollouts where step = 1", "--format", "json"]) == 0
    )
    assert json.loads(capsys.readouterr().out) == [{"n": 8}]
    assert cli.main(["sql", str(run.path), "select x"]) == 2
    assert capsys.readouterr().err.startswith("shoal: the query failed: Binder Error")
    assert cli.main(["sql", str(tmp_path), "select 1"]) == 2
    assert "has no file to ask" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="is no run directory"):
        sql_command(tmp_path / "nothing", "select 1", None, io.StringIO())
