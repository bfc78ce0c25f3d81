"""Token id -> the text that the token stands for, so that completions can be shown token by token without a model.

A token need not be whole characters: byte-level tokenizers split characters of several bytes. Such a piece is written
as its bytes, `<0xE2><0x80>`, the notation of SentencePiece.
"""

from collections.abc import Mapping
from typing import Any

SENTENCEPIECE_BLANK = "\u2581"


def token_pieces(tokenizer: Any) -> list[str]:
    """[V] the piece of each token id of a Hugging Face tokenizer; empty for ids that no token has."""
    by_id: dict[int, str] = {index: token for token, index in tokenizer.get_vocab().items()}
    if not by_id:
        return []
    added = {index: str(token.content) for index, token in getattr(tokenizer, "added_tokens_decoder", {}).items()}
    # What is named in a decoder's text are its parts; a decoder has no other way to be asked.
    is_byte_level = "ByteLevel" in repr(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None))
    to_bytes = _byte_alphabet() if is_byte_level else None
    return [
        added[index] if index in added else _piece(by_id.get(index, ""), to_bytes) for index in range(max(by_id) + 1)
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


def _byte_alphabet() -> dict[str, int]:
    """Character -> byte of byte-level vocabularies (GPT-2): printable bytes of Latin-1 stand for themselves, the other
    68 are, in order, the characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(0x100 + number): byte for number, byte in enumerate(others)}
