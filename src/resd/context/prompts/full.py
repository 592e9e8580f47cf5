"""The wording for real models: it says what every section is and which JSON keys are wanted.

The ids in the examples are impossible ones (no section has the slug `xxx`), so that a reply which copies them
is recognised and judges no real entry.
"""

from resd.context.prompts.base import PromptStyle

_SOLVE = """\
Solve the problem below. Besides the problem you may be given:
- a playbook: lessons collected from earlier attempts at other problems of this kind, each with its id and \
with how often it has helped and harmed;
- a previous attempt at this very problem, the feedback which that attempt received from the checker, and \
a reflection on what went wrong in it;
- a solution that passed all checks.
Use the lessons that apply and ignore the others. Where the feedback and your own reading disagree, the \
feedback is right. Do not mention any of this material in your answer: write it as if you had been given \
the problem alone."""

_REFLECT = """\
An attempt at the problem below has failed. Find out why, so that the next attempt, at this problem or at \
another of its kind, succeeds. You are given the playbook (lessons from earlier attempts, each with its id), \
the problem, the attempt and the feedback of the checker.

Reply with one JSON object with these keys:
- "error": what exactly is wrong in the attempt, in one or two sentences.
- "fix": what it should have done instead, in one or two sentences.
- "lessons": at most three lessons. Each is one sentence that stands by itself, tells a solver what to do or \
to avoid, and holds for other problems of this kind: no names, numbers or answers of this one problem. \
Leave out what the playbook already says; the list may be empty.
- "tags": your judgement of playbook entries that bear on this attempt. "helpful": following it would have \
avoided the error. "harmful": following it causes or hides the error. "neutral": neither."""

_TAG = """\
The attempt below has solved its problem. Judge the entries of the playbook by it. You are given the \
playbook (lessons from earlier attempts, each with its id), the problem and the attempt.

Reply with one JSON object with one key, "tags": a list with your judgement of the entries that bear on this \
problem. "helpful": the attempt does what the entry advises, and needed to. "harmful": following the entry \
would have spoilt the attempt. "neutral": neither."""

_CURATE = """\
Maintain the playbook: lessons that a solver reads before each new problem. You are given the playbook, \
statistics on how its entries have served, a problem on which an attempt has failed, and a reflection \
on that failure. Decide what the playbook should learn from the reflection.

Add a lesson only if it is general (it helps with other problems of this kind and contains nothing specific \
to this one), true as far as the reflection shows, and new (no entry says it already, in whatever words). \
Write it as one sentence that can be understood without the problem. Often there is nothing to add.

Reply with one JSON object with one key, "operations": a list of at most three additions, or [] for none. \
Each has "type" (always "ADD"), "content" (the lesson) and "section", one of: strategies_and_insights, \
formulas_and_calculations, code_snippets_and_templates, common_mistakes_to_avoid, \
problem_solving_heuristics, context_clues_and_indicators, others."""

_ID_EXAMPLE = (
    "The id in the example is made up: use only ids that stand in the playbook above, and [] if it is empty."
)

FULL = PromptStyle(
    name="full",
    instructions={"solve": _SOLVE, "reflect": _REFLECT, "tag": _TAG, "curate": _CURATE},
    closing={
        "solve": "Now solve the problem. Answer in the form that it asks for.",
        "reflect": "Reply with the JSON object alone, in this form:\n"
        '{"error": "...", "fix": "...", "lessons": ["..."], '
        '"tags": [{"id": "xxx-99999", "tag": "helpful"}]}\n' + _ID_EXAMPLE,
        "tag": "Reply with the JSON object alone, in this form:\n"
        '{"tags": [{"id": "xxx-99999", "tag": "neutral"}]}\n' + _ID_EXAMPLE,
        "curate": "Reply with the JSON object alone, in this form:\n"
        '{"operations": [{"type": "ADD", "section": "others", "content": "..."}]}',
    },
    sections={
        "solve": ("playbook", "problem", "trial", "feedback", "reflection", "solution"),
        "reflect": ("playbook", "problem", "trial", "feedback"),
        "tag": ("playbook", "problem", "trial"),
        "curate": ("playbook", "statistics", "problem", "reflection"),
    },
    titles={
        "playbook": "# Playbook",
        "statistics": "# Statistics of the playbook",
        "problem": "# Problem",
        "trial": "# Previous attempt",
        "feedback": "# Feedback on the attempt",
        "reflection": "# Reflection on the attempt",
        "solution": "# Solution that passed all checks",
    },
    separator="\n\n",
    empty_playbook="(empty)",
    entry_counts=True,
    section_headers=True,
)
