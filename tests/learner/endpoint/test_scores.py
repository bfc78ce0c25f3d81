"""What a server says of completions, and all that it may say instead."""

import asyncio
import json
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.endpoint.client import teacher_client
from learner.endpoint.scores import token_logprobs
from learner.endpoint.worker import TeacherWorker
from learner.teacher import EndpointConfig, TeacherConfig
from learner.types import Taught
from rollout.endpoint import budget
from rollout.endpoint.client import EndpointError
from rollout.types import FinishReason, RolloutGroup
from tests.learner.endpoint.prompt_logprobs import scored
from tests.learner.samples import groups_of, save_toy_model, train_batch
from tests.rollout.endpoint.scripted_server import Reply, Script, ScriptedServer, serving

PROMPT, COMPLETION = (5, 6, 7), (8, 9)
GOOD = scored((*PROMPT, *COMPLETION), (-1.0, -2.0, -0.25, -0.5))


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FIRST_WAIT_S", 0.01)


def ask(server: ScriptedServer, api_key: str | None = None, **fields: Any) -> list[float]:
    async def asked() -> list[float]:
        client = teacher_client(server.base_url, EndpointConfig(**fields), api_key)
        try:
            return [float(x) for x in await token_logprobs(client, "m", PROMPT, COMPLETION)]
        finally:
            await client.close()

    return asyncio.run(asked())


def in_turn(*replies: Reply) -> Script:
    rest = list(replies)
    return lambda _path, _body: rest.pop(0) if len(rest) > 1 else rest[0]


def test_it_is_asked_for_the_tokens_and_gives_those_of_the_completion() -> None:
    with serving(in_turn(GOOD)) as server:
        assert ask(server, api_key="sesame") == [-0.25, -0.5]
    ((path, body, headers),) = server.requests
    assert path == "/v1/completions"
    assert body == {
        "model": "m",
        "prompt": [5, 6, 7, 8, 9],
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": 0,
    }
    assert headers["Authorization"] == "Bearer sesame"


def test_the_request_is_one_that_vllm_takes_and_the_answer_one_that_it_gives() -> None:
    protocol = pytest.importorskip("vllm.entrypoints.openai.completion.protocol")
    with serving(in_turn(GOOD)) as server:
        ask(server)
    request = protocol.CompletionRequest.model_validate(server.requests[0][1])
    assert (request.prompt, request.prompt_logprobs, request.max_tokens) == ([5, 6, 7, 8, 9], 0, 1)
    assert not request.model_extra
    answer = {**json.loads(GOOD[2]), "usage": {"prompt_tokens": 5, "total_tokens": 6, "completion_tokens": 1}}
    (choice,) = protocol.CompletionResponse.model_validate(answer).choices
    assert choice.prompt_logprobs[4][9].logprob == -0.5


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status: int) -> None:
    with serving(in_turn((status, {}, "busy"), (status, {}, "busy"), GOOD)) as server:
        assert ask(server) == [-0.25, -0.5]
    assert len(server.requests) == 3


def test_it_comes_back_no_sooner_than_it_is_told() -> None:
    with serving(in_turn((429, {"Retry-After": "1"}, ""), GOOD)) as server:
        started_s = time.monotonic()
        assert ask(server) == [-0.25, -0.5]
        assert time.monotonic() - started_s >= 1.0


@pytest.mark.parametrize(
    ("reply", "says", "num_requests"),
    [
        ((500, {}, "no\n memory"), r"gave no answer in 3 attempts, the last: status 500: no memory", 3),
        ((429, {"Retry-After": "9999"}, ""), r"asks to come back in 9999 s: status 429", 1),
        ((400, {}, "too long"), r"answered with status 400: too long", 1),
        ((302, {"Location": "http://elsewhere/"}, ""), r"answered with status 302", 1),
        ((200, {}, "<html>"), r"is no JSON: <html>", 1),
        ((200, {}, "[]"), r"has no choices\[0\].prompt_logprobs", 1),
        ((200, {}, '{"choices": [{"prompt_logprobs": null}]}'), r"has no choices\[0\].prompt_logprobs", 1),
        (scored((5, 6, 7, 8), (-1, -2, -3)), r"gave 4 log-probabilities for 5 tokens", 1),
        (scored((5, 6, 7, 8, 3), (-1, -2, -3, -4)), r"where a log-probability of token 9 was asked for", 1),
        (scored((5, 6, 7, 8, 9), (-1, -2, -3, float("nan"))), r"gave nan as the log-probability of token 9", 1),
        (scored((5, 6, 7, 8, 9), (-1, -2, -3, -float("inf"))), r"gave -inf as the log-probability of token 9", 1),
        (scored((5, 6, 7, 8, 9), (-1, -2, -3, 4.5)), r"gave 4.5 as the log-probability of token 9", 1),
    ],
)
def test_what_is_no_score_is_told(reply: Reply, says: str, num_requests: int) -> None:
    with serving(in_turn(reply)) as server, pytest.raises(EndpointError, match=says) as error:
        ask(server, max_attempts=3)
    assert not error.value.is_final
    assert len(server.requests) == num_requests


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_address_is_final_and_stays_so_on_its_way(status: int) -> None:
    with serving(in_turn((status, {}, "no"))) as server, pytest.raises(EndpointError) as error:
        ask(server, api_key="sesame")
    assert error.value.is_final
    assert "sesame" not in str(error.value)
    again = pickle.loads(pickle.dumps(error.value))  # our own
    assert (str(again), again.is_final) == (str(error.value), True)


def test_a_slow_server_and_none_at_all_are_given_up_at_the_deadline() -> None:
    def slow(_path: str, _body: Any) -> Reply:
        time.sleep(1.0)
        return GOOD

    with serving(slow) as server, pytest.raises(EndpointError, match=r"2 attempts, the last: no answer within 0.2 s"):
        ask(server, max_attempts=2, deadline_s=0.2)
    with pytest.raises(EndpointError, match=r"2 attempts, the last: ClientConnectorError"):
        ask(server, max_attempts=2)


def score(server: ScriptedServer, group: RolloutGroup, **fields: Any) -> tuple[Taught, RolloutGroup]:
    async def scored_group() -> tuple[Taught, RolloutGroup]:
        config = TeacherConfig(base_url=server.base_url, endpoint=EndpointConfig(**fields))
        worker = TeacherWorker(config, "m", None)
        await worker.ready()
        try:
            return await worker.score(group)
        finally:
            await worker.close()

    return asyncio.run(scored_group())


def test_the_numbers_are_those_of_the_same_model_as_a_teacher_of_its_own(tmp_path: Path) -> None:
    """The server computes them with transformers, the other side is what `teacher.path` computes."""
    import torch
    from transformers import AutoModelForCausalLM

    from learner.algorithm.batching import collate, tokens_of
    from learner.algorithm.plan import plan_step
    from learner.model.frozen import FrozenModel
    from learner.model.policy import build_policy
    from learner.model.teacher import AskedTeacher
    from tests.learner.samples import settings_of

    folder = save_toy_model(tmp_path / "teacher", tied=False, seed=1)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def answer(_path: str, body: Any) -> Reply:
        ids = body["prompt"]
        with torch.no_grad():
            logprobs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        return scored(ids, [float(logprobs[i, token]) for i, token in enumerate(ids[1:])])

    batch = train_batch(0)
    groups, taught = groups_of(batch), {}
    with serving(answer) as server:
        for name, group in groups.items():
            told, taught[name] = score(server, group)
            assert told.reason == ""
            assert told.finished_s >= told.started_s
    sequences = plan_step(batch, settings_of()).sequences
    tokens = collate(sequences, tokens_of(sequences, taught))
    own = FrozenModel(build_policy(folder, dtype="float32", gradient_checkpointing=False))
    expected = own.logprobs(tokens, 1.0).numpy()
    assert AskedTeacher().logprobs(tokens, 1.0).numpy() == pytest.approx(expected, abs=2e-5)
    assert len(expected) > 10


def test_a_group_is_scored_as_a_whole_or_not_at_all() -> None:
    group = next(iter(groups_of(train_batch(0)).values()))
    bad = len(group.prompt.token_ids) + group.completions[1].num_tokens

    def answer(_path: str, body: Any) -> Reply:
        ids: Sequence[int] = body["prompt"]
        return (400, {}, "not this one") if len(ids) == bad else scored(ids, [-1.0] * (len(ids) - 1))

    with serving(answer) as server:
        told, same = score(server, group, max_attempts=1)
    assert "status 400: not this one" in told.reason
    assert same == group
    assert all(len(completion.teacher_logprobs) == 0 for completion in same.completions)


def test_what_is_never_trained_on_is_not_asked_about_and_requests_at_a_time_are_bounded() -> None:
    from dataclasses import replace

    group = next(iter(groups_of(train_batch(0)).values()))
    first = replace(group.completions[0], finish_reason=FinishReason.ERROR)
    group = replace(group, completions=(first, *group.completions[1:]))
    running, most = [0], [0]

    def answer(_path: str, body: Any) -> Reply:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.1)
        running[0] -= 1
        return scored(body["prompt"], [-1.0] * (len(body["prompt"]) - 1))

    with serving(answer) as server:
        told, taught = score(server, group, max_requests=2)
    assert told.reason == ""
    assert len(server.requests) == len(group.completions) - 1
    assert most[0] <= 2
    assert [len(c.teacher_logprobs) for c in taught.completions] == [0, *(c.num_tokens for c in group.completions[1:])]
    again = pickle.loads(pickle.dumps(taught, protocol=5))  # our own
    assert again == taught
    assert all(
        np.array_equal(a.teacher_logprobs, b.teacher_logprobs)
        for a, b in zip(again.completions, taught.completions, strict=True)
    )
