r"""What a model may write as an answer, checked before and after it is parsed.

An answer is data. It is parsed by a LaTeX grammar only, never by sympy's `parse_expr`, which is `eval`. Even so sympy
evaluates what it compares, and a few characters can ask for more work than there is time or memory for: 9^{9^9},
(10^7)!, a hundred nested fractions. What is over a limit here is no answer, and scores 0; what slips through meets the
child's deadline.
"""

import math
import re

import sympy

MAX_CHARS = 400
MAX_DEPTH = 24
"""Brackets inside brackets: the parser recurses."""
MAX_COMMANDS = 60
MAX_DIGITS = 120
"""Of one number."""
MAX_EXPONENT = 5_000
MAX_FACTORIAL = 300
MAX_TERM_POWER = 40
"""Exponent of a sum: (x+y)^n is expanded when it is compared."""
MAX_ROOT = 50
"""Of a root, and of the numbers in any exponent that is no integer: sympy searches for minimal polynomials."""
MAX_MAGNITUDE_DIGITS = 6_000
"""Decimal digits of any value inside an expression."""

_ALLOWED_CHARACTERS = re.compile(r"[0-9A-Za-z+\-*/^_=<>()\[\]{}|.,:!%\\& \u0370-\u03ff]*")
# Functions and symbols that are evaluated in bounded time. Not among them: sum, prod, int, lim (unbounded work).
_COMMANDS = frozenset(
    re.findall(
        r"\w+",
        """
        frac sqrt pi infty times cdot div pm mp le leq
        ge geq lt gt ne neq cup cap in notin setminus emptyset varnothing text mathrm mathbb sin cos tan cot
        sec csc arcsin arccos arctan sinh cosh tanh log ln exp binom circ degree begin end pmatrix bmatrix
        matrix vmatrix cdots ldots dots alpha beta gamma delta epsilon varepsilon zeta eta theta iota kappa
        lambda mu nu xi rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi
        Psi Omega lbrace rbrace langle rangle lfloor rfloor lceil rceil overline bar vec hat prime to mid
        vert lvert rvert imath i angle deg quad ast star ell hbar
        """,
    )
)
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_SIGN_RUN = re.compile(r"(?:[-+]\s*){4}")
"""The parser's time grows with the square of a run of signs."""
_DIGIT_RUN = re.compile(r"\d+")
_POWER = re.compile(r"\^\s*(?:\{([^{}]*)\}|(\S))")
_FACTORIAL_ARGUMENT = re.compile(r"(?<![\^\d.{])(\d{1,4}|[A-Za-z])\s*$")


def is_within_limits(latex: str) -> bool:
    """Whether `latex` may be parsed: short, shallow, of known symbols, without towers of powers or huge factorials."""
    if len(latex) > MAX_CHARS or "__" in latex or _ALLOWED_CHARACTERS.fullmatch(latex) is None:
        return False
    commands = _COMMAND.findall(latex)
    if len(commands) > MAX_COMMANDS or not _COMMANDS.issuperset(commands):
        return False
    if _SIGN_RUN.search(latex) is not None or any(len(digits) > MAX_DIGITS for digits in _DIGIT_RUN.findall(latex)):
        return False
    return _depth(latex) <= MAX_DEPTH and _powers_are_small(latex) and _factorials_are_small(latex)


def _depth(latex: str) -> int:
    depth = deepest = 0
    for character in latex:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest


def _powers_are_small(latex: str) -> bool:
    if "**" in latex or _has_tower(latex):
        return False
    exponents = [braced or single for braced, single in _POWER.findall(latex)]
    return all(int(number) <= MAX_EXPONENT for text in exponents for number in re.findall(r"\d{1,10}", text))


def _has_tower(latex: str) -> bool:
    """A power in the exponent of another: 9^{9^9}, 9^9^9."""
    open_exponents: list[int] = []
    depth = 0
    for index, character in enumerate(latex):
        if character in "({[":
            if latex[:index].rstrip().endswith("^"):
                open_exponents.append(depth)
            depth += 1
        elif character in ")}]":
            depth -= 1
            if open_exponents and open_exponents[-1] == depth:
                open_exponents.pop()
        elif character == "^" and open_exponents and latex[index : index + 7] != r"^{\circ":
            return True
    return re.search(r"\^\s*(?:\{[^{}]*\}|\w)\s*\^", latex) is not None


def _factorials_are_small(latex: str) -> bool:
    if "\\binom" in latex and any(int(number[:9]) > 1000 for number in _DIGIT_RUN.findall(latex)):
        return False  # the parser itself evaluates binomials
    for match in re.finditer("!", latex):
        argument = _FACTORIAL_ARGUMENT.search(latex[: match.start()])
        # Of anything else (a power, a bracket, another factorial) the size is not to be seen from the text.
        if argument is None or (argument.group(1).isdigit() and int(argument.group(1)) > MAX_FACTORIAL):
            return False
    return True


def magnitude_digits(expression: object) -> float:
    """An upper bound on the decimal digits of any number that evaluating a sympy `expression` makes; inf if unknown.

    A bound for each node from those of its arguments, without evaluating any.
    """
    bound, largest = _bounds(expression)
    return max(bound, largest)


def _bounds(node: object) -> tuple[float, float]:
    """(digits of this node's value, most digits of any value below it)"""
    arguments = [_bounds(argument) for argument in getattr(node, "args", ())]
    below = max((max(pair) for pair in arguments), default=0.0)
    if isinstance(node, sympy.Rational):
        return float(max(len(str(abs(node.p))), len(str(node.q)))), 0.0
    if isinstance(node, sympy.Float):
        value = abs(float(node))
        return (abs(math.log10(value)) + 1 if value else 1.0), 0.0
    if isinstance(node, sympy.Pow):
        base, exponent = node.args
        if exponent.is_Number and abs(float(exponent)) > MAX_TERM_POWER and isinstance(base, sympy.Add):
            return math.inf, below
        if not exponent.is_Integer and any(abs(number) > MAX_ROOT for number in _whole_numbers(exponent)):
            return math.inf, below
        if exponent.is_Number or exponent.is_number:
            # d digits of the exponent make it less than 10^d.
            size = 10.0 ** min(arguments[1][0], 12.0) if not exponent.is_Number else abs(float(exponent))
            return arguments[0][0] * max(size, 1.0), below
        return arguments[0][0], below
    if isinstance(node, sympy.factorial):
        (argument,) = node.args
        size = float(argument) if argument.is_Number else 10.0 ** min(arguments[0][0], 12.0)
        return size * math.log10(max(size, 2.0)) if argument.is_number else 1.0, below
    if isinstance(node, (sympy.Mul, sympy.Add)):
        return sum(pair[0] for pair in arguments), below
    return max((pair[0] for pair in arguments), default=1.0), below


def _whole_numbers(expression: sympy.Basic) -> list[int]:
    """All integers in `expression`, numerators and denominators among them."""
    return [part for number in expression.atoms(sympy.Rational) for part in (int(number.p), int(number.q))]
