"""Whether the servers of judges answer, asked before anything starts: a wrong address or key costs nothing then."""

import asyncio
from collections.abc import Mapping
from typing import Any

from reward.judging.asked import api_key_of
from reward.judging.config import HttpConfig, JudgeConfig
from rollout.endpoint.client import EndpointClient, EndpointError, EndpointManners
from rollout.errors import ConfigError

CHECK_S = 15.0
"""For the list of a server's models."""
NUM_ATTEMPTS = 2


def check_judges(asked: Mapping[str, JudgeConfig | HttpConfig]) -> None:
    """Asks the server of each judge (component -> params) for its models. An address that scores groups is not asked:
    nobody knows what else it understands.

    Errors: `ConfigError` where it cannot be reached, refuses the key, or has other models.
    """
    for component, config in asked.items():
        api_key = api_key_of(component, config)
        if isinstance(config, JudgeConfig):
            asyncio.run(_check(component, config, api_key))


async def _check(component: str, config: JudgeConfig, api_key: str | None) -> None:
    manners = EndpointManners(
        requests_at_once=1,
        attempt_s=CHECK_S,
        max_attempts=NUM_ATTEMPTS,
        longest_retry_after_s=CHECK_S,
        mend=f"mend {config.faults_of}",
    )
    client = EndpointClient(config.base_url, manners, api_key)
    try:
        names = _names(await client.get("/models"))
    except EndpointError as error:
        if error.is_missing:  # a server that judges need not have a list
            return
        raise ConfigError(
            f"reward function {component!r}: params.base_url is {config.base_url!r}, which is of no use: {error}"
        ) from error
    finally:
        await client.close()
    if names and config.model not in names:
        raise ConfigError(
            f"reward function {component!r}: params.model is {config.model!r}, and the server of params.base_url has "
            f"{', '.join(names[:10])}; set it to one of them"
        )


def _names(answer: Any) -> list[str]:
    cards = answer.get("data") if isinstance(answer, dict) else None
    return [str(card.get("id")) for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
