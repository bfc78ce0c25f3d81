"""Episodes with random replies, with a script, and with the model: how they end, and what they cost."""

import asyncio
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cluster.config import RunConfig
from cluster.fleet.roles import SAMPLER, build_vllm_engine
from cluster.trying.worlds import Tried, environments_of, model_of, setup_of, tried
from rollout.engines.protocol import Engine, SampleSpec
from rollout.engines.scripted import ScriptedEngine
from rollout.episodes.environment import Message, Outcome, ToolCall, user
from rollout.episodes.template_probes import Difference
from rollout.episodes.tool_parsers import EXAMPLES
from rollout.errors import ConfigError, EngineError
from rollout.types import Completion, SampleRequest
from rollout.worker import RolloutWorker

WORDS = ("yes", "no", "maybe", "stop", "a", "the", "7", "42", "-1", "3.5", "", "?", "x" * 200)
"""Of which random replies are made, besides calls of tools."""
EXIT_FAILED = 1
SHOWN_FAILURES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """An episode that was tried."""

    completion: Completion
    seconds: float
    """From its lease to its end, the engine's part included."""


def check(config: RunConfig, *, num_episodes: int, replies: Sequence[str]) -> int:
    """Prints a report for each environment of a configuration; the exit code is 1 where a world failed.

    Errors: as `cluster.trying.worlds.tried`; `ConfigError` for a file of replies that cannot be read.
    """
    scripts = {kind: _script(kind) for kind in replies if kind not in ("random", "model")}
    tasks, (model_dir, tokenizer) = environments_of(config), model_of(config)
    has_failed = False
    for task in tasks:
        world = tried(config, task, model_dir, tokenizer)
        try:
            print(f"\nenvironment {task.environment}, {len(world.prompts)} worlds, model {config.model.path}")
            print("\n".join(_of_template(world)))
            for kind in replies:
                print(f"\nreplies: {kind}")
                if kind == "model":
                    os.environ.update(SAMPLER.environment(config))
                    build: Callable[[], Engine] = partial(
                        build_vllm_engine, str(model_dir), config.model, config.rollout, config.seed
                    )
                else:
                    say = _scripted(scripts[kind]) if kind in scripts else partial(_drawn, world)
                    build = partial(ScriptedEngine, tokenizer, next(iter(world.template.end), None), say)
                played = asyncio.run(_play(config, world, model_dir, build, num_episodes))
                print("\n".join(report(played)))
                has_failed |= any(_outcome(one) is Outcome.FAILED for one in played)
        finally:
            world.worlds.close()
    return EXIT_FAILED if has_failed else 0


def _script(path: str) -> tuple[str, ...]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--replies is {path!r}, which is neither `random` nor `model` nor a file of text: {error}"
        ) from error
    if not lines:
        raise ConfigError(f"--replies: {path} has no line; write a reply in each")
    return tuple(lines)


def _scripted(lines: Sequence[str]) -> Callable[[SampleSpec], str]:
    """The lines in turn, from the first one in each episode; the last one again where there are no more."""
    return lambda spec: lines[min(int(spec.request_id.rpartition("|")[2]), len(lines)) - 1]


def _drawn(world: Tried, spec: SampleSpec) -> str:
    """Some words, or where there are tools as often a call of one with something of each type."""
    draw = random.Random(f"{spec.seed} {spec.request_id}")
    if not world.worlds.schemas or draw.random() < 0.5:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, 3)))
    function = draw.choice(world.worlds.schemas)["function"]
    arguments = {
        name: EXAMPLES.get(str(of.get("type")), draw.choice(WORDS))
        for name, of in function["parameters"]["properties"].items()
    }
    call = ToolCall(name=function["name"], arguments=arguments, call_id="call00001")
    reply = Message(role="assistant", content="", tool_calls=(call,))
    answer = Message(role="tool", content="", name=call.name, call_id=call.call_id)
    return world.template.written([user("?")], reply, [answer])


async def _play(
    config: RunConfig, world: Tried, model_dir: Path, build: Callable[[], Engine], num_episodes: int
) -> list[Played]:
    """As evaluations are: an episode whose world failed is there, with why."""
    worker = RolloutWorker(build, name="sampler-0", run_seed=config.seed, episodes=setup_of(config, world, model_dir))
    # A world that comes again is another episode: its seeds follow from the epoch.
    prompts = [
        replace(world.prompts[place % len(world.prompts)], epoch=place // len(world.prompts))
        for place in range(num_episodes)
    ]
    requests = [SampleRequest(prompt=prompt, attempt=1, group_size=1, purpose="eval") for prompt in prompts]
    try:
        async with asyncio.timeout(config.rollout.start_deadline_s):
            await worker.ready()
            await worker.serve(0)
        async with asyncio.timeout(config.rollout.group_deadline_s):
            began_s = time.monotonic()
            await worker.submit(requests, config.rollout.sampling)
            return await asyncio.gather(*(_ended(worker, request, began_s) for request in requests))
    except TimeoutError as error:
        raise EngineError(
            f"{num_episodes} episodes did not end within the {config.rollout.group_deadline_s:g} s that a group has "
            "(rollout.group_deadline_s); play fewer, or raise it"
        ) from error
    finally:
        await worker.close()


async def _ended(worker: RolloutWorker, request: SampleRequest, began_s: float) -> Played:
    _, group = await worker.wait_group(request.key)
    return Played(completion=group.completions[0], seconds=time.monotonic() - began_s)


def _of_template(world: Tried) -> Iterator[str]:
    exact = [of.probe for of in world.probed if of.difference is Difference.NONE]
    yield f"chat template: {len(exact)} of {len(world.probed)} probes read the same turn by turn and as a whole"
    for difference in Difference:
        names = [of.probe for of in world.probed if of.difference is difference]
        if names and difference is not Difference.NONE:
            yield f"  {difference.value} ({', '.join(names)})"
    names = [schema["function"]["name"] for schema in world.worlds.schemas]
    if names:
        how = "in words, since the template has no place for them" if world.template.describes_tools else "by it"
        yield f"tools: {', '.join(names)}, told {how}"


def _outcome(played: Played) -> Outcome:
    assert played.completion.episode is not None, "what an environment's prompt begins is an episode"
    return Outcome(played.completion.episode.outcome)


def report(played: Sequence[Played]) -> Iterator[str]:
    """What a person wants to know of some episodes, line by line."""
    outcomes = Counter(_outcome(one).value for one in played)
    yield f"  {'outcomes':<20}" + ", ".join(f"{name} {count}" for name, count in outcomes.most_common())
    ended = [one for one in played if _outcome(one) is not Outcome.FAILED]
    facts: list[Any] = [one.completion.episode for one in ended]
    if ended:
        masks = [one.completion.loss_mask for one in ended]
        yield _line("turns", [len(of.turns) for of in facts])
        yield _line("sampled tokens", [int(mask.sum()) for mask in masks])
        yield _line("tokens of the world", [int((~mask).sum()) for mask in masks])
        yield _line("tool calls", [of.num_tool_calls for of in facts])
        yield _line("seconds", [one.seconds for one in ended])
    names = sorted({name for of in facts for name in of.scores})
    for name in names:
        yield _line(f"score {name}", [of.scores[name] for of in facts if name in of.scores])
    tried_again = sum(of.num_attempts > 1 for of in facts)
    if tried_again:
        yield f"  {tried_again} of them were begun again, since their world failed"
    for one in [one for one in played if _outcome(one) is Outcome.FAILED][:SHOWN_FAILURES]:
        yield f"  failed: {one.completion.text}"


def _line(what: str, values: Sequence[float]) -> str:
    return f"  {what:<20}{statistics.fmean(values):.3g} on average, {min(values):.3g} to {max(values):.3g}"
