"""A teacher's server is asked before anything starts; what can be told of it is told."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from cluster.commands.teacher_check import find_teacher
from cluster.commands.teacher_server import NUM_PROBE_TOKENS, PROBE_TEXT
from cluster.config import RunConfig
from cluster.configuration.loading import load_config
from cluster.configuration.plan import make_plan
from cluster.record.terminal import make_reporter
from learner.types import FoundTeacher
from rollout.errors import ConfigError, ModelError
from tests.learner.endpoint.prompt_logprobs import scored
from tests.rollout.byte_tokenizer import byte_tokenizer
from tests.rollout.endpoint.scripted_server import Reply, ScriptedServer, serving

KEY = "SHOAL_TEST_TEACHER_KEY"


def config_of(base_url: str, *overrides: str) -> RunConfig:
    own = [f"learner.teacher.base_url={base_url}", "learner.objective.kl.coef=0", "deterministic=false"]
    return load_config("tiny", [*own, "rollout.sampling.temperature=1", *overrides])


def answering(
    *,
    models: tuple[str, ...] = ("m",),
    limit: int | None = 65,
    tokens: Callable[[list[int]], list[int]] | None = lambda ids: ids,
    text: Callable[[int, str], str | None] = lambda _token, text: text,
) -> Callable[[str, Any], Reply]:
    """A server as vLLM's, with the tokenizer of bytes but for what is asked for."""
    tokenizer = byte_tokenizer()

    def answer(path: str, body: Any) -> Reply:
        if path == "/v1/models":
            return 200, {}, json.dumps({"data": [{"id": name, "max_model_len": limit} for name in models]})
        if path == "/tokenize":
            ids = tokenizer.encode(body["prompt"], add_special_tokens=False)
            return (404, {}, "no such door") if tokens is None else (200, {}, json.dumps({"tokens": tokens(ids)}))
        assert path == "/v1/completions", path
        ids = body["prompt"]
        texts = [text(token, tokenizer.decode([token])) for token in ids]
        return scored(ids, [-1.0] * (len(ids) - 1), texts)  # type: ignore[arg-type]

    return answer


def find(server: ScriptedServer, *overrides: str) -> FoundTeacher:
    return find_teacher(config_of(server.base_url, *overrides), byte_tokenizer(), 1, make_reporter())


def test_a_server_is_found_and_its_model_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sesame")
    with serving(answering()) as server:
        found = find(server, f"learner.teacher.endpoint.api_key_env={KEY}")
    assert found.served_model == "m"
    assert found.folders == {}
    assert found.fingerprint
    paths = [path for path, _, _ in server.requests]
    assert paths == ["/v1/models", "/tokenize", "/v1/completions"]
    assert {headers["Authorization"] for _, _, headers in server.requests} == {"Bearer sesame"}
    assert server.requests[1][1]["prompt"] == PROBE_TEXT
    probe = server.requests[2][1]["prompt"]
    assert max(probe) == max(byte_tokenizer().get_vocab().values())
    assert NUM_PROBE_TOKENS // 2 < len(probe) <= NUM_PROBE_TOKENS + 1


def test_another_model_there_is_another_teacher() -> None:
    with serving(answering(models=("m", "n"))) as server:
        both = [find(server, f"learner.teacher.endpoint.model={name}") for name in ("m", "n")]
    assert [found.served_model for found in both] == ["m", "n"]
    assert both[0].fingerprint != both[1].fingerprint


def test_a_server_whose_tokenizer_cannot_be_asked_is_taken_by_its_tokens() -> None:
    with serving(answering(tokens=None, text=lambda _token, _text: None)) as server:
        assert find(server).served_model == "m"


@pytest.mark.parametrize(
    ("given", "overrides", "says"),
    [
        ({"models": ("a", "b")}, [], r"it has 2 models, \['a', 'b'\]: set learner.teacher.endpoint.model"),
        ({}, ["learner.teacher.endpoint.model=x"], r"it has \['m'\], and learner.teacher.endpoint.model is 'x'"),
        ({"limit": 64}, [], r"m reads 64 tokens at most there, and model.max_context_tokens is 64: it must read one"),
        ({"tokens": lambda ids: [*ids[:7], 0]}, [], r"tokenizer is not the policy's: a text of \d+ tokens has 8 there"),
        ({"tokens": lambda ids: ids[:-1]}, [], r"tokenizer is not the policy's: a text of \d+ tokens"),
        (
            {"text": lambda _token, text: "#" if text.isalnum() else text, "tokens": None},
            [],
            r"tokenizer is not the policy's: token \d+ is '\w' here and '#' there",
        ),
    ],
)
def test_what_is_of_no_use_is_told(given: dict[str, Any], overrides: list[str], says: str) -> None:
    with serving(answering(**given)) as server, pytest.raises(ModelError, match=says) as error:
        find(server, *overrides)
    assert str(error.value).startswith(f"learner.teacher.base_url is {server.base_url!r}, which is of no use: ")


def test_nobody_there_and_no_key_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answering()) as server:
        pass
    with pytest.raises(ModelError, match=r"which is of no use: .*/models gave no answer in 1 attempt, the last: "):
        find(server, "learner.teacher.endpoint.max_attempts=1")
    monkeypatch.delenv(KEY, raising=False)
    with pytest.raises(ConfigError, match=rf"api_key_env is {KEY}, and the environment has nothing under that name"):
        find(server, f"learner.teacher.endpoint.api_key_env={KEY}")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["learner.teacher.kind=reverse"],
            "base_url is a server, which tells the log-probability of the sampled token",
        ),
        (["rollout.sampling.temperature=0.8"], "rollout.sampling.temperature is 0.8 and learner.teacher.base_url"),
        (["deterministic=true"], "deterministic is true and learner.teacher.base_url is a server"),
        (["learner.teacher.path=a"], "got path and base_url"),
        (["learner.teacher.base_url=host:8000"], "expected an address such as http://host:8000/v1"),
        (["learner.teacher.base_url=http://me:secret@host/v1"], "set endpoint.api_key_env to a variable with a key"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_of("http://host:8000/v1", *overrides)
    assert says in str(error.value)
    assert "secret@" not in str(error.value)


def test_the_plan_has_a_process_that_asks_and_no_memory() -> None:
    plan = make_plan(config_of("http://host:8000/v1/"))
    assert [process.count for process in plan.processes if process.role.startswith("teacher")] == [1]
    assert not [part for part in plan.memory if "teacher" in part.what]
    assert config_of("http://host:8000/v1/").learner.teacher.base_url == "http://host:8000/v1"  # type: ignore[union-attr]
