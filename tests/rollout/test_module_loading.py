"""The garbage collector stays out of what imports make, and is on again afterwards."""

import gc
import importlib
from collections.abc import Iterator

import pytest

from rollout.module_loading import loading_modules


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


def test_nothing_is_collected_meanwhile_and_what_is_alive_counts_as_permanent() -> None:
    before = gc.get_freeze_count()
    with loading_modules():
        assert not gc.isenabled()
        kept: list[list[int]] = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() - before > len(kept)


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with loading_modules():
        pass
    assert not gc.isenabled()


def test_it_is_on_again_after_an_import_that_fails() -> None:
    with pytest.raises(ModuleNotFoundError), loading_modules():
        importlib.import_module("no_such_module")
    assert gc.isenabled()
