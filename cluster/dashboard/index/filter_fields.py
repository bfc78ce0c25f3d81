"""What a filter may compare and a table be sorted by, and the filters that have a name. As data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

FieldType = Literal["number", "text", "flag"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """What a filter may compare, or a table be sorted by."""

    name: str
    type: FieldType
    help: str
    aliases: tuple[str, ...] = ()
    sortable: bool = True


FIELDS = (
    Field(name="phase", type="text", help="train or eval"),
    Field(name="step", type="number", help="training step; of an evaluation: the steps before it"),
    Field(name="group_id", type="text", help="the group", aliases=("group",)),
    Field(name="sample_index", type="number", help="which of the group's completions", aliases=("sample",)),
    Field(name="uid", type="text", help="the prompt, the same in every epoch"),
    Field(name="epoch", type="number", help="how often the prompts were gone through before"),
    Field(name="reward", type="number", help="the reward; reward.NAME is one of its components"),
    Field(name="advantage", type="number", help="the advantage; none where not trained on", aliases=("adv",)),
    Field(name="correct", type="flag", help="the answer was judged right"),
    Field(name="outcome", type="text", help="of scoring: ok, timeout, error or invalid"),
    Field(name="finish", type="text", help="stop, length, abort or error"),
    Field(name="truncated", type="flag", help="ended at the limit of tokens", sortable=False),
    Field(name="trained", type="flag", help="has an advantage", sortable=False),
    Field(name="disagreed", type="flag", help="same answer, other reward than another of its group"),
    Field(name="length", type="number", help="tokens that were sampled", aliases=("len",)),
    Field(name="entropy", type="number", help="mean over its sampled tokens, nats"),
    Field(name="max_gap", type="number", help="largest |log p(learner) - log p(sampler)|, nats", aliases=("gap",)),
    Field(name="k3", type="number", help="mean k3 estimate of the divergence between sampler and learner"),
    Field(name="repetition", type="number", help="share of 4-grams of tokens that occurred before in it"),
    Field(name="turns", type="number", help="replies of an episode; none of a single answer"),
    Field(name="tool_calls", type="number", help="calls of tools in an episode", aliases=("calls",)),
    Field(
        name="episode_outcome",
        type="text",
        help="how an episode ended: done, turns, tokens, seconds, ...",
        aliases=("episode",),
    ),
    Field(name="lag", type="number", help="versions between sampling and training"),
    Field(name="pass_rate", type="number", help="share of its group that is right"),
    Field(name="reward_std", type="number", help="standard deviation of its group's rewards"),
    Field(name="worker", type="text", help="who sampled it"),
    Field(name="answer", type="text", help="the final answer that was extracted"),
    Field(name="truth", type="text", help="the answer of the data"),
    Field(name="question", type="text", help="the prompt's question"),
    Field(name="text", type="text", help="the whole completion", sortable=False),
    Field(name="label", type="text", help="what somebody labelled it", sortable=False),
    Field(name="note", type="text", help="what somebody noted of it", sortable=False),
    Field(name="bookmarked", type="flag", help="somebody keeps it in mind", sortable=False),
)

BY_NAME: Mapping[str, Field] = {name: field for field in FIELDS for name in (field.name, *field.aliases)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedView:
    """A filter and a sort with a name."""

    name: str
    filter: str
    sort: str
    help: str
    groups: bool = False
    """Whether it is about groups: then they are listed, and not the completions."""


VIEWS = (
    SavedView(
        name="right but truncated",
        filter="correct & truncated",
        sort="-length",
        help="Judged right although the limit of tokens cut them off: the limit may be too low, or the grader lenient.",
    ),
    SavedView(
        name="grader disagreed",
        filter="disagreed",
        sort="-step",
        help="The same answer in the same group got another reward: a grader that depends on more than the answer.",
        groups=True,
    ),
    SavedView(
        name="largest gap",
        filter="gap>=0",
        sort="-max_gap",
        help="Where sampler and learner differ most about a token: stale weights or a difference in precision.",
    ),
    SavedView(
        name="repeating",
        filter="repetition>0.2",
        sort="-repetition",
        help="Completions that go round in circles.",
    ),
    SavedView(
        name="timeouts and errors",
        filter="outcome!=ok",
        sort="-step",
        help="Completions that could not be scored; the group page says why.",
    ),
    SavedView(
        name="all-wrong groups",
        filter="pass_rate=0 & phase=train",
        sort="-step",
        help="Groups of which no completion is right: nothing to learn from, the prompt may be too hard.",
        groups=True,
    ),
)
