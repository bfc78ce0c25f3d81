"""One word for one thing: the table of CONTRIBUTING.md is the rule, and no text of the repository breaks it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = (".py", ".md", ".js", ".yaml", ".html", ".css")
HEADING = "## Words"
HISTORY = ("docs/log.md", "CHANGELOG.md")
"""What was, in the words of its time."""
SELF = ("CONTRIBUTING.md", "tests/test_vocabulary.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A line of the table."""

    word: str
    meaning: str
    instead_of: tuple[str, ...]
    """What is not written for it, in small letters."""
    but: tuple[str, ...]
    """Beginnings of the paths where such a word means something else."""


def table(text: str) -> Iterator[Word]:
    """The lines below the heading `Words`: word, meaning, what it stands in place of, where that may stand."""
    section = text.split(f"\n{HEADING}\n")[1].split("\n## ")[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| ") or set(cells[0]) == {"-"} or cells[0] == "word":
            continue
        word, meaning, instead_of, but = cells
        yield Word(
            word=word,
            meaning=meaning,
            instead_of=tuple(re.findall("`([^`]+)`", instead_of)),
            but=tuple(re.findall("`([^`]+)`", but)),
        )


WORDS = list(table((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))


def texts() -> Iterator[tuple[str, str]]:
    """(path in the repository, text) of product, tests and documentation."""
    folders = ("rollout", "reward", "learner", "cluster", "tests", "docs", ".github")
    files = [*ROOT.glob("*.md"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    for path in sorted(files):
        name = str(path.relative_to(ROOT))
        if "node_modules" in path.parts:  # what `make check-scripts` installs
            continue
        if path.suffix in TEXTS and path.is_file() and name not in (*HISTORY, *SELF):
            yield name, path.read_text(encoding="utf-8")


def uses(pattern: str, text: str) -> Iterator[str]:
    """Lines, counted from 1, that hold the words of `pattern`; those of a name in code count too."""
    # A blank of the table stands for a blank, a line's end, nothing or an underscore: reward actor, RewardActor.
    words = re.compile(r"(?<![a-z])" + r"[\s_]*".join(map(re.escape, pattern.split())) + r"(?![a-z])", re.IGNORECASE)
    for found in words.finditer(text):
        number = text.count("\n", 0, found.start()) + 1
        yield f"{number}: {text.splitlines()[number - 1].strip()[:100]}"


def test_the_table_is_read() -> None:
    assert {"sampler", "engine", "reward worker", "rejected", "sandbox"} <= {word.word for word in WORDS}
    assert all(word.meaning for word in WORDS)
    words = [word.word for word in WORDS]
    assert len(set(words)) == len(words)
    banned = [name for word in WORDS for name in word.instead_of]
    assert not {*banned} & {*words}, "a word of the table cannot be banned by it"


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.word)
def test_one_word_for_one_thing(word: Word) -> None:
    wrong = [
        f"{name}:{line} (write {word.word!r} for {banned!r})"
        for name, text in texts()
        if not name.startswith(word.but or ("\0",))
        for banned in word.instead_of
        for line in uses(banned, text)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("path", sorted({path for word in WORDS for path in word.but}))
def test_every_exception_is_needed(path: str) -> None:
    banned = [name for word in WORDS if path in word.but for name in word.instead_of]
    assert any(next(uses(name, text), None) for where, text in texts() if where.startswith(path) for name in banned)


def test_a_word_is_found_in_texts_and_in_names() -> None:
    assert list(uses("reward actor", "the\nreward actor of\na RewardActor, reward_actor and reward\nactor")) == [
        "2: reward actor of",
        "3: a RewardActor, reward_actor and reward",
        "3: a RewardActor, reward_actor and reward",
        "3: a RewardActor, reward_actor and reward",
    ]
    assert not list(uses("dropped", "raindropped"))
