"""What is said of a judge's server before anything starts."""

import json

import pytest

from reward.judging.config import HttpConfig
from reward.judging.start_check import check_judges
from rollout.endpoint import budget
from rollout.errors import ConfigError
from tests.reward.judging.asking import judge
from tests.rollout.endpoint.scripted_server import Reply, serving

MODELS: Reply = (200, {}, json.dumps({"data": [{"id": "m"}, {"id": "n"}]}))


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FIRST_WAIT_S", 0.02)


@pytest.mark.parametrize("reply", [MODELS, (404, {}, "no list here"), (200, {}, '{"data": []}'), (200, {}, "[]")])
def test_a_server_that_has_the_model_or_no_list_is_in_order(reply: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sesame")
    with serving(lambda _path, _body: reply) as server:
        check_judges({"judge": judge(server.base_url, api_key_env="JUDGE_KEY"), "http": HttpConfig(url="http://h/x")})
    ((path, _, headers),) = server.requests
    assert (path, headers["Authorization"]) == ("/v1/models", "Bearer sesame")


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ((200, {}, '{"data": [{"id": "other"}]}'), "params.model is 'm', and the server of params.base_url has other"),
        ((401, {}, "who are you?"), "status 401: who are you?; mend base_url, model or api_key_env"),
        ((500, {}, "no"), "gave no answer in 2 attempts, the last: status 500: no"),
        ((200, {}, "<html>"), "something that is no JSON: <html>"),
    ],
)
def test_any_other_is_one_sentence(reply: Reply, says: str) -> None:
    with serving(lambda _path, _body: reply) as server, pytest.raises(ConfigError) as error:
        check_judges({"kind": judge(server.base_url)})
    assert str(error.value).startswith("reward function 'kind': params.")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_no_server_and_no_key_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"which is of no use: .*ClientConnectorError"):
        check_judges({"judge": judge("http://127.0.0.1:9/v1")})
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match="api_key_env is JUDGE_KEY, and the environment has nothing"):
        check_judges({"http": HttpConfig(url="http://h/x", api_key_env="JUDGE_KEY")})
