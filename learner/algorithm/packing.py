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

    queries: int
    """Which piece of the row."""
    keys: tuple[int, ...]
    """Pieces of the row, laid end to end; the queries are the last of them."""
    counts: tuple[int, ...]
    """Tokens of the prompt and of each completion among the keys."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Packing:
    """Where everything lies in a row."""

    blocks: tuple[Block, ...]
    whole_tokens: int = WHOLE_TOKENS
    """Blocks of up to so many tokens are one part."""
    windows: set[int | None] = field(default_factory=set, init=False)
    """Of the layers that were computed so far."""

    @cached_property
    def pieces(self) -> tuple[int, ...]:
        """Lengths of the pieces that the row is cut into."""
        return tuple(length for block in self.blocks for length in self._pieces(block))

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Attention calls whose queries are the row from its first piece to its last."""
        found: list[Part] = []
        for block in self.blocks:
            first, counts = len(found), (block.num_prompt_tokens, *block.num_completion_tokens)
            if len(self._pieces(block)) == 1:
                found.append(Part(queries=first, keys=(first,), counts=counts))
                continue
            found.append(Part(queries=first, keys=(first,), counts=counts[:1]))
            for place, length in enumerate(block.num_completion_tokens, first + 1):
                found.append(Part(queries=place, keys=(first, place), counts=(counts[0], length)))
        return tuple(found)

    def _pieces(self, block: Block) -> tuple[int, ...]:
        if len(block.num_completion_tokens) == 1 or block.end - block.start <= self.whole_tokens:
            return (block.end - block.start,)
        return (block.num_prompt_tokens, *block.num_completion_tokens)

    def position_ids_N(self) -> NDArray[np.int64]:
        """Of each token: its place in its own sequence, prompt included."""
        return np.concatenate([_places((b.num_prompt_tokens, *b.num_completion_tokens)) for b in self.blocks])

    def mask_TS(self, part: Part, device: torch.device, window: int | None) -> Tensor:
        """bool: where a query (row) may look (column). `window`: only at that many tokens, itself the last (sliding
        attention)."""
        self.windows.add(window)
        return _MASKS.of(self, part, device, window)


class _Masks:
    """Those of the row that is computed now: all its layers have the same, and another row has others. Kept with the
    row, those of a whole step would pile up."""

    def __init__(self) -> None:
        self._packing: Packing | None = None
        self._known: dict[tuple[Part, torch.device, int | None], Tensor] = {}

    def of(self, packing: Packing, part: Part, device: torch.device, window: int | None) -> Tensor:
        if packing is not self._packing:
            self._packing, self._known = packing, {}
        key = (part, device, window)
        if key not in self._known:
            num_queries = packing.pieces[part.queries]
            self._known[key] = _mask_TS(part.counts, num_queries, window, device)
        return self._known[key]


_MASKS = _Masks()


def pack(
    prompts: Sequence[Sequence[int]], num_completion_tokens: Sequence[int], *, whole_tokens: int = WHOLE_TOKENS
) -> tuple[Packing, list[list[int]]]:
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
    return Packing(blocks=tuple(blocks), whole_tokens=whole_tokens), list(members.values())


def _places(counts: Sequence[int]) -> NDArray[np.int64]:
    """Of a prompt's tokens, and of those of completions behind it."""
    prompt, *completions = counts
    return np.concatenate([np.arange(prompt), *(np.arange(prompt, prompt + n) for n in completions)])


def _mask_TS(counts: Sequence[int], num_queries: int, window: int | None, device: torch.device) -> Tensor:
    owner_S = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device)
    place_S = torch.from_numpy(_places(counts)).to(device)
    owner_T, place_T = owner_S[-num_queries:], place_S[-num_queries:]
    mask_TS = (owner_T[:, None] == owner_S) | (owner_S == 0)
    mask_TS &= place_T[:, None] >= place_S
    if window is not None:
        mask_TS &= place_T[:, None] < place_S + window
    return mask_TS
