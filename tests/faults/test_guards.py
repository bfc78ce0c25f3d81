"""The test of the tests: for each guard, tests that fail once it is off, and fail for that reason.

A guard is switched off by `tests.faults.unguarded` in a pytest process of its own. The same tests pass there with
every guard on.
"""

import os
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from tests.faults.unguarded import SWITCHES, VARIABLE

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
DEADLINE_S = 240.0
TEST_DEADLINE_S = {"reward deadline": 8}
"""Of one test, where it is not 60: without its deadline a reward hangs for good."""

LEDGER = "tests/cluster/groups/test_ledger.py"
PIPELINE = "tests/cluster/groups/test_pipeline_faults.py"
TRANSFER = "tests/rollout/transfer/test_manifest.py"
SYNC = "tests/cluster/weights/test_weight_sync.py"
LOADING = "tests/learner/model/test_loading.py"
FILES = "tests/learner/saving/test_files.py"
TORN = "tests/cluster/weights/test_checkpoint_faults.py"
ENGINE = "tests/learner/backend/test_engine.py"
ROLLOUT = "tests/rollout/test_worker.py"
BOUNDARIES = "tests/faults/test_boundaries.py"

NOTICED_BY: dict[str, dict[str, str]] = {
    "fencing": {
        f"{LEDGER}::test_a_late_result_is_refused_and_counted_and_changes_nothing": "given up, and not leased again",
        f"{PIPELINE}::test_a_late_result_is_refused_and_counted_once": "was given up and is open again",
    },
    "digest of a tensor": {
        f"{TRANSFER}::test_one_altered_bit_names_the_tensor_and_the_chunk_may_come_again": "DID NOT RAISE",
        f"{SYNC}::test_an_altered_chunk_ends_the_sync_before_the_digest": "DID NOT RAISE",
    },
    "digest of the whole": {f"{TRANSFER}::test_another_digest_of_the_whole_is_refused": "DID NOT RAISE"},
    "canary": {
        f"{SYNC}::test_an_engine_that_computes_otherwise_is_named_and_nobody_serves[0.01]": "DID NOT RAISE",
        f"{SYNC}::test_an_engine_that_computes_otherwise_is_named_and_nobody_serves[nan]": "DID NOT RAISE",
        f"{SYNC}::test_a_difference_within_the_tolerance_is_reported": "DID NOT RAISE",
    },
    "canary of what was kept": {
        f"{SYNC}::test_an_engine_that_keeps_a_part_of_the_old_weights_is_found_in_bf16[0.25]": "DID NOT RAISE"
    },
    "missing weights": {f"{LOADING}::test_nothing_is_printed": "DID NOT RAISE"},
    "conservation": {f"{LEDGER}::test_a_state_that_does_not_balance_is_found": "DID NOT RAISE"},
    "conservation after a step": {
        f"{BOUNDARIES}::test_a_run_whose_groups_do_not_add_up_ends_after_its_step": "DID NOT RAISE"
    },
    "manifest check": {
        f"{FILES}::test_damage_is_found_named_and_passed_over[{damage}]": "DID NOT RAISE"
        for damage in ("truncate", "flip_a_bit", "remove_a_file", "empty_the_manifest", "add_a_file")
    }
    | {f"{TORN}::test_when_all_are_damaged_nothing_is_loaded": "DID NOT RAISE"},
    "digest of a file": {f"{FILES}::test_damage_is_found_named_and_passed_over[flip_a_bit]": "DID NOT RAISE"},
    "finite gradient": {
        f"{ENGINE}::test_a_gradient_that_is_not_finite_changes_neither_weights_nor_moments[{bad}]": "everything("
        for bad in ("nan", "inf", "-inf")
    },
    "finite loss": {
        f"{ENGINE}::test_a_loss_that_is_not_finite_is_not_applied_although_its_gradient_is[{bad}]": "applied=True"
        for bad in ("nan", "inf", "-inf")
    },
    "finite log-probability": {
        f"{ROLLOUT}::test_tokens_whose_log_probability_is_not_finite_are_masked_and_counted": "[False, False]"
    },
    "reward deadline": {"tests/reward/test_worker.py::test_children_are_kept_and_replaced": "Timeout"},
    "cursor after a step": {f"{BOUNDARIES}::test_the_cursor_of_a_checkpoint_is_that_of_the_next_prompt[0]": "5] == []"},
    "cursor when sampling ahead": {
        f"{BOUNDARIES}::test_a_run_that_samples_ahead_and_ends_early_keeps_the_prompts_it_was_sampling": "5] == []"
    },
    "cursor read back": {
        "tests/rollout/prompts/test_stream.py::test_a_stream_goes_on_from_any_point": "== PromptStreamS",
    },
}
"""Guard -> test that must fail -> what its failure says."""
QUICK = ("fencing", "digest of a tensor", "conservation")


def outcomes_of(tests: list[str], folder: Path, *, off: str = "") -> tuple[int, dict[str, str]]:
    """Runs `tests`; the exit code of pytest, and for each test "" or how it failed."""
    report = folder / "report.xml"
    # Not those of the pytest that runs this; and examples that fail here are no examples for anybody else.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "HYPOTHESIS"))}
    environment |= {"HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"), VARIABLE: off}
    options = ["-p", "tests.faults.unguarded", "-p", "no:cacheprovider", "--tb=short", "-o", "junit_family=xunit1"]
    paths = [f"--timeout={TEST_DEADLINE_S.get(off, 60)}", f"--junitxml={report}", f"--basetemp={folder / 'temporary'}"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *paths, *tests],
        cwd=ROOT,
        env=environment,
        timeout=DEADLINE_S,
        capture_output=True,
        text=True,
    )
    assert report.exists(), run.stdout + run.stderr
    found: dict[str, str] = {}
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        test = f"{case.get('file')}::{case.get('name')}"
        assert case.find("error") is None, run.stdout
        assert case.find("skipped") is None, run.stdout
        failure = case.find("failure")
        found[test] = "" if failure is None else f"{failure.get('message')}\n{failure.text}"
    assert set(found) == set(tests), run.stdout + run.stderr
    return run.returncode, found


def test_every_guard_has_tests_that_notice_it() -> None:
    assert set(NOTICED_BY) == set(SWITCHES)


def test_with_every_guard_on_these_tests_pass(tmp_path: Path) -> None:
    tests = sorted({test for noticing in NOTICED_BY.values() for test in noticing})
    assert outcomes_of(tests, tmp_path) == (0, dict.fromkeys(tests, ""))


@pytest.mark.parametrize("guard", [pytest.param(g, marks=pytest.mark.quick if g in QUICK else ()) for g in NOTICED_BY])
def test_without_a_guard_these_tests_fail(guard: str, tmp_path: Path) -> None:
    noticing = NOTICED_BY[guard]
    exit_code, found = outcomes_of(list(noticing), tmp_path, off=guard)
    assert exit_code == 1
    assert {test: how for test, how in found.items() if noticing[test] not in how or not how} == {}
