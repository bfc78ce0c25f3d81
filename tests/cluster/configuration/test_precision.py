"""`dtype: auto`: what the machine computes with."""

from pathlib import Path

import pytest

from cluster.commands import start_checks
from cluster.commands.start_checks import precision_warnings
from cluster.configuration import precision
from cluster.configuration.loading import dump_config, load_config, parse_config
from cluster.configuration.precision import multiplies_bfloat16
from rollout.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "can"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 fma\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("processor : 0\nFeatures\t: fp asimd sve bf16 i8mm\n", True),
        ("processor : 0\nflags\t\t: fpu avx2 fma\nflags\t\t: fpu avx2 fma\n", False),
        ("flags\t\t: fpu avx512f avx512bw\n", False),
        ("", False),
    ],
)
def test_what_a_processor_multiplies_is_read_from_its_flags(text: str, can: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert multiplies_bfloat16(tmp_path / "cpuinfo") is can
    assert not multiplies_bfloat16(tmp_path / "nowhere")


def dtypes(*overrides: str) -> tuple[str, str]:
    config = load_config("quickstart", overrides)
    return config.rollout.dtype, config.learner.dtype


@pytest.mark.parametrize("can", [True, False])
def test_auto_is_what_the_machine_is_good_at(can: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: can)
    here = "bfloat16" if can else "float32"
    assert dtypes() == (here, here)
    assert dtypes("rollout.gpus_per_engine=1") == ("bfloat16", here)
    assert dtypes("learner.gpus_per_rank=1") == (here, "bfloat16")
    assert dtypes("rollout.dtype=float32", "learner.dtype=bfloat16") == ("float32", "bfloat16")


def test_a_run_keeps_what_it_was_started_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: True)
    text = dump_config(load_config("quickstart"))
    assert "auto" not in text
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: False)
    assert parse_config(text, source="config.yaml").learner.dtype == "bfloat16"


def test_what_does_not_go_with_float32_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match=r"weight_sync\.delta is true and rollout\.dtype is float32"):
        load_config("quickstart", ["weight_sync.delta=true"])


def test_bfloat16_on_a_processor_without_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_checks, "multiplies_bfloat16", lambda: False)
    both = ["rollout.dtype=bfloat16", "learner.dtype=bfloat16"]
    (told,) = precision_warnings(load_config("quickstart", both))
    assert told.startswith("rollout.dtype and learner.dtype are bfloat16, and the processor of this machine has no")
    assert told.endswith("set rollout.dtype and learner.dtype to auto")
    (told,) = precision_warnings(load_config("quickstart", [*both, "rollout.gpus_per_engine=1"]))
    assert told.startswith("learner.dtype is bfloat16")
    assert list(precision_warnings(load_config("tiny"))) == []
    monkeypatch.setattr(start_checks, "multiplies_bfloat16", lambda: True)
    assert list(precision_warnings(load_config("quickstart", both))) == []
