"""A request to a judge over the chat completions of OpenAI, and what is read of its answer."""

from typing import Any

from reward.judging.asking import Request, estimated_tokens
from reward.judging.config import JudgeConfig
from reward.judging.prompts import Asked
from rollout.endpoint.client import EndpointError

PATH = "/chat/completions"


def chat_request(config: JudgeConfig, asked: Asked) -> Request:
    """`POST {base_url}/chat/completions`."""
    messages = list(asked.messages)
    if not config.system_turn:
        messages = [{"role": "user", "content": "\n\n".join(message["content"] for message in messages)}]
    body: dict[str, Any] = {
        "model": config.model,
        "messages": messages,
        "temperature": config.temperature,
        "max_tokens": config.max_tokens,
        **config.extra,
    }
    if config.structured:
        form = {"name": "verdict", "strict": True, "schema": asked.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    tokens = estimated_tokens(asked.num_bytes) + config.max_tokens
    return Request(path=PATH, body=body, tokens=tokens, read=_reply_of)


def _reply_of(answer: Any) -> dict[str, Any]:
    """Its text, and whether it was cut off. Errors: `EndpointError` for what is no chat completion."""
    try:
        choice = answer["choices"][0]
        content = choice["message"].get("content")
        finish_reason = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise EndpointError(
            f"{repr(answer)[:120]} has no choices[0].message; a server with the API of OpenAI gives them"
        ) from None
    if content is not None and not isinstance(content, str):
        raise EndpointError(f"the reply is {repr(content)[:120]}, which is no text")
    return {"text": content or "", "cut_off": finish_reason == "length"}
