"""The doctor on whole runs: it names the fault that was planted, and says nothing about a healthy run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cluster.cli import main
from cluster.config import RunConfig
from cluster.configuration.schema import places_at
from cluster.dashboard.doctor import facts, rules_faults
from cluster.dashboard.doctor.diagnose import diagnose, doctor_page, doctor_text, exit_code, page_of
from cluster.dashboard.doctor.facts import Finding, gather
from cluster.dashboard.doctor.rules import RULES, Rule
from cluster.dashboard.index.filters import parse_filter, parse_sort
from cluster.dashboard.index.store import RunStore
from tests.cluster.dashboard.demo_faults import Kind, fault_step
from tests.cluster.dashboard.demo_runs import write_demo_run
from tests.cluster.dashboard.doctor.test_rules import CASES
from tests.cluster.dashboard.small_runs import group, write_run
from tests.cluster.examples import opened as opened_group

STEPS = 30
NAMED: dict[Kind, tuple[str, str]] = {
    "entropy_collapse": ("entropy_collapsed", "error"),
    "stale_weights": ("gap_jumped", "error"),
    "broken_grader": ("grader_fails", "error"),
    "slow_sampler": ("sampler_slow", "warning"),
}
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "healthy"
    write_demo_run(path, steps=STEPS)
    return path


def opened(path: Path, index: Path) -> RunStore:
    store = RunStore(path, index_path=index)
    store.refresh()
    return store


def findings(path: Path, index: Path) -> list[dict[str, Any]]:
    store = opened(path, index)
    try:
        found: list[dict[str, Any]] = doctor_page(store)["findings"]
    finally:
        store.close()
    return found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", list(NAMED))
def test_it_names_the_planted_fault_first(kind: Kind, seed: int, tmp_path: Path) -> None:
    write_demo_run(tmp_path / "run", kind=kind, seed=seed, steps=STEPS)
    found = findings(tmp_path / "run", tmp_path / "index.sqlite")
    assert (found[0]["rule"], found[0]["severity"]) == NAMED[kind]
    assert abs(found[0]["since_step"] - fault_step(STEPS)) <= 3
    assert re.search(r"\d", found[0]["evidence"])
    if kind in ("stale_weights", "slow_sampler"):
        assert "sampler-1" in found[0]["evidence"]


@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_silent_on_a_healthy_run(seed: int, tmp_path: Path) -> None:
    write_demo_run(tmp_path / "run", seed=seed, steps=STEPS)
    assert [f for f in findings(tmp_path / "run", tmp_path / "index.sqlite") if f["severity"] != "info"] == []


def test_no_rule_about_faults_speaks_of_a_healthy_run(healthy: Path, tmp_path: Path) -> None:
    store = opened(healthy, tmp_path / "index.sqlite")
    assert [instant.extra["name"] for instant in store.instants()] == ["resumed"]
    spoke = {rule.name for rule, _ in diagnose(gather(store)) if rule.check.__module__ == rules_faults.__name__}
    store.close()
    assert spoke == set()


def test_the_command_prints_and_exits_by_severity(
    healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", str(healthy)]) == 0
    capsys.readouterr()
    write_demo_run(tmp_path / "slow", kind="slow_sampler", steps=STEPS)
    assert main(["doctor", str(tmp_path / "slow"), "--format", "json"]) == 3
    page = json.loads(capsys.readouterr().out)
    assert page["findings"][0]["rule"] == "sampler_slow"
    assert len(page["rules"]) == len(RULES)
    (tmp_path / "slow" / "summary.json").write_text(
        (tmp_path / "slow" / "summary.json").read_text().replace('"finished"', '"failed"')
    )
    assert main(["doctor", str(tmp_path / "slow")]) == 4
    assert capsys.readouterr().out.startswith("ERROR  The run failed")
    assert main(["doctor", str(tmp_path)]) == 2
    assert "is no run: it has none of a run's files" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl", "ledger.jsonl", "config.yaml", "rollouts"])
def test_a_run_with_a_part_missing_is_looked_at_all_the_same(name: str, healthy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for path in healthy.iterdir():
        if path.name not in (name, ".index"):
            (run / path.name).symlink_to(path)
    assert isinstance(findings(run, tmp_path / "index.sqlite"), list)


def test_rollouts_are_read_once_until_their_file_is_replaced(
    healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(healthy, tmp_path / "index.sqlite")
    first = gather(store).digests
    read: list[int] = []
    real = store.step_rows
    monkeypatch.setattr(store, "step_rows", lambda phase, step: read.append(step) or real(phase, step))  # type: ignore[func-returns-value]
    assert gather(store).digests == first
    assert read == []
    path = healthy / "rollouts" / f"step-{STEPS - 1:06d}.parquet"
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)
    store.refresh()
    assert gather(store).digests == first
    assert read == [STEPS - 1]
    store.close()


def test_steps_to_read_stay_the_same_as_a_run_grows() -> None:
    spread = facts._spread
    assert spread(list(range(20))) == list(range(20))
    long = spread(list(range(1000)))
    assert len(long) <= facts.LAST_STEPS_READ + facts.EARLIER_STEPS_READ
    assert long[-10:] == list(range(990, 1000))
    assert set(spread(list(range(1001)))[:-10]) >= set(long[:-10])


def test_the_page_is_that_of_the_contract() -> None:
    facts = CASES["gap_jumped"].ill
    page = page_of(diagnose(facts))
    found = page["findings"][0]
    assert list(found) == ["rule", "severity", "title", "since_step", "evidence", "chart", "causes", "try", "links"]
    assert set(found["chart"]) == {"title", "step", "values", "threshold"}
    assert len(found["chart"]["step"]) == len(found["chart"]["values"])
    json.dumps(page, allow_nan=False)
    assert exit_code(page) == 4
    assert exit_code({"findings": [{"severity": "info"}]}) == 0


def test_the_worst_comes_first() -> None:
    def rule(name: str, severity: Any) -> Rule:
        return Rule(name=name, check=lambda facts: Finding(severity=severity, title=name, evidence=""))

    rules = [rule("a", "info"), rule("b", "warning"), rule("c", "error"), rule("d", "warning")]
    assert [r.name for r, _ in diagnose(CASES["gap_jumped"].ill, rules)] == ["c", "b", "d", "a"]


def test_what_a_terminal_would_obey_is_an_escape() -> None:
    finding = Finding(severity="warning", title="t", evidence="said \x1b]0;x\x07 \u202e\u200bç", attempts=("a",))
    page = page_of([(Rule(name="r", check=lambda facts: finding), finding)])
    text = doctor_text(page)
    assert "\x1b" not in text
    assert "\\x1b]0;x\\x07 \\u202e\\u200bç" in text


def test_keys_that_are_advised_exist() -> None:
    keys: set[str] = set()
    for case in CASES.values():
        for rule, finding in diagnose(case.ill):
            assert finding.attempts, rule.name
            keys |= set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)*)(?:=[^`]*)?`", " ".join(finding.attempts)))
    others = {"overlong", "length_penalty", "dmesg"}  # reward functions and a command
    assert len(keys - others) >= 20
    assert [key for key in sorted(keys - others) if not places_at(RunConfig, key.split("."))] == []


def test_links_lead_to_pages_that_take_them() -> None:
    links = [link for case in CASES.values() for _, finding in diagnose(case.ill) for link in finding.links]
    assert {link.page for link in links} <= {"overview", "step", "rollouts", "group", "timeline", "fleet", "ledger"}
    filters = {link.params["filter"] for link in links if "filter" in link.params}
    assert 'step>=15 & worker="sampler-1"' in filters
    for text in filters:
        assert parse_filter(text) is not None
    for link in links:
        if "sort" in link.params:
            parse_sort(link.params["sort"])


def test_a_step_that_a_resumed_run_replaced_is_looked_at_again(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    store = opened(run.path, tmp_path / "index.sqlite")
    before = gather(store).digests[1]
    assert before.num_groups == 2
    run.write_rollouts(1, [opened_group(group(0))])
    assert gather(store).digests[1] == before  # the index has not followed yet
    store.refresh()
    assert gather(store).digests[1].num_groups == 1
    store.close()
