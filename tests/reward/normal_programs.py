"""A hundred ordinary programs: for each of 25 tasks two that are right and two that are nearly so."""

# ruff: noqa: E501 - programs

from typing import Any

Row = dict[str, Any]


def _io(*pairs: tuple[str, str], **columns: Any) -> Row:
    return {"tests": [{"input": given, "output": wanted} for given, wanted in pairs], **columns}


def _calls(entry_point: str, *pairs: tuple[list[Any], Any]) -> Row:
    return {"entry_point": entry_point, "tests": [{"input": given, "output": wanted} for given, wanted in pairs]}


_ADD = _io(("3 4\n", "7\n"), ("-1 1\n", "0\n"))
_WORDS = _io(("a b a\n", "a 2\nb 1\n"), ("x\n", "x 1\n"))
_MEAN = _io(("1 2\n", "1.5\n"), ("1 1 2\n", "1.3333333\n"))
_FIB = _calls("fib", ([0], 0), ([1], 1), ([30], 832040))
_MEDIAN = _calls("median", ([[3, 1, 2]], 2), ([[4, 1, 2, 3]], 2.5))
_PALINDROME = _calls("is_palindrome", (["Level"], True), (["ab"], False), ([""], True))
_COUNTS = _calls("counts", (["aab"], {"a": 2, "b": 1}), ([""], {}))
_PAIRS = _calls("pairs", ([[1, 2, 3]], [[1, 2], [1, 3], [2, 3]]), ([[1]], []))
_POWER = _calls("power", ([2, 200], 2**200), ([5, 0], 1))
_SUM = {"entry_point": "Solution().total", "tests": [{"input": "[1, 2]\n3", "output": "6"}]}
_NAMED = {"entry_point": "greet", "tests": [{"input": {"name": "Ann", "loud": True}, "output": "ANN!"}]}
_GCD = {"tests": ["assert gcd(12, 18) == 6", "assert gcd(7, 1) == 1", "assert gcd(0, 5) == 5"]}
_UNIQUE = {"tests": ["assert unique([3, 1, 3]) == {1, 3}", "assert unique([]) == set()"]}
_SPLIT = {"tests": ["assert halves([1, 2, 3, 4]) == ([1, 2], [3, 4])", "assert halves([]) == ([], [])"]}
_AREA = {"tests": ["import math\nassert math.isclose(area(2), 12.566370614359172, rel_tol=1e-9)"]}
_RAISES = {"tests": ["try:\n    root(-1)\n    assert False\nexcept ValueError:\n    pass", "assert root(9) == 3"]}
_CHECK = {
    "entry_point": "below_zero",
    "test_code": "def check(candidate):\n    assert candidate([1, -2, 5]) is True\n    assert not candidate([1, 2])\n",
}
_LOOP = {
    "entry_point": "is_prime",
    "test_code": "known = {2, 3, 5, 7, 11, 13, 17, 19}\nfor n in range(20):\n    assert is_prime(n) == (n in known), n\n"
    "assert candidate(7919)\n",
}
_IN_PLACE = {"tests": ["xs = [3, 1, 2]\nassert sort_it(xs) is None\nassert xs == [1, 2, 3]"]}
_STACK = {"tests": ["s = Stack()\ns.push(1)\ns.push(2)\nassert s.pop() == 2\nassert s.size() == 1"]}
_GENERATOR = {"tests": ["assert list(countdown(3)) == [3, 2, 1]", "assert list(countdown(0)) == []"]}
_FRACTION = {"tests": ["from fractions import Fraction\nassert half(3) == Fraction(3, 2)"]}
_GIVEN = {
    "program_setup": "from typing import List",
    "tests": ["assert first([4, 5]) == 4", "assert first([]) is None"],
}
_TABLE = _io(("2\n", "1 2\n2 4\n"), ("1\n", "1\n"))
_MATRIX = _calls("transpose", ([[[1, 2], [3, 4]]], [[1, 3], [2, 4]]), ([[]], []))

NORMAL: dict[str, tuple[Row, tuple[str, str], tuple[str, str]]] = {
    "add": (
        _ADD,
        (
            "print(sum(map(int, input().split())))",
            "import sys\na, b = sys.stdin.read().split()\nprint(int(a) + int(b))",
        ),
        ("a, b = input().split()\nprint(a + b)", "a, b = map(int, input().split())\nprint(a - b if b < 0 else 7)"),
    ),
    "words": (
        _WORDS,
        (
            "from collections import Counter\nfor w, n in sorted(Counter(input().split()).items()): print(w, n)",
            "words = input().split()\nfor w in sorted(set(words)):\n    print(f'{w} {words.count(w)}')",
        ),
        (
            "from collections import Counter\nfor w, n in Counter(input()).items(): print(w, n)",
            "words = input().split()\nfor w in sorted(words): print(w, words.count(w))",
        ),
    ),
    "mean": (
        _MEAN,
        (
            "x = list(map(int, input().split()))\nprint(sum(x) / len(x))",
            "import statistics as s\nprint(s.fmean(map(int, input().split())))",
        ),
        (
            "x = list(map(int, input().split()))\nprint(sum(x) // len(x))",
            "x = list(map(int, input().split()))\nprint(round(sum(x) / len(x), 3))",
        ),
    ),
    "fib": (
        _FIB,
        (
            "def fib(n):\n    a, b = 0, 1\n    for _ in range(n): a, b = b, a + b\n    return a",
            "from functools import cache\n@cache\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)",
        ),
        (
            "def fib(n):\n    a, b = 1, 1\n    for _ in range(n): a, b = b, a + b\n    return a",
            "def fib(n):\n    a, b = 0, 1\n    for _ in range(n): a, b = b, a + b\n    return str(a)",
        ),
    ),
    "median": (
        _MEDIAN,
        (
            "from statistics import median",
            "def median(x):\n    x = sorted(x)\n    n = len(x)\n    return x[n // 2] if n % 2 else (x[n // 2 - 1] + x[n // 2]) / 2",
        ),
        ("def median(x): return sorted(x)[len(x) // 2]", "def median(x): return x[len(x) // 2]"),
    ),
    "palindrome": (
        _PALINDROME,
        (
            "def is_palindrome(s): return s.lower() == s.lower()[::-1]",
            "is_palindrome = lambda s: list(s.lower()) == list(reversed(s.lower()))",
        ),
        ("def is_palindrome(s): return s == s[::-1]", "def is_palindrome(s): return s[0].lower() == s[-1].lower()"),
    ),
    "counts": (
        _COUNTS,
        (
            "from collections import Counter\ndef counts(s): return Counter(s)",
            "def counts(s): return {c: s.count(c) for c in s}",
        ),
        ("def counts(s): return {c: 1 for c in s}", "def counts(s): return [(c, s.count(c)) for c in sorted(set(s))]"),
    ),
    "pairs": (
        _PAIRS,
        (
            "from itertools import combinations\ndef pairs(x): return list(combinations(x, 2))",
            "def pairs(x): return [[a, b] for i, a in enumerate(x) for b in x[i + 1:]]",
        ),
        (
            "from itertools import permutations\ndef pairs(x): return list(permutations(x, 2))",
            "def pairs(x): return [[a, b] for a in x for b in x if a <= b]",
        ),
    ),
    "power": (
        _POWER,
        ("def power(a, n): return a ** n", "def power(a, n):\n    r = 1\n    for _ in range(n): r *= a\n    return r"),
        ("def power(a, n): return float(a) ** n + 1e60", "def power(a, n): return a ** n % 2**64"),
    ),
    "method": (
        _SUM,
        (
            "class Solution:\n    def total(self, x, y): return sum(x) + y",
            "class Solution(object):\n    def total(self, x, y):\n        for v in x: y += v\n        return y",
        ),
        (
            "class Solution:\n    def total(self, x, y): return sum(x)",
            "class Solution:\n    def totals(self, x, y): return sum(x) + y",
        ),
    ),
    "by name": (
        _NAMED,
        (
            "def greet(name, loud=False): return name.upper() + '!' if loud else name",
            "def greet(loud, name): return f'{name.upper()}!'",
        ),
        ("def greet(name, loud): return name + '!'", "def greet(who, loud): return who.upper() + '!'"),
    ),
    "gcd": (
        _GCD,
        ("from math import gcd", "def gcd(a, b):\n    while b: a, b = b, a % b\n    return a"),
        (
            "def gcd(a, b): return next(d for d in range(min(a, b), 0, -1) if a % d == b % d == 0)",
            "def gcd(a, b): return a * b",
        ),
    ),
    "unique": (
        _UNIQUE,
        ("def unique(x): return set(x)", "def unique(x): return {v for v in x}"),
        ("def unique(x): return sorted(set(x))", "def unique(x): return set(x) or None"),
    ),
    "halves": (
        _SPLIT,
        (
            "def halves(x): return x[:len(x) // 2], x[len(x) // 2:]",
            "def halves(x):\n    m = len(x) // 2\n    return (x[:m], x[m:])",
        ),
        ("def halves(x): return [x[:len(x) // 2], x[len(x) // 2:]]", "def halves(x): return x[::2], x[1::2]"),
    ),
    "area": (
        _AREA,
        ("import math\ndef area(r): return math.pi * r * r", "from math import pi\ndef area(r): return pi * r ** 2"),
        (
            "def area(r): return 3.14159 * r * r",
            "class math:\n    isclose = staticmethod(lambda *a, **k: True)\ndef area(r): return 0.0",
        ),
    ),
    "raises": (
        _RAISES,
        (
            "from math import isqrt as root",
            "def root(n):\n    if n < 0: raise ValueError('negative')\n    return int(n ** 0.5)",
        ),
        ("def root(n): return abs(n) ** 0.5", "def root(n):\n    if n < 0: raise TypeError\n    return int(n ** 0.5)"),
    ),
    "check": (
        _CHECK,
        (
            "def below_zero(x):\n    s = 0\n    for v in x:\n        s += v\n        if s < 0: return True\n    return False",
            "from itertools import accumulate\ndef below_zero(x): return any(s < 0 for s in accumulate(x))",
        ),
        ("def below_zero(x): return sum(x) < 0", "def below_zero(x):\n    print(True)"),
    ),
    "is_prime": (
        _LOOP,
        (
            "def is_prime(n): return n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1))",
            "import re\ndef is_prime(n): return n > 1 and not any(n % d == 0 for d in range(2, n))",
        ),
        (
            "def is_prime(n): return all(n % d for d in range(2, int(n ** 0.5) + 1))",
            "def is_prime(n): return n == 2 or n % 2 == 1 and n > 1",
        ),
    ),
    "in place": (
        _IN_PLACE,
        ("def sort_it(x): x.sort()", "def sort_it(x): x[:] = sorted(x)"),
        ("def sort_it(x): x = sorted(x)", "def sort_it(x):\n    x.sort()\n    return x"),
    ),
    "stack": (
        _STACK,
        (
            "class Stack:\n    def __init__(self): self.x = []\n    def push(self, v): self.x.append(v)\n    def pop(self): return self.x.pop()\n    def size(self): return len(self.x)",
            "class Stack(list):\n    push = list.append\n    size = list.__len__",
        ),
        (
            "class Stack:\n    def __init__(self): self.x = []\n    def push(self, v): self.x.append(v)\n    def pop(self): return self.x.pop(0)\n    def size(self): return len(self.x)",
            "class Stack:\n    x = []\n    def push(self, v): self.x.append(v)\n    def pop(self): return self.x[-1]\n    def size(self): return len(self.x)",
        ),
    ),
    "generator": (
        _GENERATOR,
        ("def countdown(n):\n    while n: yield n; n -= 1", "def countdown(n): return range(n, 0, -1)"),
        ("def countdown(n):\n    while n >= 0: yield n; n -= 1", "def countdown(n): return range(n)"),
    ),
    "fraction": (
        _FRACTION,
        (
            "from fractions import Fraction\ndef half(n): return Fraction(n, 2)",
            "import fractions\nhalf = lambda n: n * fractions.Fraction('1/2')",
        ),
        ("def half(n): return n // 2", "def half(n): return f'{n}/2'"),
    ),
    "given imports": (
        _GIVEN,
        ("def first(x: List[int]): return x[0] if x else None", "def first(x: List):\n    for v in x: return v"),
        ("def first(x: List[int]): return x[0]", "def first(x: list[int]): return x and x[0]"),
    ),
    "table": (
        _TABLE,
        (
            "n = int(input())\nfor i in range(1, n + 1): print(*[i * j for j in range(1, n + 1)])",
            "n = int(input())\nfor i in range(n):\n    for j in range(n): print((i + 1) * (j + 1), end=' ')\n    print()",
        ),
        (
            "n = int(input())\nfor i in range(1, n + 1): print(*[i + j for j in range(1, n + 1)])",
            "n = int(input())\nprint(*[i * j for i in range(1, n + 1) for j in range(1, n + 1)])",
        ),
    ),
    "transpose": (
        _MATRIX,
        ("def transpose(m): return [list(r) for r in zip(*m)]", "def transpose(m): return list(zip(*m))"),
        ("def transpose(m): return [list(r) for r in m]", "def transpose(m): return zip(m)"),
    ),
}
