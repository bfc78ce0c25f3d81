import dataclasses

import numpy as np
import pytest
import torch

from rollout.transfer.delta import WORDS, WORTH_IT, Delta, KeptBytes, apply, difference


def words_of(num: int, word_bytes: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, num * word_bytes, dtype=np.uint8)


def changed(old: np.ndarray, places: list[int], word_bytes: int) -> np.ndarray:
    new = old.copy()
    words = new.view(WORDS[word_bytes])
    words[places] = np.bitwise_xor(words[places], np.arange(1, len(places) + 1).astype(WORDS[word_bytes]))
    return new


@pytest.mark.parametrize("word_bytes", [2, 4])
@pytest.mark.parametrize(
    "places", [[], [0], [299_999], [0, 299_999], [5, 6, 7], [10, 80_000, 80_001], list(range(0, 300_000, 5))]
)
def test_what_is_applied_is_what_was_meant(places: list[int], word_bytes: int) -> None:
    old = words_of(300_000, word_bytes)
    new = changed(old, places, word_bytes)
    before = old.copy()
    delta = difference(old, new, word_bytes=word_bytes)
    assert delta is not None
    assert delta.num_changed == len(places)
    got = apply(old, delta)
    assert np.array_equal(got, new)
    assert np.array_equal(old, before)
    assert not np.shares_memory(got, old)


def test_where_much_changed_there_is_none() -> None:
    old = words_of(1000, 4)
    assert difference(old, changed(old, list(range(250)), 4), word_bytes=4) is not None
    assert WORTH_IT == 0.25
    assert difference(old, changed(old, list(range(251)), 4), word_bytes=4) is None


def test_an_optimizer_step_at_a_small_learning_rate_is_a_few_hundredths_of_the_bytes() -> None:
    """AdamW moves every weight by about the learning rate; weights of a language model are some hundredths."""
    generator = torch.Generator().manual_seed(0)
    master = 0.03 * torch.randn(1 << 20, generator=generator)
    old = master.to(torch.bfloat16).view(torch.uint8).numpy()
    moved = 1e-6 * torch.randn(1 << 20, generator=generator).clamp(-1, 1)
    new = (master - moved).to(torch.bfloat16).view(torch.uint8).numpy()
    delta = difference(old, new, word_bytes=2)
    assert delta is not None
    assert 0 < delta.num_changed < 0.05 * (1 << 20)
    assert delta.data.nbytes < 0.02 * new.nbytes
    assert np.array_equal(apply(old, delta), new)


def test_a_difference_that_does_not_fit_is_refused() -> None:
    old = words_of(1000, 2)
    delta = difference(old, changed(old, [3, 999], 2), word_bytes=2)
    assert delta is not None
    with pytest.raises(ValueError, match="it changes word 999 of 500"):
        apply(old[:1000], delta)
    with pytest.raises(ValueError, match="it cannot be unpacked"):
        apply(old, dataclasses.replace(delta, data=delta.data[:-3]))
    for num_changed in (1, 3):
        with pytest.raises(ValueError, match="it cannot be unpacked"):
            apply(old, dataclasses.replace(delta, num_changed=num_changed))
    with pytest.raises(ValueError, match="it cannot be unpacked"):
        apply(old, Delta(num_changed=2, word_bytes=2, data=np.zeros(8, np.uint8)))


def test_what_is_kept_has_a_digest_only_while_it_is_whole() -> None:
    kept = KeptBytes()
    assert (kept.digest, kept.chunk(0)) == ("", None)
    kept.begin(keeps=True)
    kept.keep(0, np.zeros(4, np.uint8))
    assert kept.digest == ""
    kept.finish("abc")
    assert kept.digest == "abc"
    kept.begin(keeps=True)
    assert kept.digest == ""
    assert kept.chunk(0) is not None
    kept.finish("def")
    kept.begin(keeps=False)
    assert kept.chunk(0) is None
    kept.finish("ghi")
    assert kept.digest == ""
