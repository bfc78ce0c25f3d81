"""What a demo run reads and writes: sums, worked out in words, and the vocabulary that they are made of."""

import re
from dataclasses import dataclass

import numpy as np

from rollout.prompts.prompt_building import prompt_uid

TASK = "sums"
EOS = "<|im_end|>"
_SPECIAL = ("<pad>", "<|im_start|>", EOS)
_PIECE = re.compile(r"<\|im_\w+\|>| ?[A-Za-z]+| ?\d|\\boxed| ?[^\w\s]|\s")

_LONG = (
    "To add {a} and {b}, first add the tens: {ta} + {tb} = {t}. Then add the ones: {oa} + {ob} = {o}. "
    "So {t} + {o} = {s}. The answer is \\boxed{{{s}}}.",
    "Let me round {b} up to {r}: {a} + {r} = {q}. That is {d} too many, so {q} - {d} = {s}. \\boxed{{{s}}} ✓",
    "Counting on from {a} in tens gives {u}, and {ob} more gives {s}. The final answer: \\boxed{{{s}}}.",
)
_SHORT = ("{a} + {b} = {s}. The answer is \\boxed{{{s}}}.",)
_DOUBT = "\nWait, let me check again: {a} + {b}. The ones give {o}, the tens give {t}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """A question of a demo run."""

    a: int
    b: int

    @property
    def question(self) -> str:
        return f"What is {self.a} + {self.b}?"

    @property
    def truth(self) -> int:
        return self.a + self.b

    @property
    def uid(self) -> str:
        return prompt_uid(TASK, self.question)

    @property
    def prompt_text(self) -> str:
        return f"<|im_start|>user\n{self.question}{EOS}\n<|im_start|>assistant\n"

    @property
    def difficulty(self) -> float:
        """In logits: a carry and large numbers make a sum hard."""
        return 1.4 * (self.a % 10 + self.b % 10 > 9) + (self.truth - 100) / 60


def draw_sums(rng: np.random.Generator, number: int) -> list[Sum]:
    """Different sums of two numbers of two digits."""
    places = rng.choice(90 * 90, size=number, replace=False)
    return [Sum(a=10 + int(place) // 90, b=10 + int(place) % 90) for place in places]


def wrong_answer(rng: np.random.Generator, task: Sum) -> int:
    """As people and small models get it wrong: the carry forgotten, one off, digits swapped."""
    slips = [task.truth - 10, task.truth + 1, task.truth - 1, task.truth + 10, int(str(task.truth)[::-1])]
    return int(rng.choice([slip for slip in slips if slip != task.truth]))


def worked_answer(rng: np.random.Generator, task: Sum, result: int, *, brief: float) -> str:
    """The working with its end; `brief` is the share of answers without working."""
    templates = _SHORT if rng.random() < brief else _LONG
    return templates[int(rng.integers(len(templates)))].format(**_numbers(task, result))


def doubts(task: Sum, result: int, times: int) -> str:
    """What a model says that cannot stop."""
    return _DOUBT.format(**_numbers(task, result)) * times


def encode(text: str) -> list[int]:
    """Token ids; a character that is not in the vocabulary becomes its bytes."""
    ids: list[int] = []
    for piece in _split(text):
        if piece in _IDS:
            ids.append(_IDS[piece])
        else:
            ids += [_IDS[f"<0x{byte:02X}>"] for byte in piece.encode()]
    return ids


def decode(ids: list[int]) -> str:
    """The text of ids, bytes put together again and special tokens left out."""
    data = b"".join(
        bytes([int(PIECES[index][3:5], 16)]) if PIECES[index].startswith("<0x") else PIECES[index].encode()
        for index in ids
        if PIECES[index] not in _SPECIAL
    )
    return data.decode("utf-8", "replace")


def _numbers(task: Sum, result: int) -> dict[str, int]:
    a, b = task.a, task.b
    up = -(-b // 10) * 10
    ones = a % 10 + b % 10
    return {
        "a": a, "b": b, "ta": a - a % 10, "tb": b - b % 10, "oa": a % 10, "ob": b % 10,
        "t": result - ones, "o": ones, "r": up, "q": a + up, "d": up - b, "u": a + b - b % 10, "s": result,
    }  # fmt: skip


def _split(text: str) -> list[str]:
    pieces = []
    for piece in _PIECE.findall(text):
        # A blank before a character of several bytes is a piece of its own.
        pieces += [piece] if piece.isascii() else list(piece)
    return pieces


def _vocabulary() -> list[str]:
    words = {f"{blank}{digit}" for blank in ("", " ") for digit in range(10)}
    for text in (*_LONG, *_SHORT, _DOUBT, "user\nassistant\nWhat is?"):
        words |= set(_split(re.sub(r"\{\w+\}", "1", text).replace("{{", "{").replace("}}", "}")))
    words |= {"{", "}", " -", "-", " ", "."}
    return [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(w for w in words if w.isascii())]


PIECES = _vocabulary()
"""Token id -> its text."""
_IDS = {piece: index for index, piece in enumerate(PIECES)}
EOS_ID = _IDS[EOS]
