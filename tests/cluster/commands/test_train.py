"""What a run reads before it starts: the prompts that it trains on follow from what a resume may not change."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cluster.commands import inputs as reading
from cluster.commands.inputs import Inputs, read_inputs
from cluster.commands.resume import CHANGEABLE, resume_config
from cluster.config import RunConfig
from cluster.configuration.loading import load_config
from cluster.record.run_directory import RunDirectory
from cluster.record.terminal import make_reporter
from learner.teacher import TeacherConfig
from rollout.errors import ConfigError, DataError
from rollout.prompts.stream import PromptStream
from tests.rollout.byte_tokenizer import CHAT_TEMPLATE, byte_tokenizer

Read = Callable[[RunConfig], Inputs]


def write(path: Path, questions: Sequence[str]) -> str:
    path.write_text("".join(json.dumps({"question": question, "answer": "1"}) + "\n" for question in questions))
    return str(path)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Read:
    """`read_inputs` without a model: prompts are all that is looked at."""
    monkeypatch.setattr(reading, "resolve_model", lambda *_, **__: tmp_path)
    monkeypatch.setattr(reading, "check_model", lambda *_: len(byte_tokenizer()))
    monkeypatch.setattr(reading, "model_fingerprint", lambda _: "model")
    monkeypatch.setattr(reading, "tokenizer_fingerprint", lambda _: "tokenizer")
    monkeypatch.setattr(reading, "load_tokenizer", lambda *_, **__: byte_tokenizer())
    return lambda config: read_inputs(config, make_reporter())


def overlapping(tmp_path: Path) -> RunConfig:
    """Six questions, of which the evaluation task holds out two, written in another way."""
    rows = write(tmp_path / "rows.jsonl", [f"q{n}" for n in range(6)])
    held_out = write(tmp_path / "held_out.jsonl", ["Q0 ", "q3"])
    task = json.dumps({"kind": "jsonl", "path": rows, "eval_fraction": 0})
    eval_task = json.dumps({"kind": "jsonl", "path": rows, "eval_path": held_out})
    return load_config("tiny", [f"task={task}", f"eval_task={eval_task}", "eval.num_prompts=1"])


def test_no_question_that_could_be_evaluated_is_trained_on(read: Read, tmp_path: Path) -> None:
    inputs = read(overlapping(tmp_path))
    assert [prompt.question for prompt in inputs.train.prompts] == ["q1", "q2", "q4", "q5"]
    assert [prompt.index for prompt in inputs.train.prompts] == [0, 1, 2, 3]
    assert len(inputs.eval_prompts) == 1


@pytest.mark.parametrize(
    "changes",
    [
        ["eval.num_prompts=2"],
        ["eval.at_start=false", "eval.at_end=false"],
        ["eval.sampling.max_tokens=50"],
        ["steps=80", "recovery.max_attempts=1", "checkpoint.every=1", "weight_sync.chunk_mib=1", "trackers.wandb=true"],
    ],
)
def test_what_may_change_on_resume_changes_no_prompt(read: Read, tmp_path: Path, changes: list[str]) -> None:
    config = overlapping(tmp_path)
    run = RunDirectory.create(tmp_path / "run", config)
    inputs, resumed = read(config), read(resume_config(run.path, None, changes))
    assert resumed.fingerprints.data == inputs.fingerprints.data == inputs.train.fingerprint
    stream = PromptStream(inputs.train, seed=config.seed)
    asked = [stream.next() for _ in range(3)]
    again = PromptStream.restore(resumed.train, stream.state())
    rest = [again.next() for _ in range(5)]
    assert sorted(prompt.question for prompt in [*asked, rest[0]]) == ["q1", "q2", "q4", "q5"], "each once in an epoch"
    assert rest == [stream.next() for _ in range(5)]


def test_the_fingerprint_is_of_the_prompts_that_are_trained_on(read: Read, tmp_path: Path) -> None:
    config = overlapping(tmp_path)
    before = read(config).fingerprints.data
    write(tmp_path / "held_out.jsonl", ["q0", "q4"])
    assert read(config).fingerprints.data != before


def test_every_key_that_may_change_is_a_key() -> None:
    below = {f"learner.teacher.{key}" for key in TeacherConfig.model_fields}
    assert set(CHANGEABLE) <= {*RunConfig.model_fields, *below}


def test_what_a_person_should_know_of_prompts_is_told_at_once_and_kept(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_system = CHAT_TEMPLATE.replace("%}<|{{", "if m['role'] != 'system' %}<|{{", 1)
    monkeypatch.setattr(reading, "load_tokenizer", lambda *_, **__: byte_tokenizer(no_system))
    inputs = read(
        load_config(
            "tiny", ["task.system_prompt=Be brief.", 'rollout.sampling.stop=["x"]', "model.max_context_tokens=200"]
        )
    )
    left_out, elsewhere = inputs.warnings
    assert "the model's chat template leaves out the system turn (task.system_prompt)" in left_out
    assert elsewhere.startswith("eval.sampling does not stop at 'x'")
    said = capsys.readouterr()
    assert left_out[:60] in said.out + said.err


def mix(tmp_path: Path, *changes: str) -> RunConfig:
    """Two tasks to train on that share questions, each of which holds out what the other has, and one to evaluate."""
    a = write(tmp_path / "a.jsonl", ["q0", "q1", "q2", "q3"])
    b = write(tmp_path / "b.jsonl", ["Q0 ", "q1", "b2", "b3", "b4"])
    c = write(tmp_path / "c.jsonl", ["b4", "c1"])
    tasks = [
        {"kind": "jsonl", "name": "a", "path": a, "eval_path": write(tmp_path / "a_eval.jsonl", ["b2", "a9"])},
        {"kind": "jsonl", "name": "b", "path": b, "eval_path": write(tmp_path / "b_eval.jsonl", ["Q3"])},
        {"kind": "jsonl", "name": "c", "path": c, "eval_path": c},
    ]
    task = {"kind": "mix", "tasks": tasks, "weights": {"b": 2, "c": 0}}
    return load_config("tiny", [f"task={json.dumps(task)}", "eval.num_prompts=1", *changes])


def test_no_task_of_a_mix_trains_on_what_another_holds_out(read: Read, tmp_path: Path) -> None:
    inputs = read(mix(tmp_path))
    asked = [(prompt.task, prompt.question) for prompt in inputs.train.prompts]
    # Both may train on q0 and q1; q3 is held out by b, b2 by a, and b4 by c, which is not trained on.
    assert asked == [("a", "q0"), ("a", "q1"), ("a", "q2"), ("b", "Q0 "), ("b", "q1"), ("b", "b3")]
    assert [prompt.index for prompt in inputs.train.prompts] == list(range(6))
    assert [(prompt.index, prompt.task) for prompt in inputs.eval_prompts] == [(0, "a"), (1, "b"), (2, "c")]
    assert len({prompt.group_id for prompt in inputs.eval_prompts}) == 3


def test_a_task_of_a_mix_that_holds_nothing_out_is_trained_on_alone(read: Read, tmp_path: Path) -> None:
    config = mix(tmp_path, "task.tasks.0.eval_path=null", "task.tasks.0.eval_fraction=0")
    assert {prompt.task for prompt in read(config).eval_prompts} == {"b", "c"}


def test_several_tasks_may_be_evaluated_and_one_be_trained_on(read: Read, tmp_path: Path) -> None:
    of_mix = mix(tmp_path).task.model_dump(mode="json")
    rows = write(tmp_path / "rows.jsonl", ["q3", "c1", "q9"])
    task = {"kind": "jsonl", "path": rows, "eval_fraction": 0}
    inputs = read(load_config("tiny", [f"task={json.dumps(task)}", f"eval_task={json.dumps(of_mix)}"]))
    assert [prompt.question for prompt in inputs.train.prompts] == ["q9"]
    assert {prompt.task for prompt in inputs.eval_prompts} == {"a", "b", "c"}


def test_each_task_has_the_reward_that_is_for_it(read: Read, tmp_path: Path) -> None:
    reward = [{"function": "math", "tasks": ["a", "c"]}, {"function": "exact_match", "tasks": ["b"]}]
    read(mix(tmp_path, f"reward.functions={json.dumps(reward)}"))
    with pytest.raises(DataError, match=r"no component of the reward is for it \(its task is 'b'\)"):
        read(mix(tmp_path, f"reward.functions={json.dumps(reward[:1])}"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("task.tasks.1.name=a", "task: two tasks are named 'a': give one of them another `name`"),
        ("task.tasks.1.name=x/y", "task: a task is named 'x/y', and the name stands in those of metrics"),
        ("task.weights.d=1", "task: weights has 'd', which is no task; the tasks are a, b, c"),
        ("task.weights={a: 0, b: 0, c: 0}", "task: the weights of all tasks are 0"),
        ("task.weights.a=-1", "task.weights.a: got -1, allowed: greater than or equal to 0"),
        ("task.tasks=[]", "task: a mix has no task; give it at least one in `tasks`"),
    ],
)
def test_a_mix_that_cannot_be_is_refused_at_once(tmp_path: Path, change: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        mix(tmp_path, change)
    assert sentence in str(caught.value)
