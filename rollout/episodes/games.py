"""Worlds that come along: guessing a number, and sums with a calculator."""

import ast
import math
import operator
import random
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

from rollout.episodes.environment import (
    Done,
    Environment,
    Limits,
    Messages,
    Reply,
    Task,
    ToolCall,
    assistant,
    tool,
    user,
)

HIGHER, LOWER, NO_NUMBER = "higher", "lower", "a number please"
MAX_EXPRESSION = 200
OPERATORS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def turns_by_halves(num_numbers: int) -> int:
    """Turns in which a search by halves finds every one of so many numbers."""
    return num_numbers.bit_length()


def told_by(guess: int | None, first: int, last: int) -> float:
    """Bits that the answer to a guess tells of a number from `first` to `last`, over those of the best guess; 1 where
    one number is left and guessed."""
    if guess is None or not first <= guess <= last:
        return 0.0
    best = _bits((last - first) // 2, last - first + 1)
    return _bits(guess - first, last - first + 1) / best if best else 1.0


def _bits(num_lower: int, count: int) -> float:
    parts = (num_lower, 1, count - 1 - num_lower)
    return -sum(part / count * math.log2(part / count) for part in parts if part)


class GuessNumber(Environment):
    """Guess a number of a range that is told; the answer says higher or lower.

    The range follows from the task's seed, and so does the number. Scores: `won` within the turns that a search by
    halves needs, the number of `turns`, and `learned`: how much the answers to these guesses tell on average, of what
    the answer to the best guess would (1 for a search by halves, 0 for guesses whose answer was known).
    """

    def start(self, task: Task) -> Messages:
        """Tells the range."""
        low, high = self.range_of(task.seed)
        self.number = random.Random(f"number {task.seed}").randint(low, high)
        self.most = turns_by_halves(high - low + 1)
        self.first, self.last = low, high
        self.learned: list[float] = []
        return [user(self.opening_of(low, high))]

    def respond(self, reply: Reply) -> Messages | Done:
        """Says where the number is; ends with the last turn."""
        found = re.search(r"\d{1,9}", reply.text)
        guess = int(found[0]) if found is not None else None
        self.learned.append(told_by(guess, self.first, self.last))
        if guess == self.number or reply.turn >= self.most:
            learned = sum(self.learned) / len(self.learned)
            return Done(scores={"won": float(guess == self.number), "turns": float(reply.turn), "learned": learned})
        if guess is None:
            return [user(NO_NUMBER)]
        if guess < self.number:
            self.first = max(self.first, guess + 1)
            return [user(HIGHER)]
        self.last = min(self.last, guess - 1)
        return [user(LOWER)]

    @staticmethod
    def range_of(seed: int) -> tuple[int, int]:
        """Lowest and highest number of the world of a seed: seeds from 0 to 359 have ranges of their own."""
        low, width = seed % 40, 7 + seed // 40 % 9
        return low, low + width - 1

    @staticmethod
    def opening_of(low: int, high: int) -> str:
        """What the game begins with."""
        return f"Guess a number, {low} to {high}."


class ToolSums(Environment):
    """What is a + b * c? With a calculator, which a small model needs for it.

    Scores: `right`, and the number of `calls`.
    """

    limits = Limits(turns=4, tool_calls=4)

    EXAMPLES = ("7 + 12 * 5", "31 + 4 * 18", "64 + 27 * 9")

    def __init__(self, num_examples: int = 2) -> None:
        """`num_examples`, up to three, are the sums that are shown before, each with its call."""
        if not 0 <= num_examples <= len(self.EXAMPLES):
            raise ValueError(f"num_examples is {num_examples}; there are {len(self.EXAMPLES)}")
        self.num_examples = num_examples
        self.calls = 0

    def start(self, task: Task) -> Messages:
        """Asks."""
        draw = random.Random(f"sum {task.seed}")
        first, second, third = (draw.randint(2, 99) for _ in range(3))
        self.answer = first + second * third
        # Without results: a small model that has read some writes results by itself, and calls nothing.
        shown = self.EXAMPLES[: self.num_examples]
        calls = [ToolCall(name="calculate", arguments={"expression": sum_of}) for sum_of in shown]
        examples = [
            message
            for sum_of, call in zip(shown, calls, strict=True)
            for message in (user(f"What is {sum_of}?"), assistant("", call))
        ]
        return [*examples, user(f"What is {first} + {second} * {third}?")]

    @tool
    def calculate(self, expression: str) -> str:
        """Computes with + - * / and brackets.

        Args:
            expression: What is computed, such as 2 + 3 * 4.
        """
        self.calls += 1
        value = computed(expression)
        return str(value.numerator if value.denominator == 1 else float(value))

    def respond(self, reply: Reply) -> Messages | Done:
        """The last number of the reply is the answer."""
        found = re.findall(r"-?\d[\d,]*", reply.text)
        is_right = bool(found) and found[-1].replace(",", "") == str(self.answer)
        return Done(scores={"right": float(is_right), "calls": float(self.calls)})


def computed(expression: str) -> Fraction:
    """The value of an expression of numbers, + - * / and brackets. Raises ValueError for any other, ZeroDivisionError
    where it divides by zero."""
    if len(expression) > MAX_EXPRESSION:
        raise ValueError(f"the expression is longer than {MAX_EXPRESSION} characters")
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, RecursionError) as error:
        raise ValueError(f"{expression!r} is no expression of numbers, + - * / and brackets") from error


def _value(node: ast.AST) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return Fraction(str(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() as sign, right=right):
            return OPERATORS[type(sign)](_value(left), _value(right))
    raise ValueError(f"{ast.unparse(node)!r} is no number, and no + - * / of numbers")
