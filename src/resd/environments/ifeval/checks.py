"""The 25 checks, from their published definitions (Zhou et al., table 1, and its released checker).

A check reads a reply that is not blank and the instruction's parameters, and returns what is wrong in one
sentence (what was wanted, then what was found), or "" where the instruction is followed. Parameters bear
their names in the data. Every check takes time linear in the reply, whatever that holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from resd.environments.ifeval.text import capital_words, language, sentences, words

Check = Callable[..., str]
CHECKS: dict[str, Check] = {}
ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_QUOTED = 120
_DIVIDER = "******"


def checks(id_: str) -> Callable[[Check], Check]:
    """Enter a function under an instruction's id."""

    def enter(function: Check) -> Check:
        CHECKS[id_] = function
        return function

    return enter


# -- keywords


@checks("keywords:existence")
def keyword_existence(reply: str, keywords: Sequence[str]) -> str:
    missing = [word for word in keywords if not _occurrences(word, reply)]
    return f"Use the keywords {_list(keywords)}: the reply lacks {_list(missing)}." if missing else ""


@checks("keywords:frequency")
def keyword_frequency(reply: str, keyword: str, frequency: int, relation: str) -> str:
    count = len(_occurrences(keyword, reply))
    return _counted(count, relation, frequency, f"Use the word {_quote(keyword)}", "times")


@checks("keywords:forbidden_words")
def forbidden_words(reply: str, forbidden_words: Sequence[str]) -> str:
    used = [word for word in forbidden_words if re.search(rf"\b{re.escape(word)}\b", reply, re.IGNORECASE)]
    return f"Do not use the words {_list(forbidden_words)}: the reply uses {_list(used)}." if used else ""


@checks("keywords:letter_frequency")
def letter_frequency(reply: str, letter: str, let_frequency: int, let_relation: str) -> str:
    count = reply.lower().count(letter.lower())
    return _counted(count, let_relation, let_frequency, f"Use the letter {_quote(letter)}", "times")


# -- language


@checks("language:response_language")
def response_language(reply: str, language: str) -> str:
    found = _language(reply)
    same = found is None or found == language or found.partition("-")[0] == language
    return "" if same else f"Write the whole reply in language {language!r}: it reads as {found!r}."


# -- length


@checks("length_constraints:number_words")
def number_words(reply: str, num_words: int, relation: str) -> str:
    return _counted(len(words(reply)), relation, num_words, "Write", "words")


@checks("length_constraints:number_sentences")
def number_sentences(reply: str, num_sentences: int, relation: str) -> str:
    return _counted(len(sentences(reply)), relation, num_sentences, "Write", "sentences")


@checks("length_constraints:number_paragraphs")
def number_paragraphs(reply: str, num_paragraphs: int) -> str:
    wanted = f"Write exactly {num_paragraphs} paragraphs with *** between them"
    parts = _parts(re.split(r"\s?\*\*\*\s?", reply))
    if parts is None:
        return f"{wanted}: a paragraph between two others is empty."
    return _unless(len(parts) == num_paragraphs, wanted, len(parts))


@checks("length_constraints:nth_paragraph_first_word")
def nth_paragraph_first_word(reply: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> str:
    parts = reply.split("\n\n")
    count = sum(bool(part.strip()) for part in parts)
    wanted = (
        f"Write exactly {num_paragraphs} paragraphs with a blank line between them, "
        f"paragraph {nth_paragraph} beginning with {_quote(first_word)}"
    )
    if count != num_paragraphs:
        return f"{wanted}: the reply has {count} paragraphs."
    # As published: empty parts do not count as paragraphs, but they do when the n-th is looked up.
    part = parts[nth_paragraph - 1].split() if 1 <= nth_paragraph <= len(parts) else []
    begins = re.split(r"[.,?!'\"]", part[0].lstrip("'\""))[0].lower() if part else ""
    return "" if begins == first_word.lower() else f"{wanted}: it begins with {_quote(begins)}."


# -- content


@checks("detectable_content:number_placeholders")
def number_placeholders(reply: str, num_placeholders: int) -> str:
    count = len(re.findall(r"\[[^\[\]\n]*\]", reply))
    return _counted(count, "at least", num_placeholders, "Use", "placeholders in square brackets")


@checks("detectable_content:postscript")
def postscript(reply: str, postscript_marker: str) -> str:
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    pattern = known.get(postscript_marker, re.escape(postscript_marker.lower()))
    wanted = f"Add a postscript that begins with {_quote(postscript_marker)} at the end"
    return "" if re.search(pattern, reply.lower()) else f"{wanted}: the reply has none."


# -- format


@checks("detectable_format:number_bullet_lists")
def number_bullet_lists(reply: str, num_bullets: int) -> str:
    count = sum(_is_bullet(line.lstrip()) for line in reply.split("\n"))
    return _unless(
        count == num_bullets, f"Write exactly {num_bullets} bullet points (lines with * or -)", count
    )


@checks("detectable_format:constrained_response")
def constrained_response(reply: str) -> str:
    chosen = any(answer in reply for answer in ANSWERS)
    return "" if chosen else f"Answer with one of {_list(ANSWERS)}: the reply has none of them."


@checks("detectable_format:number_highlighted_sections")
def number_highlighted_sections(reply: str, num_highlights: int) -> str:
    marked = re.findall(r"\*\*[^\n*]*\*\*", reply) + re.findall(r"\*[^\n*]*\*", reply)
    count = sum(bool(text.strip("*").strip()) for text in marked)
    return _counted(count, "at least", num_highlights, "Highlight", "sections like *this*")


@checks("detectable_format:multiple_sections")
def multiple_sections(reply: str, section_spliter: str, num_sections: int) -> str:
    count = len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", reply))
    marked = f"sections, each marked {_quote(section_spliter + ' X')}, X being its number"
    return _counted(count, "at least", num_sections, "Write", marked)


@checks("detectable_format:json_format")
def json_format(reply: str) -> str:
    text = re.sub(r"\A```(?:json)?", "", reply.strip(), flags=re.IGNORECASE).removesuffix("```").strip()
    try:
        json.loads(text, parse_int=str)  # numbers of any length
    except (ValueError, RecursionError) as error:
        return f"Write the whole reply as JSON (a ```json block is allowed): it does not parse ({error})."
    return ""


@checks("detectable_format:title")
def title(reply: str) -> str:
    found = any(_is_titled(line) for line in reply.split("\n"))
    return "" if found else "Give a title in double angular brackets, like <<title>>: the reply has none."


# -- combination


@checks("combination:two_responses")
def two_responses(reply: str) -> str:
    wanted = f"Give two different responses with {_DIVIDER} between them"
    found = _parts(reply.split(_DIVIDER))
    if found is None:
        return f"{wanted}: one between two others is empty."
    if len(found) != 2:
        return f"{wanted}: the reply has {len(found)}."
    return "" if found[0] != found[1] else f"{wanted}: the two are the same."


@checks("combination:repeat_prompt")
def repeat_prompt(reply: str, prompt_to_repeat: str) -> str:
    begins = reply.strip().lower().startswith(prompt_to_repeat.strip().lower())
    wanted = f"First repeat this request word for word: {_quote(prompt_to_repeat)}"
    return "" if begins else f"{wanted}; the reply begins {_quote(reply.strip())}."


# -- start and end


@checks("startend:end_checker")
def end_checker(reply: str, end_phrase: str) -> str:
    text = reply.strip().strip('"').lower()
    wanted = f"End with the exact phrase {_quote(end_phrase)} and nothing after it"
    return "" if text.endswith(end_phrase.strip().lower()) else f"{wanted}: the reply ends {_tail(reply)}."


@checks("startend:quotation")
def quotation(reply: str) -> str:
    text = reply.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return ""
    ends = f"it begins with {text[0]!r} and ends with {text[-1]!r}"
    return f"Put the whole reply in double quotation marks: {ends}."


# -- case and punctuation


@checks("change_case:capital_word_frequency")
def capital_word_frequency(reply: str, capital_frequency: int, capital_relation: str) -> str:
    count = len(capital_words(reply))
    return _counted(count, capital_relation, capital_frequency, "Use", "words in capital letters only")


@checks("change_case:english_capital")
def english_capital(reply: str) -> str:
    wrong = [word for word in words(reply) if word != word.upper()]
    return _english(reply, reply.isupper(), "capital", wrong)


@checks("change_case:english_lowercase")
def english_lowercase(reply: str) -> str:
    wrong = [word for word in words(reply) if word != word.lower()]
    return _english(reply, reply.islower(), "lower-case", wrong)


@checks("punctuation:no_comma")
def no_comma(reply: str) -> str:
    count = reply.count(",")
    return f"Use no commas: the reply has {count}." if count else ""


# -- what they share

_language = language  # a parameter of the data bears the same name


def _counted(count: int, relation: str, wanted: int, before: str, after: str) -> str:
    """The relations are "at least" and "less than"."""
    if relation == "at least":
        return _unless(count >= wanted, f"{before} at least {wanted} {after}", count)
    return _unless(count < wanted, f"{before} fewer than {wanted} {after}", count)


def _unless(followed: bool, wanted: str, count: int) -> str:
    return "" if followed else f"{wanted}: the reply has {count}."


def _english(reply: str, cased: bool, case: str, wrong: Sequence[str]) -> str:
    wanted = f"Write the whole reply in English, in {case} letters only"
    if not cased:
        return f"{wanted}: {_list(wrong[:3])} is not." if wrong else f"{wanted}: the reply has no letters."
    found = language(reply)
    return "" if found in (None, "en") else f"{wanted}: it reads as language {found!r}."


def _occurrences(keyword: str, reply: str) -> list[str]:
    return re.findall(re.escape(keyword), reply, re.IGNORECASE)


def _parts(pieces: Sequence[str]) -> list[str] | None:
    """The pieces without a blank first and last one; None where one between others is blank."""
    if not all(piece.strip() for piece in pieces[1:-1]):
        return None
    return [piece.strip() for piece in pieces if piece.strip()]


def _is_bullet(line: str) -> bool:
    return line.startswith("-") or (line.startswith("*") and not line.startswith("**"))


def _is_titled(line: str) -> bool:
    start, end = line.find("<<"), line.rfind(">>")
    return 0 <= start < end and bool(line[start : end + 2].lstrip("<").rstrip(">").strip())


def _list(items: Sequence[str]) -> str:
    return ", ".join(map(_quote, items))


def _quote(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text[: 2 * _QUOTED].split())
    return f'"{line}"' if len(line) <= _QUOTED else f'"{line[:_QUOTED]}..."'


def _tail(text: str) -> str:
    line = " ".join(text[-2 * _QUOTED :].split())
    return f'"{line}"' if len(line) <= _QUOTED else f'"...{line[-_QUOTED:]}"'
