"""TeacherWorker: asks a server about the completions of groups, while others are still being sampled."""

import asyncio
import time
from dataclasses import replace

from learner.endpoint.client import teacher_client
from learner.endpoint.scores import token_logprobs
from learner.teacher import TeacherConfig
from learner.types import Taught
from rollout.endpoint.client import EndpointError
from rollout.types import Completion, RolloutGroup


class TeacherWorker:
    """Many groups at a time; together they have the requests that the configuration allows. Plain class: `cluster/`
    runs it as an actor."""

    def __init__(self, config: TeacherConfig, model: str, api_key: str | None) -> None:
        """`model` is the teacher's name on the server."""
        assert config.base_url is not None
        self._model = model
        self._client = teacher_client(config.base_url, config.endpoint, api_key)

    async def ready(self) -> None:
        """Returns at once: that the server answers was seen before the run started."""

    async def score(self, group: RolloutGroup) -> tuple[Taught, RolloutGroup]:
        """The group with the teacher's log-probabilities in its completions, or as it was with the reason why not: it
        is scored as a whole or not at all.

        Errors: `EndpointError` where no other group would fare better.
        """
        started_s, reason = time.time(), ""
        asked = [asyncio.ensure_future(self._taught(group, completion)) for completion in group.completions]
        try:
            group = replace(group, completions=tuple(await asyncio.gather(*asked)))
        except EndpointError as error:
            if error.is_final:
                raise
            reason = str(error)
        finally:
            for one in asked:
                one.cancel()
        return Taught(reason=reason, started_s=started_s, finished_s=time.time()), group

    async def _taught(self, group: RolloutGroup, completion: Completion) -> Completion:
        if not completion.num_tokens or not completion.finish_reason.is_trainable:
            return completion
        ids = completion.token_ids.tolist()
        found = await token_logprobs(self._client, self._model, group.prompt.token_ids, ids)
        return replace(completion, teacher_logprobs=found)

    async def close(self) -> None:
        """Ends its connections."""
        await self._client.close()
