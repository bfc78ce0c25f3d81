"""Secrets do not reach files or messages; ordinary names and words do."""

import pytest

from cluster.commands.resume import own_config
from cluster.config import RunConfig
from cluster.configuration.loading import load_config
from cluster.configuration.redact import REDACTED, redact, redact_text, redacted_keys
from rollout.errors import ConfigError


def test_texts_under_secret_names_are_replaced() -> None:
    data = {
        "api_key": "abc",
        "WANDB_API_KEY": "abc",
        "hf_token": "abc",
        "nested": [{"password": "abc", "user": "me"}],
        "max_tokens": 64,
        "token_ids": [1, 2],
        "secretary": "Ann",
        "token": "",
    }
    assert redact(data) == {
        "api_key": REDACTED,
        "WANDB_API_KEY": REDACTED,
        "hf_token": REDACTED,
        "nested": [{"password": REDACTED, "user": "me"}],
        "max_tokens": 64,
        "token_ids": [1, 2],
        "secretary": "Ann",
        "token": "",
    }


def test_passwords_in_urls_are_replaced() -> None:
    assert redact("see https://me:pw123@host/x and http://host:80/y") == (
        f"see https://{REDACTED}@host/x and http://host:80/y"
    )


def test_places_of_what_was_replaced() -> None:
    data = {"a": [{"token": "abc"}, {"url": "https://me:pw@host"}], "b": {"max_tokens": 3, "text": "abc"}}
    assert redacted_keys(redact(data)) == ["a.0.token", "a.1.url"]
    assert redacted_keys(data) == []


def test_values_of_secret_variables_are_replaced_in_text() -> None:
    environ = {"HF_TOKEN": "hf_0123456789", "SHORT_TOKEN": "1", "HOME": "/home/someone"}
    assert redact_text("401 for hf_0123456789 in /home/someone, 1 try", environ) == (
        f"401 for {REDACTED} in /home/someone, 1 try"
    )


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://hooks.slack.com/services/T00/B00/Xy1", "https://hooks.slack.com/services/"),
        ("https://hooks.slack.com/workflows/T00/A00/1/Xy", "https://hooks.slack.com/workflows/"),
        ("https://chat.example.com/hooks/xyz123", "https://chat.example.com/hooks/"),
        ("http://chat.example.com:8065/hooks/xyz123?a=b", "http://chat.example.com:8065/hooks/"),
        ("https://discord.com/api/webhooks/123/Ab-c_d", "https://discord.com/api/webhooks/"),
        ("https://discord.com/api/v10/webhooks/123/Abc", "https://discord.com/api/v10/webhooks/"),
        ("https://a.webhook.office.com/webhookb2/1@2/x", "https://a.webhook.office.com/webhookb2/"),
        ("Authorization: Bearer sk-0123", "Authorization: Bearer "),
        ("--header=authorization:bearer sk-0123", "--header=authorization:bearer "),
        ("Bearer sk-0123", "Bearer "),
    ],
)
def test_what_is_secret_by_its_form_is_replaced_in_a_command(text: str, kept: str) -> None:
    command = redact({"command": ["curl", "-H", text, "sh"]})["command"]
    assert command == ["curl", "-H", f"{kept}{REDACTED}", "sh"]
    assert redact(command) == command
    assert redacted_keys({"command": command}) == ["command.2"]


def test_a_script_keeps_all_but_its_secrets() -> None:
    script = "curl -H 'Authorization: Bearer sk-0123' -d @- \"https://hooks.slack.com/services/T0/B0/Xy\" | tail -1"
    left = f"curl -H 'Authorization: Bearer {REDACTED}' -d @- \"https://hooks.slack.com/services/{REDACTED}\" | tail -1"
    assert redact(["sh", "-c", script]) == ["sh", "-c", left]
    assert redact_text(script, {}) == left


def test_ordinary_texts_stay() -> None:
    texts = [
        "basic arithmetic",
        "Basic dGVzdA",
        "the bearer of the ring",
        "Bearer bonds of 1920 and their price",
        "authorization: none",
        "https://hooks.slack.com/",
        "https://example.com/a/hooks.html",
        "https://example.com/docs/webhooks and https://example.com/webhooks/",
        "hooks/pre-commit",
        "/srv/hooks/notify.sh",
        "Token economy",
    ]
    assert redact({"texts": texts, "text": "Bearer of news"}) == {"texts": texts, "text": "Bearer of news"}
    assert [redact_text(text, {}) for text in texts] == texts


def test_a_command_with_a_secret_is_given_again_on_a_resume() -> None:
    address = "https://hooks.slack.com/services/T0/B0/Xy"
    command = f'alerts.command=["curl", "-d", "@-", "{address}"]'
    written = RunConfig.model_validate(redact(load_config("tiny", [command]).model_dump(mode="json")))
    assert address not in str(written)
    with pytest.raises(ConfigError, match=r"the secret in alerts\.command\.3 was not written there; give it again"):
        own_config(written, [], source="the run")
    for given in (command, f"alerts.command.3={address}"):
        assert own_config(written, [given], source="the run").alerts.command[3] == address
