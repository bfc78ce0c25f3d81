"""Keeps secrets out of files and messages: what a run writes is shared, copied and shown on a dashboard."""

import os
import re
from collections.abc import Mapping
from typing import Any

REDACTED = "<redacted>"

_SECRET_NAME = re.compile(
    r"(?:^|[_\-.])(?:api[_\-]?key|access[_\-]?key|private[_\-]?key|token|password|passwd|secret|credentials?|webhook(?:[_\-]?url)?)$",
    re.I,
)
"""Ends of names that hold secrets. `max_tokens` is none of them."""
_URL_PASSWORD = re.compile(r"(?P<scheme>[a-z][a-z0-9+.\-]*://)[^\s/@:]*:[^\s/@]+@", re.I)
_HOOK_ADDRESS = re.compile(
    r"""(?P<kept>https?://(?:hooks\.slack\.com/[a-z]+/|[^\s/?#"']+/(?:api/(?:v\d+/)?)?(?:web)?hook(?:s|b2)/))[^\s"'<>]+""",
    re.I,
)
"""Who knows such an address may write there: Slack, Mattermost, Discord, Teams."""
_HEADER_TOKEN = re.compile(r"""(?P<kept>\bauthorization["']?\s*[:=]\s*["']?bearer\s+)[^\s"'<>]+""", re.I)
_ITEM_TOKEN = re.compile(r"(?P<kept>bearer\s+)\S+", re.I)
"""As the whole item of a list, such as the words of a command; in a sentence `bearer` is a word."""
_MIN_SECRET_CHARACTERS = 8
"""Shorter values of secret-looking variables, such as "1" or "none", would blank out ordinary text."""


def redact(value: Any) -> Any:
    """A copy of plain data without secrets: texts under secret-looking names, passwords in URLs, the secret part of
    addresses of webhooks, tokens of headers."""
    if isinstance(value, Mapping):
        return {
            key: REDACTED if isinstance(child, str) and child and _SECRET_NAME.search(str(key)) else redact(child)
            for key, child in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_item(child) if isinstance(child, str) else redact(child) for child in value]
    return _without_known_forms(value) if isinstance(value, str) else value


def redacted_keys(value: Any, prefix: str = "") -> list[str]:
    """Dotted keys of the texts of plain data from which `redact` took something; a number is a place in a list."""
    if isinstance(value, str):
        return [prefix] if REDACTED in value else []
    children = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    below = f"{prefix}." if prefix else ""
    return [key for name, child in children for key in redacted_keys(child, f"{below}{name}")]


def redact_text(text: str, environ: Mapping[str, str] | None = None) -> str:
    """`text` without what `redact` takes from one, and without the values of secret-looking environment variables."""
    text = _without_known_forms(text)
    for name, secret in (os.environ if environ is None else environ).items():
        if len(secret) >= _MIN_SECRET_CHARACTERS and _SECRET_NAME.search(name):
            text = text.replace(secret, REDACTED)
    return text


def _item(text: str) -> str:
    found = _ITEM_TOKEN.fullmatch(text)
    return _without_known_forms(text) if found is None else found["kept"] + REDACTED


def _without_known_forms(text: str) -> str:
    """Without secrets that are known by what stands before them."""
    text = _URL_PASSWORD.sub(rf"\g<scheme>{REDACTED}@", text)
    for secret in (_HOOK_ADDRESS, _HEADER_TOKEN):
        text = secret.sub(rf"\g<kept>{REDACTED}", text)
    return text
