"""The client of a teacher's server."""

from learner.teacher import LONGEST_RETRY_AFTER_S, EndpointConfig
from rollout.endpoint.client import EndpointClient, EndpointManners


def teacher_client(base_url: str, config: EndpointConfig, api_key: str | None) -> EndpointClient:
    """Asks the server as the configuration says."""
    manners = EndpointManners(
        requests_at_once=config.max_requests,
        attempt_s=config.deadline_s,
        max_attempts=config.max_attempts,
        longest_retry_after_s=LONGEST_RETRY_AFTER_S,
        mend="mend learner.teacher.base_url, or model or key of learner.teacher.endpoint",
    )
    return EndpointClient(base_url, manners, api_key)
