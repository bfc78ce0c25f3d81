"""What is asked of a sampler: a batch of leases, and the group of each."""

from collections.abc import Sequence

from cluster.errors import StageTimeoutError
from cluster.fleet.actors import SamplerActor
from cluster.fleet.deadlines import finish
from rollout.config import SamplingConfig
from rollout.types import Prompt, SampledGroup, SampleRequest

SUBMIT_DEADLINE_S = 120.0


async def submit(sampler: SamplerActor, requests: Sequence[SampleRequest], sampling: SamplingConfig) -> None:
    """Hands a batch to one sampler; it adds it to its engine together."""
    try:
        await finish(
            sampler.handle.submit.remote(requests, sampling),
            deadline_s=SUBMIT_DEADLINE_S,
            stage="sample",
            actor=sampler.name,
            item=f"{len(requests)} groups",
        )
    except StageTimeoutError:
        # It may get to the batch later: then it finds behind it that nobody wants it. Not waited for, as the batch.
        sampler.handle.give_up.remote(requests)
        raise


def deal(samplers: Sequence[SamplerActor], prompts: Sequence[Prompt]) -> list[tuple[SamplerActor, list[Prompt]]]:
    """Deals prompts out in turn, each sampler's share together, so that what an engine computes together depends on
    the prompts alone. Samplers without a share are left out."""
    shares = [(sampler, list(prompts[i :: len(samplers)])) for i, sampler in enumerate(samplers)]
    return [(sampler, share) for sampler, share in shares if share]


async def wait_group(sampler: SamplerActor, request: SampleRequest, deadline_s: float) -> SampledGroup:
    """The group of a lease: its facts come here, its completions stay in the object store."""
    return await finish(
        answer_of(sampler, request),
        deadline_s=deadline_s,
        stage="sample",
        actor=sampler.name,
        item=f"group {request.prompt.group_id}",
    )


async def answer_of(sampler: SamplerActor, request: SampleRequest) -> SampledGroup:
    """A coroutine, so that a wait that is given up does not touch the remote call."""
    facts, payload = sampler.handle.wait_group.options(num_returns=2).remote(request.key)
    return SampledGroup(prompt=request.prompt, facts=await facts, payload=payload)
