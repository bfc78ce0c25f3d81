"""A person in the model's place."""

import asyncio
import json
import math
from dataclasses import replace

import numpy as np

from cluster.config import RunConfig
from cluster.trying.worlds import Tried, environments_of, model_of, tried
from rollout.episode_desk import limits_of
from rollout.episodes.environment import Done, Messages, Reply, Task, ToolCall
from rollout.episodes.runner import Asked, Beginning, Episode, EpisodeRunner, Rules, World
from rollout.episodes.tool_calls import Parsed
from rollout.errors import DataError
from rollout.prompts.environments import task_of_row
from rollout.types import Completion, FinishReason, Prompt, VersionSpan


def play(config: RunConfig, *, seed: int | None) -> int:
    """One episode in the terminal. Errors: as `cluster.trying.worlds.tried`; `WorldError` for a world that fails."""
    (task, *_), (model_dir, tokenizer) = environments_of(config), model_of(config)
    world = tried(config, task, model_dir, tokenizer)
    try:
        prompt = _chosen(world, seed)
        if world.worlds.schemas:
            print("A call is written as /name and its arguments in JSON. There are:")
            for schema in world.worlds.schemas:
                function = schema["function"]
                named = ", ".join(function["parameters"]["properties"])
                print(f"  /{function['name']} ({named})  {function['description']}")
        episode = asyncio.run(_played(config, world, prompt))
    except EOFError:
        print("\nleft")
        return 0
    finally:
        world.worlds.close()
    scores = ", ".join(f"{name} {value:g}" for name, value in episode.scores.items()) or "none"
    print(f"\n{episode.outcome.value} after {len(episode.replies)} turns; scores: {scores}")
    return 0


def _chosen(world: Tried, seed: int | None) -> Prompt:
    if seed is None:
        return world.prompts[0]
    for prompt in world.prompts:
        if prompt.row["seed"] == seed:
            return prompt
    raise DataError(f"--seed is {seed}, and no world of the training split has it; leave it out for the first one")


async def _played(config: RunConfig, world: Tried, prompt: Prompt) -> Episode:
    limits = replace(limits_of(world.worlds.limits, world.task), episode_s=math.inf)
    rules = Rules(
        template=world.template,
        parse=call_of,
        limits=limits,
        max_tokens=config.rollout.sampling.max_tokens,
        context_tokens=config.model.max_context_tokens,
    )
    hosted = await world.worlds.world(call_s=limits.call_s)

    async def sample(asked: Asked) -> Completion:
        return typed(world, asked, await asyncio.to_thread(input, f"\n[{asked.turn}] > "))

    runner = EpisodeRunner(Shown(hosted), sample, rules, beginning=Beginning(opening=prompt.token_ids))
    return await runner.play(task_of_row(prompt.row, prompt.ground_truth, sample_seed=0))


def typed(world: Tried, asked: Asked, text: str) -> Completion:
    """What a person typed, as a reply; one that is longer than a reply may be is cut, as a model's would be."""
    whole = [*world.template.tokens(text), *world.template.end]
    token_ids = whole[: asked.max_tokens]
    is_cut = len(token_ids) < len(whole)
    if is_cut:
        text = world.template.text(token_ids)
        print(f"(cut after {asked.max_tokens} tokens: {text!r})")
    return Completion(
        sample_index=0,
        token_ids=np.array(token_ids, np.int32),
        logprobs=np.zeros(len(token_ids), np.float32),
        loss_mask=np.ones(len(token_ids), np.bool_),
        text=text,
        finish_reason=FinishReason.LENGTH if is_cut else FinishReason.STOP,
        version_spans=(VersionSpan(policy_version=0, start=0, end=len(token_ids)),),
    )


def call_of(text: str) -> Parsed:
    """A person's call: `/name {"argument": value}`."""
    if not text.startswith("/"):
        return Parsed()
    name, _, body = text[1:].strip().partition(" ")
    try:
        arguments = json.loads(body or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return Parsed(problem=f'The arguments of {name} are no JSON object, as in /{name} {{"argument": 1}}.')
    return Parsed(calls=(ToolCall(name=name, arguments=arguments),))


class Shown:
    """A world whose words are printed."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def start(self, task: Task) -> Messages:
        """As in `World`."""
        return shown(await self._world.start(task))

    async def respond(self, reply: Reply) -> Messages | Done:
        """As in `World`."""
        answer = await self._world.respond(reply)
        return answer if isinstance(answer, Done) else shown(answer)

    async def call(self, call: ToolCall) -> str:
        """As in `World`."""
        result = await self._world.call(call)
        print(f"\n{call.name}: {result}")
        return result

    async def stop(self) -> None:
        """As in `World`."""
        await self._world.stop()


def shown(messages: Messages) -> Messages:
    """The messages, printed."""
    for message in messages:
        calls = "".join(f" /{call.name} {json.dumps(dict(call.arguments))}" for call in message.tool_calls)
        print(f"\n{message.role}: {message.content}{calls}")
    return messages
