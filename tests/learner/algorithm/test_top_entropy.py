"""Top-entropy masks where several tokens have the entropy of the threshold."""

import torch

from learner.algorithm.corrections import correct, entropy_threshold
from learner.algorithm.tokens import TokenValues
from learner.objective import TopEntropyMask


def test_tokens_of_one_entropy_but_for_rounding_are_kept_together() -> None:
    """The highest of 5 tokens at a share of 0.2: the first three follow the same prompt."""
    entropies_N = torch.tensor([2.0, 2.0 + 3e-7, 2.0 - 3e-7, 1.9, 0.5])
    ones_N = torch.ones(5)
    tokens = TokenValues(
        policy_N=ones_N,
        sampler_N=ones_N,
        advantages_N=ones_N,
        token_weights_N=ones_N,
        mask_N=ones_N > 0,
        entropy_N=entropies_N,
        index_N=torch.arange(5),
        num_completions=5,
    )
    threshold = entropy_threshold(entropies_N, 0.2)
    corrected = correct(tokens, ones_N, [TopEntropyMask(share=0.2)], entropy_threshold=threshold)
    assert corrected.keep_N is not None
    assert corrected.keep_N.tolist() == [True, True, True, False, False]
