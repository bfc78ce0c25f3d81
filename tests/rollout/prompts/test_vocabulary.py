"""Pieces of real tokenizers: joined, they are the text."""

from typing import Any

from rollout.prompts.vocabulary import bytes_as_text, token_bytes, token_pieces
from tests.rollout.byte_tokenizer import byte_tokenizer


def _word_level(words: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=words[0])


def test_pieces_of_a_byte_level_tokenizer_are_bytes_and_its_special_tokens_stay() -> None:
    tokenizer = byte_tokenizer()
    pieces = token_pieces(tokenizer)
    assert len(pieces) == 6 + 256
    assert pieces[0] == "<|bos|>"
    ids = tokenizer("a b\n", add_special_tokens=False)["input_ids"]
    assert [pieces[i] for i in ids] == ["a", " ", "b", "\n"]
    ids = tokenizer("é", add_special_tokens=False)["input_ids"]
    assert [pieces[i] for i in ids] == ["<0xC3>", "<0xA9>"]


def test_every_byte_has_a_piece_of_its_own() -> None:
    pieces = token_pieces(byte_tokenizer())[6:]
    assert len(set(pieces)) == 256
    assert {f"<0x{byte:02X}>" for byte in range(128, 256)} < set(pieces)
    assert {chr(byte) for byte in range(128)} < set(pieces)


def test_pieces_of_another_tokenizer_are_its_tokens_and_a_gap_in_the_ids_is_empty() -> None:
    assert token_pieces(_word_level(["<unk>", "\u2581the", "é", "a"])) == ["<unk>", " the", "é", "a"]

    class Gap:
        def get_vocab(self) -> dict[str, int]:
            return {"a": 0, "b": 2}

    assert token_pieces(Gap()) == ["a", "", "b"]


def test_bytes_that_are_no_character_are_written_as_bytes() -> None:
    assert bytes_as_text("é1".encode()) == "é1"
    assert bytes_as_text(b"\xc3(\xff") == "<0xC3>(<0xFF>"


def test_bytes_of_tokens_laid_end_to_end_are_the_text() -> None:
    tokenizer = byte_tokenizer(merges=[("a", "Ġ"), ("Ã", "©")])
    spelt = token_bytes(tokenizer)
    text = "a é<|end|>€\n"
    token_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert b"".join(spelt[i] for i in token_ids).decode() == text
    assert [spelt[i] for i in token_ids[:4]] == [b"a ", "é".encode(), b"<|end|>", "€".encode()[:1]]


def test_bytes_of_another_tokenizer_are_those_of_its_tokens() -> None:
    words = ["<unk>", "\u2581the", "é", "<0x0A>", "<0xA>"]
    assert token_bytes(_word_level(words)) == [b"<unk>", b" the", "é".encode(), b"\n", b"<0xA>"]

    class Gap:
        def get_vocab(self) -> dict[str, int]:
            return {"a": 0, "b": 2}

    assert token_bytes(Gap()) == [b"a", b"", b"b"]
