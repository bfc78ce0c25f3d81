"""The filter language of the table of rollouts: text -> a tree.

    filter     := conjunction ("|" conjunction)*
    conjunction := term ("&" term)*
    term       := "!" term | "(" filter ")" | comparison | text
    comparison := field ("<" | "<=" | ">" | ">=" | "=" | "!=" | "~" | "!~") value
                | number-field ":" low ["-" high] | flag

`index_query` evaluates the tree on columns, so nothing of what was typed becomes part of a statement.
"""

import difflib
import re
from typing import NoReturn

from cluster.dashboard.index.filter_fields import BY_NAME, FIELDS, Field
from cluster.dashboard.index.filter_tree import And, Between, Compare, Flag, Node, Not, Or
from rollout.errors import ShoalError

MAX_CHARS = 2000
MAX_DEPTH = 40
MAX_TERMS = 100


class FilterError(ShoalError):
    """A filter or a sort that does not parse; the message says where and what is allowed."""


_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[^\s()&|!<>=~:\"]+")
_OPERATOR = re.compile(r"<=|>=|!=|!~|<|>|=|~|:")
_BARE_VALUE = re.compile(r"[^\s()&|\"]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?")


def parse_filter(text: str) -> Node | None:
    """The tree, None for an empty filter. Raises FilterError and nothing else."""
    if len(text) > MAX_CHARS:
        raise FilterError(f"the filter has {len(text)} characters, allowed: {MAX_CHARS}")
    parser = _Parser(text)
    return parser.whole()


def parse_sort(text: str) -> tuple[str, bool]:
    """(full name of the field, or "" for order of dispatch; whether descending). Raises FilterError."""
    name = text.strip()
    descending = name.startswith("-")
    name = name.lstrip("+-").strip()
    if not name:
        return "", descending
    if _is_component(name):
        return name, descending
    field = BY_NAME.get(name)
    if field is None or not field.sortable:
        allowed = ", ".join(field.name for field in FIELDS if field.sortable)
        raise FilterError(f"cannot sort by {_shown(name)}; allowed: {allowed}, with - in front for descending")
    return field.name, descending


class _Parser:
    """Recursive descent over `text`; `_at` is the place of the next character."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._terms = 0

    def whole(self) -> Node | None:
        self._skip()
        if self._at == len(self._text):
            return None
        node = self._either(0)
        if self._at < len(self._text):
            self._fail(f"got {_shown(self._text[self._at :])}, expected & or | or the end")
        return node

    def _either(self, depth: int) -> Node:
        parts = [self._all(depth)]
        while self._take("|"):
            parts.append(self._all(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _all(self, depth: int) -> Node:
        parts = [self._term(depth)]
        while self._take("&"):
            parts.append(self._term(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _term(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            self._fail(f"more than {MAX_DEPTH} parentheses and negations within each other")
        if self._take("!"):
            return Not(self._term(depth + 1))
        if self._take("("):
            node = self._either(depth + 1)
            if not self._take(")"):
                self._fail("expected )")
            return node
        self._terms += 1
        if self._terms > MAX_TERMS:
            self._fail(f"more than {MAX_TERMS} comparisons")
        return self._comparison()

    def _comparison(self) -> Node:
        quoted = self._quoted()
        if quoted is not None:
            return Compare("text", "~", quoted)
        start = self._at
        name = self._match(_NAME)
        if name is None:
            got = _shown(self._text[self._at :]) if self._at < len(self._text) else "the end"
            self._fail(f"got {got}, expected a field, a word or a text in quotes")
        operator = self._match(_OPERATOR)
        field = BY_NAME.get(name)
        if operator is None:
            return self._alone(name, field)
        if field is None and not _is_component(name):
            close = difflib.get_close_matches(name, BY_NAME, n=1)
            hint = f"did you mean {close[0]}" if close else "fields: " + ", ".join(f.name for f in FIELDS)
            self._fail(f"there is no field {_shown(name)}; {hint}; to search for it, put it in quotes", start)
        kind = "number" if field is None else field.type
        full = name if field is None else field.name
        if kind == "flag":
            self._fail(f"{full} is a flag: write {full} or !{full}", start)
        return self._number(full, operator) if kind == "number" else self._words(full, operator)

    def _alone(self, name: str, field: Field | None) -> Node:
        """A flag, or a word to search for."""
        if field is None:
            return Compare("text", "~", name)
        if field.type == "flag":
            return Flag(field.name)
        self._fail(
            f"expected a comparison behind {name}, for example {name}{'>0' if field.type == 'number' else '~word'}"
        )

    def _number(self, field: str, operator: str) -> Node:
        start = self._at
        if operator in ("~", "!~"):
            self._fail(f"{field} is a number: ~ is for text", start)
        if operator == ":":
            low = self._float(field)
            if self._text[self._at : self._at + 1] != "-":
                self._skip()
                return Between(field, low, low)
            self._at += 1
            high = self._float(field)
            if low > high:
                self._fail(f"{field}:{low:g}-{high:g} holds no number: write the lower one first", start)
            self._skip()
            return Between(field, low, high)
        if self._text.startswith("none", self._at) and operator in ("=", "!="):
            self._at += len("none")
            self._end_of_value(start)
            return Compare(field, operator, None)  # type: ignore[arg-type]
        value = self._float(field)
        self._end_of_value(start)
        return Compare(field, operator, value)  # type: ignore[arg-type]

    def _words(self, field: str, operator: str) -> Node:
        start = self._at
        if operator not in ("=", "!=", "~", "!~"):
            self._fail(f"{field} is text: allowed are = != ~ !~", start)
        value = self._quoted()
        if value is None:
            value = self._match(_BARE_VALUE)
            if value is None:
                self._fail(f"expected a word or a text in quotes behind {field}{operator}")
            if value == "none" and operator in ("=", "!="):
                return Compare(field, operator, None)  # type: ignore[arg-type]
        if field == "text" and operator in ("=", "!="):
            self._fail("text is searched: allowed are ~ and !~", start)
        return Compare(field, operator, value)  # type: ignore[arg-type]

    def _float(self, field: str) -> float:
        match = _NUMBER.match(self._text, self._at)
        if match is None:
            got = _shown(self._text[self._at :]) if self._at < len(self._text) else "the end"
            self._fail(f"got {got}, expected a number for {field}")
        self._at = match.end()
        return float(match.group())

    def _end_of_value(self, start: int) -> None:
        match = _BARE_VALUE.match(self._text, self._at)
        if match is not None:
            self._at = start
            self._fail(f"got {_shown(self._text[start : match.end()])}, expected a number")
        self._skip()

    def _quoted(self) -> str | None:
        if self._text[self._at : self._at + 1] != '"':
            return None
        match = _QUOTED.match(self._text, self._at)
        if match is None:
            self._fail('a text in quotes has no end: expected "')
        self._at = match.end()
        self._skip()
        return re.sub(r'\\(["\\])', r"\1", match.group(1))

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        self._skip()
        return match.group()

    def _take(self, character: str) -> bool:
        if self._text[self._at : self._at + 1] != character:
            return False
        self._at += 1
        self._skip()
        return True

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _fail(self, message: str, at: int | None = None) -> NoReturn:
        place = self._at if at is None else at
        raise FilterError(f"filter, character {place + 1}: {message}")


def _is_component(name: str) -> bool:
    return name.startswith("reward.") and len(name) > len("reward.")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 20 else text[:20] + "...")
