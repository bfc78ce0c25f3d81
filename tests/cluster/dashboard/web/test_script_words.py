"""The words of a run's files that the scripts of the page know are those of the contract: they can import nothing."""

import re

import pytest

from cluster.dashboard.figures.derived import about
from cluster.dashboard.index.ledger_queries import LETTERS
from cluster.dashboard.records import DOWN, STOPPED, WAIT
from cluster.dashboard.web.page import STATIC
from cluster.types import ActorState, EventKind, GroupState
from rollout.episodes.environment import Outcome

SCRIPTS = {
    path.relative_to(STATIC).as_posix(): path.read_text(encoding="utf-8")
    for path in STATIC.rglob("*.js")
    if "vendor" not in path.parts
}
METRIC = re.compile(r"[\"'`]((?:reward|rollout|train|lag|groups|time|eval)/[a-z]\w*)[\"'`]")
"""A whole literal; an address of a rollout (`train/4/...`) is none."""
ADDED_STATES = {"busy", "idle", "ended"}
"""Of an actor: what the fleet page says of a run whose actors have no state on record."""


def keys_of(script: str, name: str) -> set[str]:
    """Keys of an object literal that has a line for each."""
    body = re.search(rf"const {name} = \{{\n(.*?)\n\}}", SCRIPTS[script], re.DOTALL)
    assert body is not None, (script, name)
    return set(re.findall(r"^  (\w+):", body[1], re.MULTILINE))


def test_every_metric_that_a_script_names_is_declared() -> None:
    named = {(script, name) for script, text in SCRIPTS.items() for name in METRIC.findall(text)}
    assert named, "the pattern finds none"
    assert {(script, name) for script, name in named if about(name) is None} == set()


def test_letters_of_the_ledger_are_those_of_the_index() -> None:
    found = re.findall(r'^  (\w): \["(\w+)"', SCRIPTS["charts/pixel_grid.js"], re.MULTILINE)
    assert {letter: GroupState(state) for letter, state in found} == {
        letter: state for state, letter in LETTERS.items()
    }


@pytest.mark.parametrize(("script", "name"), [("timeline/model.js", "KINDS"), ("timeline/draw.js", "PATTERNS")])
def test_kinds_of_the_timeline_are_those_of_events(script: str, name: str) -> None:
    assert {*EventKind, WAIT, DOWN, STOPPED} >= keys_of(script, name) >= {*EventKind} - {EventKind.INSTANT}


def test_ends_of_episodes_that_are_offered_are_those_that_there_are() -> None:
    found = re.search(r"const ENDS = \[(.*?)\]", SCRIPTS["rollouts/filter_language.js"])
    assert found is not None
    assert re.findall(r'"(\w+)"', found[1]) == [outcome.value for outcome in Outcome]


def test_states_of_actors_are_those_that_are_recorded() -> None:
    assert keys_of("pages/fleet.js", "STATES") == {*ActorState} | ADDED_STATES


def test_kinds_that_scripts_compare_with_are_those_of_events() -> None:
    compared = {
        word for text in SCRIPTS.values() for word in re.findall(r"(?:span|block)\.kind [!=]== \"(\w+)\"", text)
    }
    assert compared
    assert compared <= {*EventKind, WAIT, DOWN}
