r"""What a model may write as an answer, checked before it is parsed; `magnitude` checks what came of it.

An answer is data. It is parsed by a LaTeX grammar only, never by sympy's `parse_expr`, which is `eval`. Even so sympy
evaluates what it compares, and a few characters can ask for more work than there is time or memory for: 9^{9^9},
(10^7)!, a hundred nested fractions. What is over a limit here is no answer, and scores 0; what slips through meets the
child's deadline.
"""

import re

MAX_CHARS = 400
MAX_DEPTH = 24
"""Brackets inside brackets: the parser recurses."""
MAX_PARENTHESES = 6
"""Of these, round and square ones: the parser's time doubles with every two of them."""
MAX_COMMANDS = 60
MAX_UNIONS = 10
"""Of sets, and intersections."""
MAX_COMMAS = 60
"""Elements of sets and lists are compared with each other."""
MAX_DIGITS = 120
"""Of one number."""
MAX_EXPONENT = 5_000
MAX_FACTORIAL = 300

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
# The parser itself evaluates it: only of a small number, or of a variable.
_GAMMA_ARGUMENT = re.compile(
    r"\\Gamma\s*(?:\(\s*(?:\d{1,2}|[A-Za-z](?:\s*[-+]\s*\d{1,2})?|\\frac\{?\d\}?\{?\d\}?)\s*\)|(?![\s({\d]))"
)
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
    if latex.count(r"\Gamma") != len(_GAMMA_ARGUMENT.findall(latex)):
        return False
    if _depth(latex, "([", ")]") > MAX_PARENTHESES or latex.count(r"\cup") + latex.count(r"\cap") > MAX_UNIONS:
        return False
    if latex.count(",") > MAX_COMMAS:
        return False
    return _depth(latex, "([{", ")]}") <= MAX_DEPTH and _powers_are_small(latex) and _factorials_are_small(latex)


def _depth(latex: str, opening: str, closing: str) -> int:
    depth = deepest = 0
    for character in latex:
        if character in opening:
            depth += 1
            deepest = max(deepest, depth)
        elif character in closing:
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
