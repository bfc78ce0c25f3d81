"""Limits, measured at the server, and what becomes of answers that are none."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from reward.judging.asked import AskedFunctions, AskingSite
from reward.judging.config import ServerLimits
from reward.types import RewardOutcome
from rollout.endpoint import budget
from rollout.errors import ConfigError
from tests.reward.judging.asking import items, judge, judged
from tests.reward.judging.scripted_judge import asked_of, judging, reply
from tests.rollout.endpoint.scripted_server import Reply, Script, serving

OK, ERROR, TIMEOUT, INVALID = RewardOutcome.OK, RewardOutcome.ERROR, RewardOutcome.TIMEOUT, RewardOutcome.INVALID
GOOD: Script = judging(lambda asked: asked.says(score=5))


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FIRST_WAIT_S", 0.02)


def in_turn(*replies: Reply | Script) -> Script:
    """The last one again and again."""
    rest, lock = list(replies), threading.Lock()

    def script(path: str, body: Any) -> Reply:
        with lock:
            one = rest.pop(0) if len(rest) > 1 else rest[0]
        return one(path, body) if callable(one) else one

    return script


def slow(seconds: float) -> Script:
    def script(path: str, body: Any) -> Reply:
        time.sleep(seconds)
        return GOOD(path, body)

    return script


def test_requests_at_once_are_bounded_over_all_groups() -> None:
    groups = [items(*(f"{group} {place}" for place in range(6))) for group in range(3)]
    with serving(slow(0.05)) as server:
        found = judged(judge(server.base_url, limits={"requests_at_once": 4}), *groups)
    assert [answer.value for one in found for answer in one.answers] == [0.5] * 18
    assert server.most_at_once == 4
    assert sum(one.cost.waited_s for one in found) > 0.1


def test_requests_of_a_minute_are_bounded_tries_included(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MINUTE_S", 0.8)
    monkeypatch.setattr(budget, "TRAVEL_S", 0.2)
    refused: Iterator[int] = iter(range(100))

    def script(path: str, body: Any) -> Reply:
        return (500, {}, "busy") if next(refused) % 3 == 0 else GOOD(path, body)

    with serving(script) as server:
        (found,) = judged(judge(server.base_url, limits={"requests_per_minute": 5}), items(*map(str, range(9))))
    assert [answer.outcome for answer in found.answers] == [OK] * 9
    assert len(server.requests) == found.cost.attempts > 9
    assert server.most_within(0.8) <= 5


def test_tokens_of_a_minute_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MINUTE_S", 0.8)
    monkeypatch.setattr(budget, "TRAVEL_S", 0.2)
    with serving(lambda _path, body: reply(asked_of(body).says(score=5), prompt_tokens=400, tokens=100)) as server:
        config = judge(server.base_url, max_tokens=100, limits={"tokens_per_minute": 1600, "requests_at_once": 1})
        (found,) = judged(config, items(*map(str, range(8))))
    assert [answer.outcome for answer in found.answers] == [OK] * 8
    assert server.most_within(0.8) * 500 <= 1600
    with serving(GOOD) as server:
        (found,) = judged(judge(server.base_url, limits={"tokens_per_minute": 1000}), items("a"))
    assert server.requests == []
    assert found.answers[0].outcome is ERROR
    assert "tokens, and tokens_per_minute is 1000" in found.answers[0].detail


def test_workers_share_the_limits_of_a_run() -> None:
    limits = ServerLimits(requests_at_once=9, requests_per_minute=100, tokens_per_minute=None)
    assert limits.share(4) == ServerLimits(requests_at_once=2, requests_per_minute=25)
    with pytest.raises(ValueError, match=r"limits\.requests_at_once is 9, which 10 reward workers cannot share"):
        limits.share(10)
    with serving(slow(0.05)) as server:
        judged(judge(server.base_url, limits={"requests_at_once": 4}), items(*map(str, range(8))), num_workers=2)
    assert server.most_at_once == 2


def test_a_server_that_asks_for_a_pause_gets_it_from_all() -> None:
    script = in_turn((429, {"Retry-After": "1"}, "slow down"), GOOD)
    with serving(script) as server:
        config = judge(server.base_url, limits={"requests_at_once": 1})
        (found,) = judged(config, items("a", "b", "c"))
    assert [answer.outcome for answer in found.answers] == [OK] * 3
    first, *others = server.arrived_s
    assert len(others) == 3
    assert min(others) - first >= 1.0
    assert found.cost.attempts == 4
    assert found.cost.waited_s >= 2.0  # each waits that second


def test_a_busy_server_is_asked_until_the_deadline() -> None:
    with serving(in_turn((503, {}, "loading"), (500, {}, ""), (429, {}, ""), GOOD)) as server:
        (found,) = judged(judge(server.base_url), items("a"))
    assert (found.answers[0].outcome, len(server.requests)) == (OK, 4)
    with serving(lambda _path, _body: (500, {}, "no\nmemory")) as server:
        started_s = time.monotonic()
        (found,) = judged(judge(server.base_url, limits={"deadline_s": 0.6}), items("a"))
        assert time.monotonic() - started_s < 3.0
    (answer,) = found.answers
    assert answer.outcome is TIMEOUT
    assert answer.detail == (
        f"judge: {server.base_url}/chat/completions gave no answer in time, after {len(server.requests)} attempts: "
        "status 500: no memory"
    )
    assert found.cost.attempts == len(server.requests) > 2


def test_a_pause_beyond_the_deadline_is_not_waited_for() -> None:
    with serving(lambda _path, _body: (429, {"Retry-After": "9999"}, "come back")) as server:
        started_s = time.monotonic()
        (found,) = judged(judge(server.base_url), items("a", "b"))
        assert time.monotonic() - started_s < 5.0
    assert [answer.outcome for answer in found.answers] == [TIMEOUT] * 2


def test_nor_does_it_hold_others() -> None:
    with serving(in_turn((429, {"Retry-After": "9999"}, "come back"), GOOD)) as server:
        asked = AskedFunctions({"judge": judge(server.base_url, limits={"deadline_s": 0.5})}, "reward-0", AskingSite())
        try:
            first = asked.submit("judge", items("a")).result(10)
            second = asked.submit("judge", items("b")).result(10)
        finally:
            asked.close()
    assert first.answers[0].outcome is TIMEOUT
    assert second.answers[0].outcome is OK


def test_a_slow_server_ends_with_the_deadline_and_a_slow_answer_is_asked_for_again() -> None:
    with serving(slow(1.5)) as server:
        (found,) = judged(judge(server.base_url, limits={"deadline_s": 0.4}), items("a"))
    assert found.answers[0].outcome is TIMEOUT
    assert found.answers[0].detail.endswith("gave no answer in time, after 1 attempt: no answer yet")
    with serving(in_turn(slow(1.5), GOOD)) as server:
        (found,) = judged(judge(server.base_url, limits={"timeout_s": 0.4}), items("a"))
    assert (found.answers[0].outcome, len(server.requests)) == (OK, 2)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_fault_of_the_configuration_is_one_sentence(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sesame")
    with serving(lambda _path, _body: (status, {}, "no such\nthing: sesame")) as server:
        (found,) = judged(judge(server.base_url, api_key_env="JUDGE_KEY"), items("a"))
    (answer,) = found.answers
    assert answer.outcome is ERROR
    assert answer.detail == (
        f"judge: {server.base_url}/chat/completions answered with status {status}: no such thing: <key>; mend "
        "base_url, model or api_key_env of the reward function 'judge'"
    )
    assert len(server.requests) == 1
    assert server.requests[0][2]["Authorization"] == "Bearer sesame"


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        ((400, {}, "too long"), "answered with status 400: too long"),
        ((302, {"Location": "http://elsewhere/"}, ""), "answered with status 302"),
        ((200, {}, "<html>"), "something that is no JSON: <html>"),
        ((200, {}, "[" * 100_000), "something that is no JSON: [[["),
        ((200, {}, "[]"), "has no choices[0].message"),
        ((200, {}, "null"), "has no choices[0].message"),
        ((200, {}, '{"choices": []}'), "has no choices[0].message"),
        ((200, {}, '{"choices": [{"message": {"content": 7}}]}'), "the reply is 7, which is no text"),
    ],
)
def test_nonsense_is_an_error_of_its_completion_alone(answer: Reply, detail: str) -> None:
    def script(path: str, body: Any) -> Reply:
        return answer if asked_of(body).texts["COMPLETION"] == "bad" else GOOD(path, body)

    with serving(script) as server:
        (found,) = judged(judge(server.base_url), items("good", "bad", "fine"))
    assert [one.outcome for one in found.answers] == [OK, ERROR, OK]
    assert detail in found.answers[1].detail
    assert len(server.requests) == 3


def test_no_server_at_all_is_a_timeout_that_says_so() -> None:
    (found,) = judged(judge("http://127.0.0.1:9/v1", limits={"deadline_s": 0.3}), items("a"))
    assert found.answers[0].outcome is TIMEOUT
    assert "ClientConnectorError" in found.answers[0].detail


def test_a_key_that_is_not_there_is_told_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    config = judge("http://127.0.0.1:9/v1", api_key_env="JUDGE_KEY")
    with pytest.raises(ConfigError, match=r"params.api_key_env is JUDGE_KEY, and the environment has nothing"):
        AskedFunctions({"judge": config}, "reward-0", AskingSite())


def test_closing_ends_what_is_being_asked() -> None:
    with serving(slow(1.0)) as server:
        asked = AskedFunctions({"judge": judge(server.base_url)}, "reward-0", AskingSite())
        future = asked.submit("judge", items("a"))
        time.sleep(0.2)
        started_s = time.monotonic()
        asked.close()
        asked.close()
        assert time.monotonic() - started_s < 1.0
    assert future.cancelled() or future.exception() is not None
