"""reasoning-gym's own scorers as a reward function.

Some of them evaluate the answer as Python (`eval`, or sympy's `parse_expr`, which is `eval` too). Model text is data,
so for those generators an answer has to be plain data or plain arithmetic; any other scores as no answer.
"""

import ast
import contextlib
import difflib
import io
import json
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import reasoning_gym
from reasoning_gym.factory import DATASETS

from reward.functions import register
from reward.rules.final_text import final_text
from reward.rules.reasoning_gym_mends import MENDED, REFUSED, is_no_answer
from reward.types import ExplainedScore, RewardInput

_Scorer: TypeAlias = Callable[[str | None, dict[str, Any]], float]

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


def _check(generator: str | None = None, generator_params: dict[str, Any] | None = None) -> None:
    if generator is not None and generator not in DATASETS:
        close = difflib.get_close_matches(generator, DATASETS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"reasoning-gym has no generator {generator!r}{hint}")
    if generator is not None and generator in REFUSED:
        raise ValueError(f"questions of {generator} cannot be scored: {REFUSED[generator]}")
    if generator_params and generator is None:
        raise ValueError("generator_params are those of one generator: name it as generator")
    try:
        if generator is not None:
            _scorer(generator, json.dumps(generator_params or {}, sort_keys=True))
    except (TypeError, AssertionError, ValueError) as error:
        raise ValueError(f"generator_params do not fit {generator}: {error}") from error


def _check_row(item: RewardInput, generator: str | None = None, **_others: object) -> None:
    name = generator or _generator_of(item)
    if name not in DATASETS:
        raise ValueError(
            f"{name!r} is no generator of reasoning-gym; give one as params.generator, or rows with "
            "metadata.source_dataset"
        )
    if name in REFUSED:
        raise ValueError(f"questions of {name} cannot be scored: {REFUSED[name]}")
    if not isinstance(item.row.get("metadata"), dict):
        raise ValueError(f"the row of a {name} question has no metadata; its columns are {sorted(item.row)}")


@register("reasoning_gym", check=_check, check_row=_check_row)
def reasoning_gym_score(
    item: RewardInput, generator: str | None = None, generator_params: dict[str, Any] | None = None
) -> float:
    """The score of the generator's own scorer, in [0, 1]; some give a share for an answer that is nearly right.

    Its answer is what stands in <answer> tags, else behind another mark, else the whole completion. The generator is
    `generator`, else the row's `metadata.source_dataset`, else the task's name. `generator_params` are those of the
    task, for the scorers whose tolerance depends on them. What a scorer cannot read is 0.

    Raises:
        ValueError: no such generator, or a row without metadata.
    """
    _check_row(item, generator)
    name = generator or _generator_of(item)
    entry = {"question": item.question, "answer": item.ground_truth, **item.row}
    if name in _COMPARED_WITH_TUPLES:
        entry["metadata"] = {**item.row["metadata"], "output": _as_tuples(item.row["metadata"]["output"])}
    answer = _safe(name, final_text(item.completion), entry)
    if answer is None:
        return ExplainedScore(0.0, f"no answer of the kind that {name} asks for")
    if name in MENDED:
        return MENDED[name](answer, entry)
    scorer = _scorer(name, json.dumps(generator_params or {}, sort_keys=True))
    try:
        score = _quiet(scorer, answer, entry)
    except Exception as error:  # noqa: BLE001 - boundary: scorers raise whatever an odd answer leads them into
        _quiet(scorer, item.ground_truth, entry)  # a row at fault fails with its own answer too: that raises
        return ExplainedScore(0.0, f"the scorer of {name} cannot read the answer ({type(error).__name__}: {error})")
    if math.isnan(score):
        return ExplainedScore(0.0, f"the scorer of {name} gave no number")
    return min(max(score, 0.0), 1.0)


def _generator_of(item: RewardInput) -> str:
    metadata = item.row.get("metadata")
    source = metadata.get("source_dataset") if isinstance(metadata, dict) else None
    return str(source or item.task)


@lru_cache(maxsize=256)
def _scorer(name: str, params: str) -> _Scorer:
    # The library annotates it as a function of nothing.
    found: Any = reasoning_gym.create_dataset(name, **json.loads(params)).score_answer
    scorer: _Scorer = found
    return scorer


def _quiet(scorer: _Scorer, answer: str | None, entry: dict[str, Any]) -> float:
    # Some print each answer that is wrong.
    with contextlib.redirect_stdout(io.StringIO()):
        return float(scorer(answer, entry))


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(element) for element in value) if isinstance(value, (list, tuple)) else value


def _safe(name: str, answer: str, entry: dict[str, Any]) -> str | None:
    if answer == entry["answer"]:
        return answer
    if name in EVALUATED_EXPRESSION and not is_plain_arithmetic(answer):
        return None
    if name in EVALUATED_LITERAL and not is_literal(answer):
        return None
    return None if is_no_answer(name, answer, entry) else answer


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
