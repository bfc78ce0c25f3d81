"""Queries against SQLite: results, order, what a query may not do, and its bounds."""

import sqlite3
import time
import tracemalloc
from pathlib import Path

import pytest

from reward.config import RewardConfig
from reward.row_checks import bad_rows
from reward.rules.sql import is_sorted, query_of, sql
from reward.rules.sqlite_query import Database, QueryError, QueryLimits, comparable, run_query
from tests.reward.samples import item, prompt

SCHEMA = """
    create table person (id integer primary key, name text, age integer, score real);
    insert into person values (1, 'Ann', 30, 0.1), (2, 'Bo', 25, 0.2), (3, 'Cy', 30, 0.3), (4, 'Di', null, null);
"""
ROW = {"schema": SCHEMA}
SMALL = QueryLimits(steps=200_000, rows=100)


def test_results_are_compared_and_the_record_says_why_not() -> None:
    truth = "select name from person where age = 30"
    answers = {
        "SELECT name FROM person WHERE age = 30": (1.0, "the same rows"),
        "select name from person where age > 25 order by id desc": (1.0, "the same rows"),
        "```sql\nselect p.name as n from person p where p.age = 30;\n```": (1.0, "the same rows"),
        "<answer>select name from person where id in (1, 3)</answer>": (1.0, "the same rows"),
        "select name from person where age = 25": (0.0, "1 rows, expected 2"),
        "select name, age from person where age = 30": (0.0, "2 columns, expected 1"),
        "select name from person where id < 3": (0.0, "1 of 2 rows are others"),
        "select name from persons": (0.0, "the query failed: no such table: persons"),
        "selec": (0.0, 'the query failed: near "selec": syntax error'),
        "": (0.0, "no query"),
        "select 1; select 2": (0.0, "the query failed: You can only execute one statement at a time."),
        "select 'Ann' union all select 'Ann'": (0.0, "1 of 2 rows are others"),
    }
    found = {answer: sql(item(answer, truth, row=ROW)) for answer in answers}
    assert {answer: (score, score.detail) for answer, score in found.items()} == answers


def test_order_counts_where_the_truth_sorts() -> None:
    truth = "select name from person where age is not null order by age, name"
    right, other = "select name from person where id < 4 order by age, id", "select name from person where id < 4"
    assert [sql(item(text, truth, row=ROW)) for text in (right, other)] == [1.0, 0.0]
    assert sql(item(other, truth, row=ROW)).detail == "the rows are in another order"
    assert sql(item(other, truth, row=ROW), order="never") == 1.0
    plain = "select name from person where id < 4"
    reverse = "select name from person where id < 4 order by id desc"
    assert [sql(item(reverse, plain, row=ROW), order=order) for order in ("auto", "always")] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("select a from t order by a", True),
        ("select a from t ORDER\n BY a limit 1", True),
        ("select a from (select a from t order by a)", False),
        ("select 'order by' from t", False),
        ('select "order by" from t -- order by a', False),
        ("select a, row_number() over (order by b) from t", False),
        ("select reorder by", False),
    ],
)
def test_is_sorted(query: str, expected: bool) -> None:
    assert is_sorted(query) is expected


def test_equal_numbers_are_equal() -> None:
    assert comparable((1, 0.1 + 0.2, None, "1", b"1")) == comparable((1.0, 0.3, None, "1", b"1"))
    assert comparable((1,)) != comparable(("1",))
    assert comparable((1234567890,)) != comparable((1234567891,))
    assert comparable((1234567890,)) == comparable((1234567890.0,))
    assert comparable((0.0,)) == comparable((-0.0,))
    assert comparable((2**60,)) != comparable((2**60 + 1,))
    formatted = "select printf('%.2f', 2.5), format('%s-%03d', 'a', 7)"
    assert run_query(Database(script=SCHEMA), formatted, SMALL) == [("2.50", "a-007")]
    # 0.1 + 0.2 + 0.3 is 0.6000000000000001, and the other way round 0.6.
    total = "select sum(score) from person"
    assert sql(item("select 0.6", total, row=ROW)) == 1.0


@pytest.mark.parametrize(
    "query",
    [
        "insert into person values (9, 'x', 1, 1)", "delete from person", "drop table person", "update person set id=1",
        "create table t (a)", "pragma query_only = off", "attach database '/tmp/x.db' as x", "vacuum",
        "select load_extension('x')", "begin", "create temp table t (a)", "pragma table_info(person)",
        "select writefile('/tmp/x', 'a')", "select * from pragma_database_list",
    ],
)  # fmt: skip
def test_a_query_can_only_read(query: str) -> None:
    database = Database(script=SCHEMA)
    with pytest.raises(QueryError):
        run_query(database, query, SMALL)
    assert run_query(database, "select count(*), sum(age) from person", SMALL) == [(4, 85)]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("with recursive n(x) as (select 1 union all select x + 1 from n) select count(*) from n", "200000 steps"),
        ("with recursive n(x) as (select 1 union all select x + 1 from n limit 1000) select x from n", "100 rows"),
        ("select count(*) from person a, person b, person c, person d, person e, person f, person g, person h, "
         "person i", "200000 steps"),
        ("select zeroblob(2000000000)", "too big"),
        ("select printf('%.*c', 2000000000, 'x')", "user-defined function raised exception"),
        ("select format('%2000000000d', 1)", "user-defined function raised exception"),
        ("select hex(zeroblob(200000))", "too big"),
        ("select instr(hex(zeroblob(130000)), hex(zeroblob(65000)) || '1') from person a, person b where 0 = 1 "
         "union all select zeroblob(300000)", "too big"),
        ("with recursive n(x, y) as (select 1, randomblob(250000) union all select x + 1, randomblob(250000) from n "
         "limit 5000) select count(*) from (select y from n order by y)", ""),
        ("select 1 " + "union select 1 " * 5000, ""),
        ("select " + "(" * 5000 + "1" + ")" * 5000, ""),
    ],
)  # fmt: skip
def test_a_query_has_bounds(query: str, why: str) -> None:
    started_s = time.process_time()
    with pytest.raises(QueryError, match=why):
        run_query(Database(script=SCHEMA), query, SMALL)
    assert time.process_time() - started_s < 5.0
    assert run_query(Database(script=SCHEMA), "select 1", SMALL) == [(1,)]


def test_rows_take_no_more_memory_than_they_may() -> None:
    limits = QueryLimits(steps=100_000_000, rows=10_000)
    many = "with recursive n(x) as (select 1 union all select x + 1 from n limit {}) select {} from n"
    for value in ("zeroblob(200000)", "hex(zeroblob(100000))"):
        tracemalloc.start()
        try:
            with pytest.raises(QueryError, match="its rows take more than 64 MiB of memory"):
                run_query(Database(script=SCHEMA), many.format(9000, value), limits)
            assert tracemalloc.get_traced_memory()[1] < 80 * 2**20
        finally:
            tracemalloc.stop()
        assert len(run_query(Database(script=SCHEMA), many.format(50, value), limits)) == 50
    # 9000 rows of 500 numbers are 4.5 million objects of 24 bytes.
    with pytest.raises(QueryError, match="its rows take more than 64 MiB of memory"):
        run_query(Database(script=SCHEMA), many.format(9000, ", ".join(["1.5"] * 500)), limits)


def test_a_file_of_which_the_row_has_the_name(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    with sqlite3.connect(tmp_path / "a b" / "zoo.sqlite") as connection:
        connection.executescript(SCHEMA)
    seen = item("select max(age) from person", "select 30", row={"db": {"id": "zoo"}})
    place = str(tmp_path / "a b" / "{db.id}.sqlite")
    assert sql(seen, database=place) == 1.0
    with pytest.raises(ValueError, match=r"there is no database '.*park.sqlite'"):
        sql(item("select 1", "select 30", row={"db": {"id": "park"}}), database=place)
    (tmp_path / "text.sqlite").write_text("no database at all, but long enough to be read as one" * 100)
    with pytest.raises(ValueError, match="the database cannot be opened"):
        sql(item("select 1", "select 30"), database=str(tmp_path / "text.sqlite"))


def test_where_the_query_is_read_from() -> None:
    assert query_of("<think>select 1</think>```sql\nselect 2\n```\nor\n```sqlite\nselect 3;\n```") == "select 3;"
    assert query_of("```python\nx\n```\n```\nselect 2\n```") == "select 2"
    assert query_of("```sql\nselect 2") == "select 2"
    assert query_of(" select 2 ") == "select 2"


def test_rows_that_cannot_be_scored() -> None:
    config = RewardConfig.model_validate({"functions": [{"function": "sql"}]})
    row: dict[str, object] = {"schema": SCHEMA}
    rows = [
        prompt("select 1", row), prompt(None, row), prompt("select", row), prompt("select 1 where 0", row),
        prompt("select 1", {}), prompt("select 1", {"schema": "create tabel"}),
    ]  # fmt: skip
    found = bad_rows(config, rows)
    assert sorted(found) == [1, 2, 3, 4, 5]
    assert found[1] == "sql: it needs a query as ground truth, and the row has none"
    assert found[2] == "sql: the ground truth's query failed: incomplete input"
    assert found[3].startswith("sql: the ground truth's query gives no rows, so that every query without rows")
    assert found[4].startswith("sql: column 'schema' has no SQL that makes the tables; name the column as script_col")
    assert found[5] == 'sql: the database cannot be opened: near "tabel": syntax error'
