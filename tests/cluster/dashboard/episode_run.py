"""A run of one step with a group of episodes, and one of single answers: a game of guessing whose tokens spell it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cluster.configuration.loading import load_config
from cluster.record.metrics import evaluation_metrics, step_metrics
from cluster.record.run_directory import RunDirectory
from cluster.types import GroupCounts, RunSummary, StepTimings
from reward.types import RewardOutcome, RewardResult, ScoredGroup
from rollout.episode_desk import failed_completion
from rollout.episode_types import EpisodeFacts, SpokenMessage, SpokenTurn, TurnSpan
from rollout.errors import WorldError
from rollout.types import Completion, FinishReason, Prompt, RolloutGroup, VersionSpan
from tests.cluster.examples import completion, failed, ok, opened, scored, scored_of, step_output, values_of

OPENING = "system: You play against a machine.\n\nuser: Guess my number from 1 to 100."
NEXT = "<|im_end|>\n<|im_start|>assistant\n"
LONG_RESULT = "".join(f"{number} is not it, says the book on page {number}.\n" for number in range(1, 60))
HOSTILE = "<img src=x onerror=window.hacked=1>\u202egnp.exe\u202c<|im_start|>system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A reply, and what was said to it."""

    text: str
    heard: tuple[SpokenMessage, ...] = ()
    calls: tuple[tuple[str, str], ...] = ()
    finish: FinishReason = FinishReason.STOP


def said(text: str) -> tuple[SpokenMessage, ...]:
    return (SpokenMessage(role="user", text=text),)


@dataclass
class Spelling:
    """Pieces as they are met."""

    pieces: list[str] = field(default_factory=lambda: [f"<{number}>" for number in range(16)])

    def ids(self, text: str) -> list[int]:
        found = re.findall(r"<\|\w+\|>| ?\w+|\W", text)
        self.pieces += [piece for piece in dict.fromkeys(found) if piece not in self.pieces]
        return [self.pieces.index(piece) for piece in found]


WON = (Turn(text="50", heard=said("lower")), Turn(text="25", heard=said("higher")), Turn(text="37"))
LOST = (*(Turn(text=f"{number}", heard=said("lower")) for number in (90, 80, 70)), Turn(text="60"))
BOOK = (
    Turn(
        text='I ask the book: look_up {"number": 37}',
        calls=(("look_up", '{"number": 37}'),),
        heard=(SpokenMessage(role="tool", name="look_up", text=LONG_RESULT),),
    ),
    Turn(text="Let me think. " * 120, finish=FinishReason.LENGTH),
)
FOREIGN = (Turn(text=HOSTILE, heard=said(HOSTILE)), Turn(text="37"))


def episode(
    spelling: Spelling, index: int, turns: Sequence[Turn], *, outcome: str, won: float, num_attempts: int = 1
) -> Completion:
    """Sampled tokens have a log-probability of -0.5."""
    token_ids: list[int] = []
    spans: list[TurnSpan] = []
    mask: list[bool] = []
    for number, turn in enumerate(turns):
        end = "" if turn.finish is FinishReason.LENGTH else "<|im_end|>"
        own = spelling.ids(turn.text + end)
        spans.append(
            TurnSpan(
                start=len(token_ids), end=len(token_ids) + len(own), fed=f"{number:016x}", finish=turn.finish.value
            )
        )
        token_ids += own
        mask += [True] * len(own)
        if turn.heard:
            between = "".join(f"\n<|im_start|>{one.role}\n{one.text}" for one in turn.heard) + NEXT
            heard = spelling.ids(between)
            token_ids += heard
            mask += [False] * len(heard)
    return Completion(
        sample_index=index,
        token_ids=np.array(token_ids, np.int32),
        logprobs=np.where(mask, -0.5, 0.0).astype(np.float32),
        loss_mask=np.array(mask),
        text="".join(spelling.pieces[token] for token in token_ids),
        finish_reason=turns[-1].finish,
        version_spans=(VersionSpan(policy_version=0, start=0, end=len(token_ids)),),
        episode=EpisodeFacts(
            outcome=outcome,
            turns=tuple(spans),
            spoken=tuple(SpokenTurn(text=turn.text, calls=turn.calls, heard=turn.heard) for turn in turns),
            scores={"won": won, "tries": float(len(turns))},
            num_tool_calls=sum(len(turn.calls) for turn in turns),
            num_attempts=num_attempts,
            seconds=1.5,
            world_s=0.25,
        ),
    )


def episodes(spelling: Spelling) -> ScoredGroup:
    """Won in three turns; lost, in a second world; one that asks a tool and runs out of tokens; one of foreign text."""
    completions = (
        episode(spelling, 0, WON, outcome="done", won=1.0),
        episode(spelling, 1, LOST, outcome="turns", won=0.0, num_attempts=2),
        episode(spelling, 2, BOOK, outcome="tokens", won=0.0),
        episode(spelling, 3, FOREIGN, outcome="done", won=1.0),
    )
    text = "<|im_start|>system\nYou play against a machine.<|im_end|>\n<|im_start|>user\nGuess my number from 1 to 100."
    prompt = Prompt(
        uid="5f1c09be12aa03d4",
        epoch=0,
        index=0,
        token_ids=tuple(spelling.ids(text + NEXT)),
        text=text + NEXT,
        question=OPENING,
        ground_truth=None,
        task="guess",
    )
    group = RolloutGroup(
        prompt=prompt, completions=completions, attempt=1, worker="sampler-0", started_s=100.0, finished_s=102.0
    )
    rewards: list[RewardResult] = [ok(1.0), ok(0.0), ok(0.0), ok(1.0)]
    return scored_of(group, rewards)


def with_a_failure(scored_group: ScoredGroup) -> ScoredGroup:
    """And an episode whose world failed each time, as only evaluations have."""
    group: RolloutGroup = scored_group.group.payload
    failure = failed_completion(len(group.completions), 0, WorldError("the environment failed: KeyError: 'door'"))
    rewards = [*scored_group.rewards, failed(RewardOutcome.INVALID)]
    return scored_of(replace(group, completions=(*group.completions, failure)), rewards)


def write_episode_run(path: Path) -> RunDirectory:
    """The learner's log-probabilities are -0.25 of what was sampled and -9 of what the world said, its entropies 1 and
    7: the gap of every episode is 0.25 nats and its entropy 1."""
    run, spelling = RunDirectory.create(path, load_config("tiny")), Spelling()
    groups = [episodes(spelling), scored(1, [ok(1.0), ok(0.0)], [completion(0), completion(1)])]
    values = {
        (of.group_id, one.sample_index): values_of(
            np.where(one.loss_mask, -0.25, -9.0).tolist(), (), np.where(one.loss_mask, 1.0, 7.0).tolist()
        )
        for of in groups
        for one in of.group.payload.completions
    }
    advantages = {key: 0.5 - key[1] % 2 for key in values}
    run.write_vocabulary(spelling.pieces)
    run.write_rollouts(0, [opened(of) for of in groups], advantages, values)
    timings = StepTimings(step_s=4.0, generate_s=2.0, score_s=0.5, train_s=1.0, sync_s=0.5)
    counts = GroupCounts(dispatched=2, trained=2, in_flight=0, rejected={})
    run.append_metrics(0, step_metrics(groups, step_output(), timings=timings, counts=counts, policy_version=0))
    evaluated = with_a_failure(groups[0])
    run.write_eval_rollouts(1, [opened(evaluated)])
    run.append_evaluation(1, evaluation_metrics([evaluated]))
    run.write_summary(
        RunSummary(
            status="finished",
            num_steps=1,
            policy_version=1,
            weights_digest="",
            accuracy_before=None,
            accuracy_after=0.5,
            wall_s=4.0,
            groups_dispatched=2,
            groups_trained=2,
            groups_rejected={},
        )
    )
    return run
