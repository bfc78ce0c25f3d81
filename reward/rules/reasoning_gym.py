"""reasoning-gym's own scorers as a reward function.

Some of them evaluate the answer as Python (`eval`, or sympy's `parse_expr`, which is `eval` too). Model text is data,
so for those generators an answer has to be plain data or plain arithmetic; any other scores as no answer.
"""

import ast
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import reasoning_gym

from reward.functions import register
from reward.math.extraction import extract_answer
from reward.types import RewardInput

# Generators whose scorers evaluate the answer as an expression, and as a Python literal.
EVALUATED_EXPRESSION = frozenset(
    {"countdown", "puzzle24", "simple_integration", "intermediate_integration", "polynomial_multiplication"}
)
EVALUATED_LITERAL = frozenset({"string_insertion", "spiral_matrix", "binary_matrix", "n_queens"})
# Their scorers compare a grid with a tuple of tuples, which is a list of lists once the row has been JSON.
_COMPARED_WITH_TUPLES = frozenset({"arc_agi", "rearc"})

_MAX_EXPRESSION_CHARS = 2000
_MAX_EXPRESSION_NODES = 400
_MAX_EXPONENT = 1000
_FUNCTIONS = frozenset(
    {"sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "ln"}
    | {"sqrt", "Abs"}
)
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.USub, ast.UAdd)


@register("reasoning_gym")
def reasoning_gym_score(item: RewardInput, generator: str | None = None) -> float:
    """The score of the generator's own scorer, in [0, 1].

    Its answer is what stands in <answer> tags, else behind another mark, else the whole completion. The generator is
    `generator`, else the row's `metadata.source_dataset`, else the task's name.

    Raises:
        ValueError: no such generator, or a row without metadata.
    """
    name = generator or _generator_of(item)
    if "metadata" not in item.row:
        raise ValueError(f"the row of a {name} question has no metadata; its columns are {sorted(item.row)}")
    entry = {"question": item.question, "answer": item.ground_truth, **item.row}
    if name in _COMPARED_WITH_TUPLES:
        entry["metadata"] = {**item.row["metadata"], "output": _as_tuples(item.row["metadata"]["output"])}
    return float(_scorer(name)(_safe(name, _answer(item.completion), entry["answer"]), entry))


def _generator_of(item: RewardInput) -> str:
    metadata = item.row.get("metadata")
    source = metadata.get("source_dataset") if isinstance(metadata, dict) else None
    return str(source or item.task)


@lru_cache(maxsize=256)
def _scorer(name: str) -> Callable[[str | None, dict[str, Any]], float]:
    # The library annotates it as a function of nothing.
    found: Any = reasoning_gym.get_score_answer_fn(name)
    scorer: Callable[[str | None, dict[str, Any]], float] = found
    return scorer


def _answer(completion: str) -> str:
    extracted = extract_answer(completion)
    # Without a mark the whole text is the answer: most scorers read words, lists or grids, not the last number.
    marked = extracted is not None and extracted.mark not in ("number", "bare")
    return extracted.text if marked and extracted is not None else completion.strip()


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(element) for element in value) if isinstance(value, (list, tuple)) else value


def _safe(name: str, answer: str, oracle: str | None) -> str | None:
    if answer == oracle:
        return answer
    if name in EVALUATED_EXPRESSION and not is_plain_arithmetic(answer):
        return None
    if name in EVALUATED_LITERAL and not is_literal(answer):
        return None
    return answer


def is_plain_arithmetic(text: str) -> bool:
    """Whether `text` is made of numbers, one-letter variables and elementary functions, without huge powers."""
    if len(text) > _MAX_EXPRESSION_CHARS:
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    nodes = list(ast.walk(tree))
    return len(nodes) <= _MAX_EXPRESSION_NODES and all(_is_plain(node) for node in nodes) and _log10(tree.body) < 10_000


def is_literal(text: str) -> bool:
    """Whether Python reads `text` as a literal (lists, numbers, strings), or does not read it at all."""
    try:
        ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return "(" not in text  # eval refuses it too; nothing is called without a bracket in any case
    try:
        ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return type(node.value) in (int, float)
    if isinstance(node, ast.Name):
        return len(node.id) == 1 or node.id in _FUNCTIONS or node.id == "pi"
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and not node.keywords
    return isinstance(node, (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Load, *_OPERATORS))


def _log10(node: ast.expr) -> float:
    """An upper bound on log10 of the size of a node's value; inf for a power whose exponent is no small number."""
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, (int, float))
        return math.log10(abs(node.value)) if abs(node.value) > 1 else 0.0
    if isinstance(node, ast.UnaryOp):
        return _log10(node.operand)
    if isinstance(node, ast.Call):
        return max((_log10(argument) for argument in node.args), default=0.0)
    if isinstance(node, ast.BinOp):
        left, right = _log10(node.left), _log10(node.right)
        if isinstance(node.op, ast.Pow):
            return math.inf if right > math.log10(_MAX_EXPONENT) else max(left, 1.0) * 10.0**right
        return left + right + 1.0
    return 0.0
