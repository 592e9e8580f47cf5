"""Each instruction with replies that do and do not follow it, and how words and sentences are counted."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resd.environments.ifeval import parse_instruction
from resd.environments.ifeval.checks import CHECKS
from resd.environments.ifeval.text import capital_words, language, sentences, words
from resd.records import ResdError

THREE = "One.\n\nTwo, second.\n\nThree."
# id, parameters, replies that follow, replies that do not
CASES = [
    (
        "keywords:existence",
        {"keywords": ["mom", "C++"]},
        ["Mom likes c++.", "MOMENT of C++"],
        ["Mum likes C++.", "mom likes C"],
    ),
    (
        "keywords:frequency",
        {"keyword": "war", "frequency": 2, "relation": "at least"},
        ["War and war.", "toward a WAR"],
        ["War and peace.", "Nothing."],
    ),
    (
        "keywords:frequency",
        {"keyword": "{}", "frequency": 2, "relation": "less than"},
        ["none", "one {}"],
        ["{} {}", "{}{}{}"],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["rock", "field"]},
        ["Rocks are rocky.", "A battlefield."],
        ["A Rock.", "the FIELD, green"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_frequency": 3, "let_relation": "at least"},
        ["###", "# a # b # c"],
        ["##", "none"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "T", "let_frequency": 2, "let_relation": "less than"},
        ["a t", "no"],
        ["Tt", "that"],
    ),
    (
        "language:response_language",
        {"language": "de"},
        ["Das ist ein sehr schöner Tag und ich gehe nach Hause.", "Wir haben heute keine Zeit dafür."],
        ["This is a very fine day and I walk home.", "Aujourd'hui nous n'avons pas le temps."],
    ),
    (
        "language:response_language",
        {"language": "kn"},
        ["ನನ್ನ ಹೆಸರು ರಾಜ ಮತ್ತು ನಾನು ಬೆಂಗಳೂರಿನಲ್ಲಿ ವಾಸಿಸುತ್ತೇನೆ", "ಇದು ಒಂದು ಸುಂದರ ದಿನ"],
        ["My name is Raja.", "यह एक सुंदर दिन है"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "at least"},
        ["one two three", "it's well-known"],
        ["one two", "one... two!"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "less than"},
        ["one two", "one"],
        ["one two three", "a b c d"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "at least"},
        ["One. Two! Three?", "go. went. gone"],
        ["Dr. Who met Mr. T. Rex. Then he left.", "no stops at all\nhere\nand here"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "less than"},
        ["One.", "It costs 3.50 at example.com, e.g. here."],
        ["One. Two.", "What?! Yes."],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***\na\n\nb\n***\nc\n***"],
        ["a\n\nb", "a\n***\n***\nb", "a *** b *** c"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "two"},
        [THREE, "x\n\n\"Two's\n\ny"],
        ["Two.\n\nOne.\n\nThree.", "One\n\nTwo", "One\n\n\n\nTwo\n\nThree"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[name] lives at [address]", "[a][b][c]"],
        ["[name]", "[not\nclosed] and [x]"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye.\nP.S. Call me", "p. s. call"],
        ["Bye.", "PS call me"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["Bye.\nP.P.S. Call me", "p. p. s call"],
        ["P.S. Call me", "PPS"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\ntext\n  - b\n**bold** line"],
        ["* a", "* a\n* b\n- c", "1. a\n2. b"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "Well. My answer is maybe. Who knows?"],
        ["Yes.", "My answer is yes", "my answer is no."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and **b**", "*one two* *three*"],
        ["*a*", "** ** and *a*", "*a\nb* *c*"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\na\nSECTION 2\nb", "SECTION1 SECTION2 SECTION3"],
        ["SECTION 1", "Section 1\nSection 2", "SECTION one SECTION two"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1, 2]}', '```json\n{"a": 1}\n```', "```\n[1]\n```", "9" * 5000],
        ["{'a': 1}", 'Here: {"a": 1}', "```json\n{\n```", "[" * 100_000],
    ),
    (
        "detectable_format:title",
        {},
        ["<<Hello>>\ntext", "x <<a>> <<b>> y"],
        ["<Hello>", "<<\n>>", "<< >>", ">>a<<"],
    ),
    (
        "combination:two_responses",
        {},
        ["a\n******\nb", "******a******b******"],
        ["a", "a******a", "a******b******c", "a************b"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Write a haiku.\nNow."},
        ["Write a haiku.\nNow.\n\nHere", "  write A haiku.\nNow. x"],
        ["Here: Write a haiku.\nNow.", "Write a haiku"],
    ),
    (
        "startend:end_checker",
        {"end_phrase": "Any questions? "},
        ["Hi. Any questions?", 'x "ANY questions?"\n'],
        ["Any questions? No.", "Any question?"],
    ),
    (
        "startend:quotation",
        {},
        ['"Hello"', ' "a" and "b" \n'],
        ['"', "'Hello'", '"Hello'],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["THE END", "**NASA** and I"],
        ["The END", "Nothing"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        ["The END-OF-DAY.", "7 of 8"],
        ["THE END", "I DON'T"],
    ),
    (
        "change_case:english_capital",
        {},
        ["THIS IS A FINE DAY, AND WE WALK HOME.", "THE END OF THE STORY 12"],
        ["THIS Is A FINE DAY", "ΑΥΤΉ ΕΊΝΑΙ ΜΙΑ ΠΟΛΎ ΚΑΛΉ ΜΈΡΑ", "12 34"],  # noqa: RUF001
    ),
    (
        "change_case:english_lowercase",
        {},
        ["this is a fine day and we walk home.", "the end of the story 12"],
        ["This is a fine day.", "das ist ein sehr schöner tag und ich gehe nach hause", "12"],
    ),
    ("punctuation:no_comma", {}, ["No commas here.", "a; b"], ["a, b", ","]),
]


@pytest.mark.parametrize(("id_", "parameters", "good", "bad"), CASES, ids=[case[0] for case in CASES])
def test_replies(id_, parameters, good, bad):
    instruction = parse_instruction(id_, parameters)
    for reply in good:
        assert instruction.wrong(reply) == "", reply
    for reply in bad:
        wrong = instruction.wrong(reply)
        assert wrong.endswith("."), reply
        assert "\n" not in wrong
    assert instruction.wrong(" \n")


def test_every_instruction_has_its_replies():
    assert len(CHECKS) == 25
    assert len({id_.partition(":")[0] for id_ in CHECKS}) == 9
    assert {case[0] for case in CASES} == set(CHECKS)


def test_what_is_said():
    def wrong(id_, reply, **parameters):
        return parse_instruction(id_, parameters).wrong(reply)

    assert (
        wrong("length_constraints:number_words", "one two", num_words=300, relation="at least")
        == "Write at least 300 words: the reply has 2."
    )
    assert (
        wrong("length_constraints:number_sentences", "Go. Went. Gone.", num_sentences=3, relation="less than")
        == "Write fewer than 3 sentences: the reply has 3."
    )
    assert (
        wrong("keywords:existence", "a", keywords=["a", "b", "c"])
        == 'Use the keywords "a", "b", "c": the reply lacks "b", "c".'
    )
    assert (
        wrong("change_case:english_lowercase", "so It goes")
        == 'Write the whole reply in English, in lower-case letters only: "It" is not.'
    )
    assert (
        wrong("startend:end_checker", "The end. Or is it?", end_phrase="The end.")
        == 'End with the exact phrase "The end." and nothing after it: the reply ends "The end. Or is it?".'
    )


def test_sentences():
    text = 'He said "Stop!" twice. Then (at 5 p.m. sharp) J. R. Smith left... Why? 1.5 kg, i.e. too much.'
    assert sentences(text) == [
        'He said "Stop!"',
        "twice.",
        "Then (at 5 p.m. sharp) J. R. Smith left...",
        "Why?",
        "1.5 kg, i.e. too much.",
    ]
    assert sentences("1. First item.\n2. Second item.\n\n- third") == [
        "1. First item.",
        "2. Second item.",
        "- third",
    ]
    assert sentences("lower case. goes on. ") == ["lower case.", "goes on."]
    assert len(sentences("We live in the U.S. It is big, etc. The end.")) == 3
    assert len(sentences("Do this (1. first; 2. then). It was 12. Then 13.")) == 3
    assert len(sentences("So do I. And you?")) == 2
    assert sentences("यह एक दिन है। दूसरा दिन।") == ["यह एक दिन है।", "दूसरा दिन।"]
    assert sentences("... !!! ?") == []


def test_words_and_capitals():
    assert words("It's a well-known x_1, naïve!") == ["It", "s", "a", "well", "known", "x_1", "naïve"]
    assert capital_words("NASA, U.S.A. and AI-POWERED *BOLD*: DON'T! iPhone 2ND 3 Éa ÉA") == [
        "NASA",
        "U.S.A",
        "AI-POWERED",
        "BOLD",
        "DON'T",
        "2ND",
        "ÉA",
    ]


def test_language_is_the_same_each_time():
    short = "no me gusta la casa grande e bella"
    assert len({language(short) for _ in range(20)}) == 1
    assert language("1234 :-)") is None


def test_the_users_own_seed_of_langdetect_is_left_alone():
    from langdetect import DetectorFactory

    language("hello there, my friend")
    assert DetectorFactory.seed is None


@pytest.mark.parametrize(
    ("id_", "parameters", "message"),
    [
        ("keywords:nothing", {}, "'keywords:nothing' is not known"),
        ("length_constraints:number_words", {"num_words": 3, "relation": None}, "needs relation"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at most"}, "give one of at least"),
        ("length_constraints:number_words", {"num_words": "x", "relation": "at least"}, "a whole number"),
        ("length_constraints:number_words", {"num_words": 2.5, "relation": "at least"}, "a whole number"),
        ("length_constraints:number_words", {"num_words": float("nan"), "relation": "at least"}, "cannot be"),
        ("keywords:existence", {"keywords": "word"}, "give a list of words"),
        ("keywords:existence", {"keywords": ["", "a"]}, "give a text"),
        ("keywords:existence", ["a"], "not an object with named values"),
    ],
)
def test_what_is_not_understood(id_, parameters, message):
    with pytest.raises(ResdError, match=message):
        parse_instruction(id_, parameters, "row 3")


INSTRUCTIONS = [parse_instruction(id_, parameters) for id_, parameters, _, _ in CASES]
PIECES = st.sampled_from(
    ["*", "**", "***", "<<", ">>", "[", "]", '"', ".", "\n", "\n\n", " ", "-", "P.S.", "{"]
)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(st.one_of(PIECES, st.text(max_size=3))).map("".join)))
def test_no_text_is_too_odd(text):
    for instruction in INSTRUCTIONS:
        assert isinstance(instruction.wrong(text), str)


@pytest.mark.parametrize(
    "text",
    ["[", "<<", "*", "\n", " ", ".", "a.", "a. ", "#1. ", "p. ", "SECTION ", '"', "****** ", "\n* ", ".)"],
)
def test_time_grows_with_the_length_only(text):
    long = "x" + text * (100_000 // len(text)) + "x"
    started = time.process_time()
    for instruction in INSTRUCTIONS:
        instruction.wrong(long)
    assert time.process_time() - started < 3.0
