"""A judge on loopback that answers as a test says: it reads the codes and texts of a request, as a model would."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.rollout.endpoint.scripted_server import Reply, Script


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedOfJudge:
    """What a request has in it."""

    verdict_code: str
    fence_code: str
    texts: Mapping[str, str]
    """QUESTION, REFERENCE, COMPLETION, COMPLETION A, COMPLETION 1, ... -> what stands between its lines."""
    system: str
    user: str

    def says(self, reason: str = "so it is", **values: Any) -> str:
        """A verdict as it should be."""
        return json.dumps({"id": self.verdict_code, **values, "reason": reason})


def asked_of(body: Any) -> AskedOfJudge:
    """A request, read as the rules in it say."""
    system, user = (message["content"] for message in body["messages"])
    (code,) = re.findall(r'^\{"id": "(\w{8})", "', system, re.MULTILINE)
    (fence,) = set(re.findall(r"a line <<<NAME (\w{8})>>>", system))
    texts = re.findall(rf"<<<([A-Z0-9 ]+) {fence}>>>\n(.*?)\n<<<END \1 {fence}>>>", user, re.DOTALL)
    return AskedOfJudge(verdict_code=code, fence_code=fence, texts=dict(texts), system=system, user=user)


def reply(text: str | None, *, finish_reason: str = "stop", prompt_tokens: int = 100, tokens: int = 10) -> Reply:
    """A chat completion."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return 200, {}, json.dumps({"object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})


def judging(says: Callable[[AskedOfJudge], str | None]) -> Script:
    """A server that answers every request with what `says` makes of it."""
    return lambda _path, body: reply(says(asked_of(body)))
