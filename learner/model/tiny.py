"""A toy policy for tests, benchmarks and first steps: a Llama of about a million parameters that reads characters.

It is warm-started by supervised learning on the sums of two numbers from 0 to 10: first with right answers, so that it
knows the sums, then with answers that are mostly wrong, so that it no longer says what it knows. It starts with the
format right and most answers wrong, and GRPO brings the sums out again. (The warm start has seen every sum; the
questions that a run holds out are held out of GRPO alone.)
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

TINY_VERSION = "4"
"""Raised whenever this file changes what it makes: the cache of made models is keyed by it."""

CHARACTERS = " 0123456789+-*/=?.,:;()abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'\"!\n"
SPECIAL_TOKENS = ("<pad>", "<eos>", "<unk>")
LEARN_STEPS = 300
"""Steps with right answers."""
BLUR_STEPS = 8
"""Steps with answers of which only `BLUR_TRUE_SHARE` are right, the others drawn at random."""
BLUR_TRUE_SHARE = 0.3
SUMS_PER_STEP = 48
"""Of the 121."""
PEAK_LR = 3e-3


def prompt_text(a: int, b: int) -> str:
    """What the warm start shows; the `tiny` recipe's template asks the same way."""
    return f"Calculate {a} + {b}."


WarmStart = Callable[[Any, Any, Callable[[float], None]], None]
"""Teaches a model with its tokenizer; tells of the share that is done."""


def make_tiny_model(
    directory: Path, progress: Callable[[float], None] = lambda _: None, *, warm_start: WarmStart | None = None
) -> None:
    """Makes and warm-starts the model, and writes it with its tokenizer as a Hugging Face directory (seconds).

    `progress` is told of the share of the warm start that is done, from 0 to 1. Null `warm_start` teaches sums.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _make_tokenizer()
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    # One thread: the matrices are small, and threads that wait for one another on a busy machine take minutes.
    torch.set_num_threads(1)
    try:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            # vLLM's CPU attention wants heads of at least 32.
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
        model = LlamaForCausalLM(config).float()
        (warm_start or _warm_start)(model, tokenizer, progress)
    finally:
        torch.random.set_rng_state(state)
        torch.set_num_threads(threads)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _make_tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    assert json.loads(tokenizer.to_str())["model"]["type"] == "WordLevel"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def _warm_start(model: Any, tokenizer: Any, progress: Callable[[float], None]) -> None:
    """Next-token learning of sums drawn at random, on the tokens of the answer alone."""
    import torch

    draw = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, betas=(0.9, 0.99), weight_decay=0.0)
    warm_up_steps = 20
    for step in range(LEARN_STEPS + BLUR_STEPS):
        rate = min((step + 1) / warm_up_steps, 1.0 - 0.9 * step / (LEARN_STEPS + BLUR_STEPS))
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * rate
        ids, labels = _sums(draw, tokenizer, true_share=1.0 if step < LEARN_STEPS else BLUR_TRUE_SHARE)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        progress((step + 1) / (LEARN_STEPS + BLUR_STEPS))


def _sums(draw: random.Random, tokenizer: Any, *, true_share: float) -> tuple[Any, Any]:
    """Token ids and labels [SUMS_PER_STEP, T], padded on the right; -100 where nothing is learned."""
    rows, targets = [], []
    for place in draw.sample(range(11 * 11), SUMS_PER_STEP):
        a, b = divmod(place, 11)
        answer = a + b if draw.random() < true_share else draw.randint(0, 20)
        question = tokenizer(prompt_text(a, b)).input_ids
        reply = [*tokenizer(str(answer)).input_ids, tokenizer.eos_token_id]
        rows.append(question + reply)
        targets.append([-100] * len(question) + reply)
    return padded(rows, targets, tokenizer)


def padded(rows: list[list[int]], targets: list[list[int]], tokenizer: Any) -> tuple[Any, Any]:
    """Token ids and labels [rows, T], padded on the right; -100 where nothing is learned."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in targets])
    return ids, labels
