"""Which tokens of completions the policy sampled. Of an episode the others are what its world said: they have no
log-probability of the sampler's, and are part of no length, entropy or gap.

A batch of B completions has its tokens end to end, N in all, as in `features.py`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.dashboard.files.features import Ints, Lists
from cluster.record.episode_text import episode_of
from rollout.episode_types import EpisodeFacts

NOT_SAMPLED = -1
_MOST = 1 << 31
"""A whole number of a file that is believed: of tokens, of calls, a score."""


def read_episodes(texts: Sequence[str | None]) -> list[EpisodeFacts | None]:
    """Of the column `episode`; None where it cannot be read, as in a table of another version."""
    return [_read(text) for text in texts]


def stretches(tokens: Lists, episodes: Sequence[EpisodeFacts | None]) -> Ints:
    """[N] a number for each stretch that was sampled in one go: a completion, or a turn of an episode; `NOT_SAMPLED`
    for what the world said."""
    found = tokens.owner()
    next_number, starts = len(tokens.lengths), np.concatenate([[0], np.cumsum(tokens.lengths)])
    for place, episode in enumerate(episodes):
        if episode is None:
            continue
        own = found[starts[place] : starts[place + 1]]
        own[:] = NOT_SAMPLED
        for number, turn in enumerate(episode.turns, start=next_number):
            own[max(0, turn.start) : max(0, turn.end)] = number
        next_number += len(episode.turns)
    return found


def counted(tokens: Lists, of_stretches: Ints, loss_mask: Lists) -> Lists:
    """B lists of flags: the tokens that log-probabilities are compared on. Those that may be trained on, where there is
    one; of a completion that was given up, or without a mask, all that were sampled."""
    flags = of_stretches != NOT_SAMPLED
    mask = _where_as_long(loss_mask, tokens)
    owner = tokens.owner()
    has_mask = np.bincount(owner[mask], minlength=len(tokens.lengths)) > 0
    return Lists(np.where(has_mask[owner], mask, flags), tokens.lengths)


def only(lists: Lists, flags: Lists) -> Lists:
    """Of each list the values whose flag is set; one that has not as many values as flags is left as it is."""
    same = lists.lengths == flags.lengths
    if not len(lists.values):
        return lists
    kept = np.ones(len(lists.values), bool)
    kept[np.repeat(same, lists.lengths)] = flags.values[np.repeat(same, flags.lengths)]
    lengths = np.bincount(lists.owner()[kept], minlength=len(lists.lengths)).astype(np.int64)
    return Lists(lists.values[kept], lengths)


def _where_as_long(flags: Lists, tokens: Lists) -> NDArray[np.bool_]:
    """[N] the flags; False for a completion that has not as many."""
    same = flags.lengths == tokens.lengths
    found = np.zeros(int(tokens.lengths.sum()), bool)
    found[np.repeat(same, tokens.lengths)] = flags.values[np.repeat(same, flags.lengths)].astype(bool)
    return found


def _read(text: str | None) -> EpisodeFacts | None:
    try:
        episode = episode_of(text)
        return episode if episode is None or _is_sound(episode) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _is_sound(episode: EpisodeFacts) -> bool:
    """Whether its values are of the kinds that they should be: the file may be anybody's."""
    turns, spoken = episode.turns, episode.spoken
    counts = [episode.num_tool_calls, episode.num_attempts, *(n for turn in turns for n in (turn.start, turn.end))]
    numbers = [episode.seconds, episode.world_s, *(score for score in episode.scores.values() if score is not None)]
    texts = [episode.outcome, *(turn.finish for turn in turns)]
    for turn in spoken:
        texts += [turn.text, *(text for call in turn.calls for text in call)]
        texts += [text for message in turn.heard for text in (message.role, message.text, message.name)]
    return (
        all(isinstance(count, int) and abs(count) < _MOST for count in counts)
        and all(isinstance(number, float) or (isinstance(number, int) and abs(number) < _MOST) for number in numbers)
        and all(isinstance(text, str) for text in texts)
    )
