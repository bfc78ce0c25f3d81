"""Tokens that a model has no embedding for are found before it is shown them."""

import dataclasses
from pathlib import Path

import pytest

from cluster.commands.model_check import check_tokens
from rollout.errors import ModelError
from tests.cluster.examples import ok, scored
from tests.rollout.byte_tokenizer import byte_tokenizer

PROMPT = dataclasses.replace(scored(0, [ok(1)]).group.prompt, token_ids=(5, 9), question="What is 3 + 4?")


def test_a_tokenizer_may_have_more_tokens_than_the_model_where_no_prompt_has_them() -> None:
    tokenizer = byte_tokenizer()
    num_embeddings = len(tokenizer)
    tokenizer.add_tokens(["seven"])
    check_tokens(tokenizer, [PROMPT], Path("m"), num_embeddings)
    check_tokens(tokenizer, [], Path("m"), num_embeddings)
    asked = dataclasses.replace(PROMPT, token_ids=(5, num_embeddings), question="seven")
    with pytest.raises(ModelError) as error:
        check_tokens(tokenizer, [PROMPT, asked], Path("m"), num_embeddings)
    assert str(error.value).startswith(
        f"the tokenizer in m has {num_embeddings + 1} tokens and the model embeddings for {num_embeddings}: token "
        f"{num_embeddings} ('seven'), for the prompt of 'seven', has none; take"
    )
    check_tokens(tokenizer, [asked], Path("m"), num_embeddings + 1)


def test_a_text_that_could_never_end_is_told() -> None:
    tokenizer = byte_tokenizer()
    with pytest.raises(ModelError, match=r"for the end of a text, has none"):
        check_tokens(tokenizer, [], Path("m"), tokenizer.eos_token_id)
