import json
import re
import subprocess
import sys

import pytest

from resd.context.curation import curation_schema
from resd.context.entries import SECTION_KEYS
from resd.context.prompts import COMPACT, FULL, STYLES, assemble, style
from resd.context.reflection import reflection_schema

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


def test_the_context_engine_imports_no_torch():
    modules = ["updater", "teacher_prompt", "playbook", "reflection", "curation", "solutions", "prompts"]
    lines = [*(f"import resd.context.{module}" for module in modules), "import sys"]
    lines.append("sys.exit('torch' in sys.modules or 'transformers' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", "\n".join(lines)], check=False).returncode == 0
