"""The episodes of a sampler: begun with a lease, played on its event loop, and delivered as completions.

lease of a group --> G episodes, each a task: world in a process of its own, replies from the engine
all G ended ------> the group, as one of single answers
a world failed ---> the episode goes on in a fresh process, or anew; after `MAX_ATTEMPTS` the group has failed
"""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from rollout.config import EnvironmentTask, SamplingConfig
from rollout.episode_types import EpisodeFacts, SpokenMessage, SpokenTurn
from rollout.episodes.chat_template import ChatTemplate
from rollout.episodes.conversation import check_spans
from rollout.episodes.environment import Limits, Outcome
from rollout.episodes.hosted import WorldTemplate
from rollout.episodes.runner import Asked, Beginning, Episode, EpisodeRunner, Recorded, ReplayError, Rules
from rollout.episodes.tool_calls import Parse, no_calls
from rollout.episodes.tool_parsers import MakeParser, parse_calls
from rollout.errors import ConfigError, EngineError, WorldError
from rollout.prompts.environments import OPENING, task_of_row
from rollout.rounds import Room, Rounds, Seat
from rollout.types import Completion, FinishReason, Prompt, SampleRequest, VersionSpan

MAX_ATTEMPTS = 3
"""Worlds that are begun for an episode before its group is given up."""

MAX_WORLDS = 256
"""Processes of worlds at once; other episodes wait, as completions do that an engine has no room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedReply:
    """A reply that an episode waits for."""

    request: SampleRequest
    place: int
    """In the group."""
    asked: Asked
    sampling: SamplingConfig


EpisodeSeat = Seat[WantedReply, Completion]
SampleReplies = Callable[[Sequence[WantedReply]], Sequence[Awaitable[Completion]]]
"""Has the engine work on replies, all of them from its next step on."""
Deliver = Callable[[SampleRequest, Completion], None]
Gone = Callable[[SampleRequest, EngineError], None]
"""Of a lease whose group the engine cannot sample."""
Failed = Callable[[SampleRequest, int, WorldError], None]
"""Of a lease, the place in the group whose world failed too often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSetup:
    """What a sampler is told of environments."""

    tasks: Mapping[str, EnvironmentTask] = field(default_factory=dict)
    """By the names that prompts have."""
    model_dir: str = ""
    context_tokens: int = 0
    trust_remote_code: bool = False
    make_parser: MakeParser | None = None
    """Where there may be tools."""
    in_rounds: bool = False
    """Whether the episodes of a launch are sampled in step (`rollout.rounds`)."""


class EpisodeDesk:
    """Plays episodes. Everything but `open` happens on one event loop.

    Errors of `open`: `ConfigError` for an environment that cannot be loaded, `ModelError` for a template that cannot
    be grown, `WorldError` where its modules were not imported in time.
    """

    def __init__(
        self,
        setup: EpisodeSetup,
        *,
        seed: Callable[[SampleRequest, int], int],
        sample: SampleReplies,
        deliver: Deliver,
        failed: Failed,
        gone: Gone,
    ) -> None:
        self._setup = setup
        self._seed = seed
        self._sample = sample
        self._deliver = deliver
        self._failed = failed
        self._gone = gone
        self._room: Room[WantedReply, Completion] = Room(MAX_WORLDS, sample)
        self._worlds: dict[str, WorldTemplate] = {}
        self._templates: dict[str, ChatTemplate] = {}
        self._parse: dict[str, Parse] = {}
        self._tasks: dict[tuple[str, str, int], list[asyncio.Task[None]]] = {}

    def open(self) -> None:
        """Imports the environments, in processes of their own; blocks."""
        from rollout.prompts.model_template import load_template

        for name, task in self._setup.tasks.items():
            worlds = WorldTemplate(task.environment, task.params, start_deadline_s=task.start_deadline_s)
            if self._setup.in_rounds and not worlds.replayable:
                worlds.close()
                raise ConfigError(
                    f"deterministic is true and environment {task.environment!r} is not `replayable`: what the engine "
                    "computes together would follow from which of its processes died; set deterministic to false"
                )
            self._worlds[name] = worlds
            self._templates[name] = load_template(
                self._setup.model_dir, tools=worlds.schemas, trust_remote_code=self._setup.trust_remote_code
            )

    def open_parsers(self) -> None:
        """Finds what reads calls of tools; after `open`, and when the engine has started: two threads that import vLLM
        at once may see half of it. Blocks. Errors: `ModelError`."""
        for name, worlds in self._worlds.items():
            self._parse[name] = no_calls
            if worlds.schemas:
                assert self._setup.make_parser is not None, "who has environments says how calls are read"
                self._parse[name] = parse_calls(
                    self._templates[name],
                    worlds.schemas,
                    self._setup.make_parser,
                    named=self._setup.tasks[name].tool_parser,
                )

    def plays(self, prompt: Prompt) -> bool:
        """Whether a prompt is the beginning of an episode."""
        return prompt.task in self._setup.tasks

    def begin(self, requests: Sequence[SampleRequest], sampling: SamplingConfig) -> None:
        """Starts all episodes of some leases."""
        played = [request for request in requests if self.plays(request.prompt)]
        for request in played:
            self.give_up(request.key)
        seats = self._seats(sum(of.group_size for of in played))
        for request in played:
            episodes = []
            for place in range(request.group_size):
                seat = next(seats)
                episodes.append(asyncio.create_task(self._play(request, place, sampling, seat)))
                # Not in the episode itself: one that is cancelled before its first step does not get to its end.
                episodes[-1].add_done_callback(partial(_leave, seat))
            self._tasks[request.key] = episodes
            # Kept as long as one of them goes on.
            ended = asyncio.gather(*episodes, return_exceptions=True)
            ended.add_done_callback(partial(self._forget, request.key, episodes))

    def _seats(self, count: int) -> Iterator[EpisodeSeat]:
        """Of the episodes of a launch, in their order."""
        if self._setup.in_rounds:
            rounds = Rounds(count, room=MAX_WORLDS, sample=self._sample)
            return iter([rounds.seat(number) for number in range(count)])
        return iter([self._room.seat() for _ in range(count)])

    def _forget(self, key: tuple[str, str, int], episodes: Sequence["asyncio.Task[None]"], _: object) -> None:
        if self._tasks.get(key) is episodes:
            del self._tasks[key]

    def give_up(self, key: tuple[str, str, int]) -> None:
        """Ends the episodes of a lease; their worlds are stopped."""
        for task in self._tasks.pop(key, ()):
            task.cancel()

    def close(self) -> None:
        """Ends all of them, and the processes."""
        for key in list(self._tasks):
            self.give_up(key)
        for world in self._worlds.values():
            world.close()

    async def _play(self, request: SampleRequest, place: int, sampling: SamplingConfig, seat: EpisodeSeat) -> None:
        await seat.begin()
        recorded = Recorded()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            runner: EpisodeRunner | None = None
            try:
                runner = await self._runner(request, place, sampling, seat, recorded)
                episode = await runner.play(
                    task_of_row(
                        request.prompt.row,
                        request.prompt.ground_truth,
                        sample_seed=self._seed(request, place),
                    )
                )
                template = self._templates[request.prompt.task]
                completion = completion_of(request.prompt, place, episode, template, num_attempts=attempt)
            except WorldError as error:
                failure = error
                if runner is not None:
                    recorded = self._kept(request, runner, error)
                if self._setup.in_rounds and isinstance(error, ReplayError):
                    break  # sampled again it would be computed with others than before
            except EngineError as error:
                self._gone(request, error)  # nothing new where the lease was given up or the engine failed
                return
            except Exception as error:  # noqa: BLE001 - task boundary: nobody waits for it, and the group would not end
                failure = WorldError(f"an episode failed: {type(error).__name__}: {' '.join(str(error).split())}")
                break
            else:
                self._deliver(request, completion)
                return
        where = f"group {request.prompt.group_id}, world {attempt} of the episode"
        self._failed(request, place, WorldError(f"{failure} ({where})"))

    def _kept(self, request: SampleRequest, runner: EpisodeRunner, error: WorldError) -> Recorded:
        """What the next world is told again of an episode whose world failed."""
        if isinstance(error, ReplayError) or not self._worlds[request.prompt.task].replayable:
            return Recorded()
        return runner.recorded

    async def _runner(
        self, request: SampleRequest, place: int, sampling: SamplingConfig, seat: EpisodeSeat, recorded: Recorded
    ) -> EpisodeRunner:
        """With a world in a fresh process. Errors: `WorldError`."""
        prompt, task = request.prompt, self._setup.tasks[request.prompt.task]
        worlds = self._worlds[prompt.task]
        limits = limits_of(worlds.limits, task)
        if self._setup.in_rounds:  # how long an episode takes is no part of what is computed again
            limits = replace(limits, episode_s=math.inf)
        world = await worlds.world(call_s=limits.call_s)
        rules = Rules(
            template=self._templates[prompt.task],
            parse=self._parse[prompt.task],
            limits=limits,
            max_tokens=sampling.max_tokens,
            context_tokens=self._setup.context_tokens,
        )

        async def sample(asked: Asked) -> Completion:
            return await seat.reply(WantedReply(request=request, place=place, asked=asked, sampling=sampling))

        said = prompt.row.get(OPENING)
        beginning = Beginning(opening=prompt.token_ids, said=said if isinstance(said, str) else None, recorded=recorded)
        return EpisodeRunner(world, sample, rules, beginning=beginning)


def _leave(seat: EpisodeSeat, _: object) -> None:
    seat.end()


def limits_of(own: Limits, task: EnvironmentTask) -> Limits:
    """The environment's, with those of the configuration in their place."""
    given: dict[str, Any] = task.limits.model_dump(exclude_none=True)
    return replace(own, **given)


def text_of(template: ChatTemplate, token_ids: Sequence[int]) -> str:
    """What stands behind the opening, without what ended it, as of every completion."""
    has_end = len(token_ids) > 0 and template.is_end(token_ids[-1])
    return template.text(token_ids[:-1] if has_end else token_ids)


def failed_completion(place: int, policy_version: int, error: WorldError) -> Completion:
    """Of an evaluation's episode whose world failed: without tokens, and without a score."""
    return Completion(
        sample_index=place,
        token_ids=np.zeros(0, np.int32),
        logprobs=np.zeros(0, np.float32),
        loss_mask=np.zeros(0, np.bool_),
        text=str(error),
        finish_reason=FinishReason.ERROR,
        version_spans=(VersionSpan(policy_version=policy_version, start=0, end=0),),
        episode=EpisodeFacts(outcome=Outcome.FAILED.value, turns=(), num_attempts=MAX_ATTEMPTS),
    )


def completion_of(
    prompt: Prompt, place: int, episode: Episode, template: ChatTemplate, *, num_attempts: int
) -> Completion:
    """The episode as a completion of its opening. Raises ValueError where a reply stands behind other tokens than it
    was sampled behind."""
    conversation = episode.conversation
    token_ids, logprobs, loss_mask = conversation.arrays()
    check_spans(prompt.token_ids, token_ids, conversation.spans)
    # Truncated is an episode whose last reply was, or that has no room to go on. One that a limit ended is whole.
    if episode.outcome is Outcome.ENGINE:  # maybe in the first reply already
        finish_reason, loss_mask = FinishReason.ERROR, np.zeros_like(loss_mask)
    elif episode.outcome is Outcome.TOKENS:
        finish_reason = FinishReason.LENGTH
    else:
        finish_reason = episode.replies[-1].finish_reason
    return Completion(
        sample_index=place,
        token_ids=token_ids,
        logprobs=logprobs,
        loss_mask=loss_mask,
        text=text_of(template, token_ids.tolist()),
        finish_reason=finish_reason,
        version_spans=conversation.version_spans,
        num_nonfinite_logprobs=conversation.num_nonfinite_logprobs,
        episode=EpisodeFacts(
            outcome=episode.outcome.value,
            turns=conversation.spans,
            spoken=spoken_of(episode),
            scores=episode.scores,
            num_tool_calls=episode.num_tool_calls,
            num_attempts=num_attempts,
            num_replayed=episode.num_replayed,
            seconds=episode.seconds,
            world_s=episode.world_s,
        ),
    )


def spoken_of(episode: Episode) -> tuple[SpokenTurn, ...]:
    """[reply] its turns in words."""
    unanswered = [()] * (len(episode.replies) - len(episode.answers))
    return tuple(
        SpokenTurn(
            text=reply.text,
            calls=tuple((call.name, json.dumps(call.arguments, default=str)) for call in reply.tool_calls),
            heard=tuple(SpokenMessage(role=one.role, text=one.content, name=one.name) for one in answer),
        )
        for reply, answer in zip(episode.replies, (*episode.answers, *unanswered), strict=True)
    )
