"""Sequences of a micro-batch in one row, without padding: a prompt once, its completions behind it.

    prompt a | completion a0 | completion a1 | ... | prompt b | completion b0 | ...

A completion looks at its own prompt and at itself, so each token is computed from what it would see alone, and the
gradient of a prompt is the sum over its completions: the same as with every completion behind a prompt of its own, for
the arithmetic of one prompt.

Dimensions: N tokens of the row; T queries and S keys of a part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WHOLE_TOKENS = 384
"""Blocks of up to so many tokens are one attention call, though completions of a block do not look at each other: one
call costs less than several small ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A prompt and its completions, side by side in the row."""

    start: int
    num_prompt_tokens: int
    num_completion_tokens: tuple[int, ...]
    """Of each completion, in their order in the row."""

    @property
    def prompt_end(self) -> int:
        """Where the first completion begins."""
        return self.start + self.num_prompt_tokens

    @property
    def end(self) -> int:
        """One behind its last token."""
        return self.prompt_end + sum(self.num_completion_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Queries of one attention call, and the keys that they may look at."""

    queries: slice
    """Of the row."""
    keys: tuple[slice, ...]
    """Of the row, laid end to end."""
    counts: tuple[int, ...]
    """Tokens of the prompt and of each completion among the keys; the queries are the last of the keys."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Packing:
    """Where everything lies in a row."""

    blocks: tuple[Block, ...]
    _masks: dict[tuple[tuple[int, ...], int, torch.device, int | None], Tensor] = field(
        default_factory=dict, init=False, repr=False
    )

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Attention calls whose queries are the row from its first token to its last."""
        return tuple(part for block in self.blocks for part in _parts(block))

    @property
    def windows(self) -> set[int | None]:
        """That were asked for so far."""
        return {window for *_, window in self._masks}

    def position_ids_N(self) -> NDArray[np.int64]:
        """Of each token: its place in its own sequence, prompt included."""
        return np.concatenate([_places((b.num_prompt_tokens, *b.num_completion_tokens)) for b in self.blocks])

    def mask_TS(self, part: Part, device: torch.device, window: int | None) -> Tensor:
        """bool: where a query (row) may look (column). `window`: only at that many tokens, itself the last (sliding
        attention). Made once for all layers."""
        num_queries = part.queries.stop - part.queries.start
        key = (part.counts, num_queries, device, window)
        if key not in self._masks:
            self._masks[key] = _mask_SS(part.counts, window)[-num_queries:].to(device)
        return self._masks[key]


def pack(prompts: Sequence[Sequence[int]], num_completion_tokens: Sequence[int]) -> tuple[Packing, list[list[int]]]:
    """The row of these sequences, and which sequences are in each block. Sequences with one prompt share it."""
    members: dict[tuple[int, ...], list[int]] = {}
    for number, prompt in enumerate(prompts):
        members.setdefault(tuple(prompt), []).append(number)
    blocks: list[Block] = []
    start = 0
    for prompt, numbers in members.items():
        lengths = tuple(num_completion_tokens[number] for number in numbers)
        blocks.append(Block(start=start, num_prompt_tokens=len(prompt), num_completion_tokens=lengths))
        start = blocks[-1].end
    return Packing(blocks=tuple(blocks)), list(members.values())


def _parts(block: Block) -> list[Part]:
    counts = (block.num_prompt_tokens, *block.num_completion_tokens)
    whole = slice(block.start, block.end)
    if len(counts) == 2 or block.end - block.start <= WHOLE_TOKENS:
        return [Part(queries=whole, keys=(whole,), counts=counts)]
    prompt = slice(block.start, block.prompt_end)
    ends = list(accumulate(counts, initial=block.start))
    completions = [slice(start, end) for start, end in pairwise(ends[1:])]
    return [
        Part(queries=prompt, keys=(prompt,), counts=counts[:1]),
        *(Part(queries=own, keys=(prompt, own), counts=(counts[0], own.stop - own.start)) for own in completions),
    ]


def _places(counts: Sequence[int]) -> NDArray[np.int64]:
    """Of a prompt's tokens, and of those of completions behind it."""
    prompt, *completions = counts
    return np.concatenate([np.arange(prompt), *(np.arange(prompt, prompt + n) for n in completions)])


def _mask_SS(counts: Sequence[int], window: int | None) -> Tensor:
    owner_S = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    place_S = torch.from_numpy(_places(counts))
    mask_SS = (owner_S[:, None] == owner_S) | (owner_S == 0)
    mask_SS &= place_S[:, None] >= place_S
    if window is not None:
        mask_SS &= place_S[:, None] - place_S < window
    return mask_SS
