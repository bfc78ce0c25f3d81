"""Secrets do not reach files or messages; ordinary names and words do."""

from cluster.configuration.redact import REDACTED, redact, redact_text, redacted_keys


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
