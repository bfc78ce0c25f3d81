"""Instructions that can be checked without judgement: the kinds of IFEval (Zhou et al. 2023, arXiv 2311.07911).

Each function says whether a text follows an instruction; its keywords are the arguments that rows have. Sentences are
counted by a rule of ours, where IFEval has a trained model for it.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

Relation: TypeAlias = Literal["at least", "less than"]

_ABBREVIATIONS = ("mr", "mrs", "ms", "dr", "prof", "st", "vs", "etc", "e.g", "i.e", "no", "fig", "jr", "sr", "approx")
_SENTENCE_END = re.compile(r"[.!?]+[\"')\]*]*(?=\s|$)")
_MAX_WORD_CHARS = 60
_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_POSTSCRIPTS = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}


def _compare(number: int, wanted: int, relation: Relation) -> bool:
    return number >= wanted if relation == "at least" else number < wanted


def keywords_exist(text: str, *, keywords: list[str]) -> bool:
    """Every keyword stands in the text, in any case."""
    return all(keyword.lower() in text.lower() for keyword in keywords)


def keyword_frequency(text: str, *, keyword: str, frequency: int, relation: Relation) -> bool:
    """A keyword stands so often in the text."""
    return _compare(text.lower().count(keyword.lower()), frequency, relation)


def no_forbidden_words(text: str, *, forbidden_words: list[str]) -> bool:
    """None of these stands in the text as a word of its own."""
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(text: str, *, letter: str, let_frequency: int, let_relation: Relation) -> bool:
    """A letter stands so often in the text, in any case."""
    return _compare(text.lower().count(letter.lower()), let_frequency, let_relation)


def number_of_sentences(text: str, *, num_sentences: int, relation: Relation) -> bool:
    """So many sentences."""
    return _compare(count_sentences(text), num_sentences, relation)


def number_of_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    """Exactly so many paragraphs, with `***` between them, and none of them empty."""
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    if not parts[0]:
        parts = parts[1:]
    if parts and not parts[-1]:
        parts = parts[:-1]
    return all(parts) and len(parts) == num_paragraphs


def number_of_words(text: str, *, num_words: int, relation: Relation) -> bool:
    """So many words, of letters, digits and underscores."""
    return _compare(len(re.findall(r"\w+", text)), num_words, relation)


def nth_paragraph_first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly so many paragraphs, with an empty line between them, of which one begins with a word."""
    paragraphs = [paragraph.strip() for paragraph in re.split(r"\n\n", text) if paragraph.strip()]
    if len(paragraphs) != num_paragraphs or not 1 <= nth_paragraph <= num_paragraphs:
        return False
    word = re.match(r"[\"'“‘]*([^\s.,?!\"'”’]*)", paragraphs[nth_paragraph - 1])
    return word is not None and word[1].lower() == first_word.lower()


def number_of_placeholders(text: str, *, num_placeholders: int) -> bool:
    """At least so many placeholders in square brackets."""
    return len(re.findall(r"\[[^\[\]\n]*\]", text)) >= num_placeholders


def postscript(text: str, *, postscript_marker: str) -> bool:
    """A line that begins with the marker, such as P.S."""
    pattern = _POSTSCRIPTS.get(postscript_marker.strip(), re.escape(postscript_marker.strip()))
    return re.search(rf"^[^\w\n]{{0,20}}{pattern}", text, re.IGNORECASE | re.MULTILINE) is not None


def number_of_bullets(text: str, *, num_bullets: int) -> bool:
    """Exactly so many lines that begin with `*` or `-`."""
    return len(re.findall(r"^[ \t]*(?:\*[^*\n]|-)", text, re.MULTILINE)) == num_bullets


def constrained_response(text: str) -> bool:
    """One of the three answers that were allowed."""
    return any(answer in text for answer in _CONSTRAINED)


def number_of_highlights(text: str, *, num_highlights: int) -> bool:
    """At least so many parts between asterisks, `*so*` or `**so**`."""
    bold = re.findall(r"\*\*([^\n*]+)\*\*", text)
    rest = re.sub(r"\*\*[^\n*]+\*\*", "", text)
    return sum(bool(part.strip()) for part in (*bold, *re.findall(r"\*([^\n*]+)\*", rest))) >= num_highlights


def multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many sections, each with its mark and its number, as in "Section 1"."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)) >= num_sections


def is_json(text: str) -> bool:
    """The whole text is JSON, in a fence or without."""
    body = re.sub(r"\A\s*```(?:json)?\s*\n?|\s*```\s*\Z", "", text.strip(), flags=re.IGNORECASE)
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    """A title in double angular brackets, <<so>>."""
    return any(found.strip() for found in re.findall(r"<<([^\n<>]+)>>", text))


def two_responses(text: str) -> bool:
    """Two different answers, with six asterisks between them."""
    parts = [part.strip() for part in text.split("******")]
    given = [part for place, part in enumerate(parts) if part or 0 < place < len(parts) - 1]
    return len(given) == 2 and all(given) and given[0] != given[1]


def repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    """The text begins with the request itself."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_phrase(text: str, *, end_phrase: str) -> bool:
    """The text ends with a phrase, quotation marks aside."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(text: str) -> bool:
    """The whole text stands in double quotation marks."""
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def capital_words(text: str, *, capital_frequency: int, capital_relation: Relation) -> bool:
    """So many words in capitals alone."""
    return _compare(sum(w.isupper() for w in re.findall(r"[\w'’-]+", text)), capital_frequency, capital_relation)


def all_capitals(text: str) -> bool:
    """No small letters."""
    return text.isupper()


def all_lowercase(text: str) -> bool:
    """No capitals."""
    return text.islower()


def no_comma(text: str) -> bool:
    """No comma."""
    return "," not in text


def count_sentences(text: str) -> int:
    """Sentences: what ends with a full stop, a question or an exclamation mark, and what is left at the end. A full
    stop after an abbreviation, a single letter or the number of a list ends none."""
    count, start, end = 0, 0, len(text.rstrip())
    for match in _SENTENCE_END.finditer(text):
        # A bounded look back: a text of "a. a. a. " has no end of a sentence to begin at again.
        before = text[max(start, match.start() - _MAX_WORD_CHARS) : match.start()].split()
        if not before:
            continue
        word = before[-1].lower().lstrip("(\"'*")
        is_number_of_list = len(before) == 1 and word.isdigit()
        is_short = word in _ABBREVIATIONS or is_number_of_list or (len(word) == 1 and word.isalpha())
        # "Vitamin C." at the very end is a sentence all the same.
        if match[0] == "." and is_short and match.end() < end:
            continue
        count, start = count + 1, match.end()
    return count + bool(re.search(r"\w", text[start:]))


KINDS: Mapping[str, Callable[..., bool]] = {
    "keywords:existence": keywords_exist,
    "keywords:frequency": keyword_frequency,
    "keywords:forbidden_words": no_forbidden_words,
    "keywords:letter_frequency": letter_frequency,
    "length_constraints:number_sentences": number_of_sentences,
    "length_constraints:number_paragraphs": number_of_paragraphs,
    "length_constraints:number_words": number_of_words,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": number_of_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": number_of_bullets,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:number_highlighted_sections": number_of_highlights,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:json_format": is_json,
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": end_phrase,
    "startend:quotation": quotation,
    "change_case:capital_word_frequency": capital_words,
    "change_case:english_capital": all_capitals,
    "change_case:english_lowercase": all_lowercase,
    "punctuation:no_comma": no_comma,
}
"""IFEval's name of an instruction -> who checks it."""

NOT_CHECKED: Mapping[str, str] = {
    "language:response_language": "which language a text is in takes a model to tell",
}
"""IFEval's other instructions -> why they are not checked."""
