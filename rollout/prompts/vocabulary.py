"""Token id -> the text that the token stands for, so that completions can be shown token by token without a model, and
places in a text found among its tokens.

A token need not be whole characters: byte-level tokenizers split characters of several bytes. Such a piece is written
as its bytes, `<0xE2><0x80>`, the notation of SentencePiece.
"""

import re
from collections.abc import Mapping
from typing import Any

SENTENCEPIECE_BLANK = "\u2581"
_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")


def token_pieces(tokenizer: Any) -> list[str]:
    """[V] the piece of each token id of a Hugging Face tokenizer; empty for ids that no token has."""
    by_id: dict[int, str] = {index: token for token, index in tokenizer.get_vocab().items()}
    if not by_id:
        return []
    added = {index: str(token.content) for index, token in getattr(tokenizer, "added_tokens_decoder", {}).items()}
    to_bytes = _byte_alphabet() if _is_byte_level(tokenizer) else None
    return [
        added[index] if index in added else _piece(by_id.get(index, ""), to_bytes) for index in range(max(by_id) + 1)
    ]


def token_bytes(tokenizer: Any) -> list[bytes]:
    """[V] the bytes that each token id of a Hugging Face tokenizer stands for in a text; empty for ids that no token
    has. A byte of its own in a SentencePiece vocabulary, `<0x0A>`, is that byte."""
    by_id: dict[int, str] = {index: token for token, index in tokenizer.get_vocab().items()}
    if not by_id:
        return []
    added = {index: str(token.content) for index, token in getattr(tokenizer, "added_tokens_decoder", {}).items()}
    to_bytes = _byte_alphabet() if _is_byte_level(tokenizer) else None
    return [
        added[index].encode() if index in added else _spelt(by_id.get(index, ""), to_bytes)
        for index in range(max(by_id) + 1)
    ]


def bytes_as_text(data: bytes) -> str:
    """UTF-8 as text where it is whole characters, every other byte as `<0xNN>`."""
    text = data.decode("utf-8", "surrogateescape")
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)


def _piece(token: str, to_bytes: Mapping[str, int] | None) -> str:
    if to_bytes is None:
        return token.replace(SENTENCEPIECE_BLANK, " ")
    if any(character not in to_bytes for character in token):  # added without being told to be special
        return token
    return bytes_as_text(bytes(to_bytes[character] for character in token))


def _spelt(token: str, to_bytes: Mapping[str, int] | None) -> bytes:
    if to_bytes is None:
        byte = _BYTE_TOKEN.fullmatch(token)
        return bytes([int(byte[1], 16)]) if byte else token.replace(SENTENCEPIECE_BLANK, " ").encode()
    if any(character not in to_bytes for character in token):  # added without being told to be special
        return token.encode()
    return bytes(to_bytes[character] for character in token)


def _is_byte_level(tokenizer: Any) -> bool:
    # What is named in a decoder's text are its parts; a decoder has no other way to be asked.
    return "ByteLevel" in repr(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None))


def _byte_alphabet() -> dict[str, int]:
    """Character -> byte of byte-level vocabularies (GPT-2): printable bytes of Latin-1 stand for themselves, the other
    68 are, in order, the characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(0x100 + number): byte for number, byte in enumerate(others)}
