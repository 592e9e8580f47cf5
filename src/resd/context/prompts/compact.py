"""The lab model's wording: as few tokens as carry the same sections.

The lab model was trained on exactly these strings. A change here needs a new lab model (`resd lab build`);
the fingerprint kept beside its weights makes a mismatch an error at start, not a silent failure.
"""

from resd.context.prompts.base import PromptStyle

COMPACT = PromptStyle(
    name="compact",
    instructions={
        "solve": "Solve the task.",
        "reflect": "Reflect on the failed attempt.",
        "tag": "Tag the entries for the solved attempt.",
        "curate": "Curate the playbook.",
    },
    closing={"solve": "", "reflect": "", "tag": "", "curate": ""},
    sections={
        "solve": ("playbook", "problem", "trial", "feedback", "reflection", "solution"),
        "reflect": ("playbook", "problem", "trial", "feedback"),
        "tag": ("playbook", "problem", "trial"),
        "curate": ("playbook", "reflection"),
    },
    titles={
        "playbook": "Playbook:",
        "statistics": "Statistics:",
        "problem": "Task:",
        "trial": "Attempt:",
        "feedback": "Feedback:",
        "reflection": "Reflection:",
        "solution": "Solution:",
    },
    separator="\n",
    empty_playbook="(empty)",
    entry_counts=False,
    section_headers=False,
)
