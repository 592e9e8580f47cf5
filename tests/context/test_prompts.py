import json
import re
import subprocess
import sys

import pytest

from resd.config import ContextConfig
from resd.context.curation import curation_schema
from resd.context.entries import SECTION_KEYS
from resd.context.prompts import COMPACT, FULL, STYLES, assemble, configured, read_words, style
from resd.context.reflection import reflection_schema
from resd.records import ResdError

ROLES = ("solve", "reflect", "tag", "curate")


def test_the_lab_model_s_wording_is_frozen():
    assert COMPACT.fingerprint() == "4c8d923b3c9e0a99"
    sections = {"playbook": "P", "problem": "Q", "trial": "T", "feedback": "F"}
    text = "Reflect on the failed attempt.\nPlaybook:\nP\nTask:\nQ\nAttempt:\nT\nFeedback:\nF"
    assert assemble(COMPACT, "reflect", sections) == text


@pytest.mark.parametrize("name", STYLES)
def test_every_role_is_worded(name):
    wording = style(name)
    for role in ROLES:
        assert wording.instructions[role]
        assert set(wording.sections[role]) <= set(wording.titles)
    assert style(name, "as_released").fingerprint() != wording.fingerprint()


def test_the_full_wording_asks_for_the_keys_of_the_schemas():
    def words(role):
        return FULL.instructions[role] + FULL.closing[role]

    assert all(f'"{key}"' in words("reflect") for key in reflection_schema(())["required"])
    assert all(f'"{key}"' in words("curate") for key in ("operations", "type", "section", "content", "ADD"))
    assert all(key in words("curate") for key in SECTION_KEYS)
    assert FULL.sections["curate"] == ("playbook", "statistics", "problem", "reflection")


@pytest.mark.parametrize("role", ["reflect", "tag", "curate"])
def test_the_examples_are_json_with_impossible_ids(role):
    example = json.loads(re.findall(r"^\{.*\}$", FULL.closing[role], re.MULTILINE)[0])
    schema = curation_schema() if role == "curate" else reflection_schema(())
    assert set(example) <= set(schema["required"])
    assert set(re.findall(r"\w+-\d{5}", FULL.instructions[role] + FULL.closing[role])) <= {"xxx-99999"}


def test_words_of_a_file_replace_the_style_s(tmp_path):
    path = tmp_path / "words.yaml"
    path.write_text(
        "instructions:\n  solve: |\n    Do this.\n    And that.\ntitles: {problem: 'Question:'}\n"
    )
    wording = configured(ContextConfig(style="compact", prompts=str(path)))
    assert assemble(wording, "solve", {"playbook": "P", "problem": "Q"}) == (
        "Do this.\nAnd that.\nPlaybook:\nP\nQuestion:\nQ"
    )
    assert wording.instructions["tag"] == COMPACT.instructions["tag"]
    assert wording.closing == COMPACT.closing
    assert wording.fingerprint() != COMPACT.fingerprint()
    path.write_text("titles: {problem: 'Task:'}")
    assert style("compact", words=read_words(path)).fingerprint() == COMPACT.fingerprint(), "nothing changes"
    assert configured(ContextConfig(order="as_released")) == style("full", "as_released")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not a mapping; give it keys among instructions, closing, titles"),
        ("instruction: {solve: x}", "'instruction' is not a known key; known: instructions, closing, titles"),
        ("closing: {solver: x}", "closing: 'solver' is not a known key; known: solve, reflect, tag, curate"),
        ("titles: {curate: x}", "titles: 'curate' is not a known key; known: playbook, statistics"),
        ("titles: Playbook", "titles: is not a mapping"),
        ("closing: {solve: 3}", "closing.solve: is not text"),
        ("closing: {solve:", "not valid YAML"),
    ],
)
def test_a_file_of_words_that_does_not_fit(tmp_path, text, complaint):
    (tmp_path / "words.yaml").write_text(text)
    with pytest.raises(ResdError) as raised:
        read_words(tmp_path / "words.yaml")
    assert str(raised.value).startswith(f"context.prompts {tmp_path}/words.yaml: {complaint}")
    assert "\n" not in str(raised.value)


def test_the_context_engine_imports_no_torch():
    modules = ["updater", "teacher_prompt", "playbook", "reflection", "curation", "solutions", "prompts"]
    lines = [*(f"import resd.context.{module}" for module in modules), "import sys"]
    lines.append("sys.exit('torch' in sys.modules or 'transformers' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", "\n".join(lines)], check=False).returncode == 0
