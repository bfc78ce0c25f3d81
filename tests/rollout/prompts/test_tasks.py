"""Splits, duplicates, fingerprints, and the two built-in tasks."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.config import Gsm8kTask, JsonlTask, ReasoningGymTask, task_name
from rollout.errors import DataError
from rollout.prompts.reasoning_gym import _draw, _entries, generate
from rollout.prompts.tasks import held_out_questions, is_held_out, load_rows
from rollout.prompts.usable_rows import final_answer


def write(path: Path, questions: Sequence[str]) -> str:
    path.write_text("".join(json.dumps({"question": q, "answer": str(i)}) + "\n" for i, q in enumerate(questions)))
    return str(path)


def questions_of(task: JsonlTask | ReasoningGymTask | Gsm8kTask, split: str) -> list[str]:
    rows = load_rows(task, split="train" if split == "train" else "eval")
    return [row.question_text for row in rows.rows]


def sums(count: int) -> list[str]:
    return [f"What is {n} + {n + 1}?" for n in range(count)]


def test_a_question_that_comes_twice_is_kept_once(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ["a?", "b?", "a?", "A?", "a?"])
    rows = load_rows(JsonlTask(path=path, eval_fraction=0), split="train")
    # "A?" is another question: case may be what a task is about.
    assert [(row.question, row.ground_truth) for row in rows.rows] == [("a?", "0"), ("b?", "1"), ("A?", "3")]
    assert rows.num_duplicates == 2
    assert rows.num_skipped == 0


def test_the_hash_splits_without_overlap_in_the_asked_proportion(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", sums(2000))
    task = JsonlTask(path=path, eval_fraction=0.25)
    train, held_out = questions_of(task, "train"), questions_of(task, "eval")
    assert set(train).isdisjoint(held_out)
    assert len(train) + len(held_out) == 2000
    # 2000 draws at 0.25: standard deviation 19.4; the hash is fixed, so this cannot flake.
    assert abs(len(held_out) - 500) < 60
    other_salt = questions_of(JsonlTask(path=path, eval_fraction=0.25, split_salt="other"), "eval")
    assert 60 < len(set(other_salt) & set(held_out)) < 200  # 125 expected by chance


def test_a_larger_fraction_holds_out_the_same_questions_and_more() -> None:
    small, large = (JsonlTask(path="unused", eval_fraction=fraction) for fraction in (0.1, 0.3))
    held_small, held_large = ({q for q in sums(500) if is_held_out(q, task)} for task in (small, large))
    assert held_small < held_large


@settings(max_examples=50, deadline=None)
@given(
    question=st.text(st.characters(exclude_categories=["Cs"])), salt=st.text(st.characters(exclude_categories=["Cs"]))
)
def test_blanks_around_a_question_do_not_move_it(question: str, salt: str) -> None:
    task = JsonlTask(path="unused", eval_fraction=0.5, split_salt=salt)
    assert is_held_out(question, task) == is_held_out(f"  {question} \n", task)


def test_questions_that_differ_in_case_blanks_or_width_fall_on_the_same_side() -> None:
    task = JsonlTask(path="unused", eval_fraction=0.5)
    sides = {is_held_out(q, task) for q in ("What is 1 + 2?", "what  is 1 + 2? ", "What is １ + ２?")}
    assert len(sides) == 1


def test_the_split_does_not_depend_on_order_or_on_other_rows(tmp_path: Path) -> None:
    whole = JsonlTask(path=write(tmp_path / "whole.jsonl", sums(200)))
    part = JsonlTask(path=write(tmp_path / "part.jsonl", sums(200)[::-2]))
    held_out = set(questions_of(whole, "eval"))
    assert set(questions_of(part, "eval")) == held_out & set(sums(200)[::-2])


def test_training_leaves_out_the_questions_of_an_evaluation_file(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", sums(10))
    eval_path = write(tmp_path / "eval.jsonl", ["what is 3 +  4?", sums(10)[7], "Another?"])
    task = JsonlTask(path=path, eval_path=eval_path)
    rows = load_rows(task, split="train")
    assert rows.num_in_eval == 2
    assert [row.question for row in rows.rows] == [q for n, q in enumerate(sums(10)) if n not in (3, 7)]
    assert len(load_rows(task, split="eval").rows) == 3


def test_training_leaves_out_what_another_task_holds_out_by_one_normal_form(tmp_path: Path) -> None:
    task = JsonlTask(path=write(tmp_path / "rows.jsonl", ["q0", "q1", "Ｑ2", "q3"]), eval_fraction=0)
    other = write(tmp_path / "other.jsonl", ["Q0 ", "q2"])
    overlapping = JsonlTask(path=write(tmp_path / "x.jsonl", ["x"]), eval_path=other)
    rows = load_rows(task, split="train", held_out=held_out_questions([overlapping]))
    assert [row.question for row in rows.rows] == ["q1", "q3"]
    assert rows.num_in_eval == 2
    elsewhere = JsonlTask(path=write(tmp_path / "y.jsonl", ["y"]), eval_fraction=0.5)
    apart = load_rows(task, split="train", held_out=held_out_questions([elsewhere]))
    assert apart.fingerprint == load_rows(task, split="train").fingerprint != rows.fingerprint
    with pytest.raises(DataError, match="all 2 questions are evaluation questions too"):
        load_rows(
            JsonlTask(path=other, eval_fraction=0),
            split="train",
            held_out=held_out_questions([JsonlTask(path=other, eval_path=other)]),
        )


def test_an_empty_split_says_what_to_change(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", sums(5))
    with pytest.raises(DataError, match=r"holds out no question.*eval_fraction 0\.0.*raise"):
        load_rows(JsonlTask(path=path, eval_fraction=0), split="eval")
    with pytest.raises(DataError, match=r"all its questions.*eval_fraction 0\.99.*lower"):
        load_rows(JsonlTask(path=path, eval_fraction=0.99), split="train")
    with pytest.raises(DataError, match="all 5 questions are evaluation questions too"):
        load_rows(JsonlTask(path=path, eval_path=path), split="train")


def test_the_fingerprint_follows_the_rows(tmp_path: Path) -> None:
    def fingerprint(name: str, questions: Sequence[str]) -> str:
        task = JsonlTask(path=write(tmp_path / name, questions), eval_fraction=0)
        return load_rows(task, split="train").fingerprint

    first = fingerprint("a.jsonl", ["a", "b"])
    assert len(first) == 64
    assert fingerprint("other_name.jsonl", ["a", "b"]) == first
    assert fingerprint("b.jsonl", ["a", "c"]) != first
    assert fingerprint("c.jsonl", ["b", "a"]) != first


def test_conversations_are_questions_too(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "1+1?"},
    ]
    lines = [
        {"question": turns, "answer": "2"},
        {"question": turns[:1], "answer": "x"},
        {"question": "Hi", "answer": "y"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = load_rows(JsonlTask(path=str(path), eval_fraction=0), split="train")
    assert [row.question_text for row in rows.rows] == ["user: Hi\n\nassistant: Hello\n\nuser: 1+1?", "Hi"]
    assert rows.num_duplicates == 1  # a single user turn is the same question as its text


def test_names_of_tasks() -> None:
    assert task_name(JsonlTask(path="data/sums.jsonl")) == "sums"
    assert task_name(ReasoningGymTask(generator="chain_sum")) == "chain_sum"
    assert task_name(Gsm8kTask(name="school")) == "school"


def test_reasoning_gym_gives_the_same_rows_again() -> None:
    task = ReasoningGymTask(generator="chain_sum", params={"max_terms": 2, "max_digits": 1}, size=300)
    rows = load_rows(task, split="train")
    _draw.cache_clear()
    assert load_rows(task, split="train").fingerprint == rows.fingerprint
    assert load_rows(task.model_copy(update={"data_seed": 1}), split="train").fingerprint != rows.fingerprint
    assert rows.num_duplicates > 50  # one-digit sums and differences: 300 draws from fewer than 200
    assert set(questions_of(task, "eval")).isdisjoint(questions_of(task, "train"))
    first = rows.rows[0]
    assert first.columns["answer"] == first.ground_truth
    assert first.columns["question"] == first.question
    assert json.loads(json.dumps(first.columns)) == first.columns
    metadata = first.columns["metadata"]
    assert isinstance(metadata, dict)
    assert str(eval(metadata["expression"])) == first.ground_truth


@pytest.mark.integration
@pytest.mark.parametrize("generator", ["list_functions", "word_ladder"])
def test_generators_that_are_not_reproducible_by_themselves(generator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # list_functions draws from the global random state, word_ladder walks through a set of words.
    task = ReasoningGymTask(generator=generator, size=4, eval_fraction=0)
    fingerprints = set()
    for hash_seed in ("1", "2"):
        monkeypatch.setenv("PYTHONHASHSEED", hash_seed)
        _draw.cache_clear()
        fingerprints.add(load_rows(task, split="train").fingerprint)
    assert len(fingerprints) == 1


def test_a_generator_that_does_not_come_back_has_a_deadline() -> None:
    task = ReasoningGymTask(generator="chain_sum", size=10_000_000)
    with pytest.raises(DataError, match=r"reasoning_gym/chain_sum did not give 10000000 rows within 0\.5 s"):
        generate(task, deadline_s=0.5)


def test_reasoning_gym_answers_that_only_the_generator_knows_are_none() -> None:
    rows = load_rows(ReasoningGymTask(generator="graph_color", size=5), split="train")
    assert {row.ground_truth for row in rows.rows} == {None}


def test_an_unknown_generator_names_the_close_ones() -> None:
    with pytest.raises(DataError, match=r"no generator 'chain_sums'; did you mean 'chain_sum'"):
        load_rows(ReasoningGymTask(generator="chain_sums"), split="train")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"nope": 1}, "unexpected keyword argument 'nope'"),
        ({"min_terms": 5, "max_terms": 2}, "max_terms must be >= min_terms"),
        ({"min_terms": "two"}, "refuses params"),
        ({"seed": 3}, "set task.data_seed instead"),
    ],
)
def test_parameters_that_a_generator_refuses(params: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        next(_entries(ReasoningGymTask(generator="chain_sum", params=params)))


def test_gsm8k_final_answers() -> None:
    assert final_answer("She has 2 #### no.\n#### 1,234") == "1234"
    assert final_answer("So\n#### -5 ") == "-5"
    for solution in ("no mark: 5", "#### ", ""):
        with pytest.raises(ValueError, match="no final answer"):
            final_answer(solution)


def gsm8k_folder() -> Path:
    root = os.environ.get("SHOAL_DATA") or Path(__file__).parents[4] / "shared" / "data"
    folder = Path(root) / "gsm8k"
    if not folder.is_dir():
        pytest.skip(f"no GSM8K rows in {folder}; set SHOAL_DATA to a folder that has gsm8k/train.jsonl")
    return folder


def test_gsm8k_has_its_official_rows() -> None:
    task = Gsm8kTask(path=str(gsm8k_folder()))
    train, test = load_rows(task, split="train"), load_rows(task, split="eval")
    assert (len(train.rows), len(test.rows)) == (7473, 1319)
    assert (train.num_in_eval, train.num_duplicates, train.num_skipped) == (0, 0, 0)
    assert train.rows[0].ground_truth == "72"
    assert str(train.rows[0].columns["answer"]).endswith("#### 72")
    answers = [row.ground_truth for row in (*train.rows, *test.rows)]
    assert all(answer is not None and answer.removeprefix("-").isdigit() for answer in answers)


def test_gsm8k_never_trains_on_a_test_question(tmp_path: Path) -> None:
    rows = [json.dumps({"question": q, "answer": f"so\n#### {n},000"}) + "\n" for n, q in enumerate("abc")]
    (tmp_path / "train.jsonl").write_text("".join(rows))
    (tmp_path / "test.jsonl").write_text(rows[1])
    train = load_rows(Gsm8kTask(path=str(tmp_path)), split="train")
    assert [(row.question, row.ground_truth) for row in train.rows] == [("a", "0000"), ("c", "2000")]
    assert train.num_in_eval == 1
    with pytest.raises(DataError, match="is no folder"):
        load_rows(Gsm8kTask(path=str(tmp_path / "train.jsonl")), split="train")
