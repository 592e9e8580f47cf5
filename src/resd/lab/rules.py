"""The latent rules of the lab model: what its programs get wrong, and the words for it.

Each rule is one habit of a Manufactoria program. An unconditioned lab model keeps each with probability
`prior`, independently per program; lessons about a rule, if shown, make it keep the rule. So success needs
several lessons at once, as in real post-training, while each lesson is simple. `docs/lab-model.md` says
plainly what is built in.
"""

from __future__ import annotations

from dataclasses import dataclass

STRATEGIES = "strategies_and_insights"
HEURISTICS = "problem_solving_heuristics"
MISTAKES = "common_mistakes_to_avoid"


@dataclass(frozen=True)
class Rule:
    """One habit. `kinds` are the problem kinds it applies to; `wrong_lesson` teaches the violation."""

    name: str
    prior: float  # P(an unconditioned program keeps the rule)
    section: str
    kinds: frozenset[str]
    lessons: tuple[str, ...]
    errors: tuple[str, ...]
    fixes: tuple[str, ...]
    wrong_lesson: str


EVERY = frozenset({"substring", "ordered", "count"})

RULES: tuple[Rule, ...] = (
    Rule(
        name="end",
        prior=0.50,
        section=MISTAKES,
        kinds=EVERY,
        lessons=(
            "Always declare END end.",
            "Close the program with END end.",
            "Never leave out the END node.",
            "Every program needs an END node.",
        ),
        errors=("The END node is missing.", "END end is not declared."),
        fixes=("Declare END end.", "Add the END node."),
        wrong_lesson="Leave out the END node.",
    ),
    Rule(
        name="start",
        prior=0.48,
        section=STRATEGIES,
        kinds=EVERY,
        lessons=(
            "START must lead to s0.",
            "Begin at the first puller.",
            "Enter the machine at s0.",
            "Let START go to s0.",
        ),
        errors=("START goes to t0.", "START skips s0."),
        fixes=("Let START lead to s0.", "Begin at s0."),
        wrong_lesson="START must lead to t0.",
    ),
    Rule(
        name="partner",
        prior=0.42,
        section=STRATEGIES,
        kinds=EVERY,
        lessons=(
            "On EMPTY a puller must try its partner.",
            "Every puller must lead to its partner.",
            "EMPTY in s must lead to t.",
            "Let the partner read the other colors.",
        ),
        errors=("The pullers skip the partner.", "EMPTY in s leads to NONE."),
        fixes=("Let EMPTY in s lead to t.", "Send EMPTY to the partner."),
        wrong_lesson="EMPTY in s must lead to NONE.",
    ),
    Rule(
        name="restart",
        prior=0.44,
        section=HEURISTICS,
        kinds=frozenset({"substring"}),
        lessons=(
            "After a mismatch fall back to the longest prefix.",
            "A mismatch in a row must fall back.",
            "For a row never give up at a mismatch.",
            "Keep the matched prefix after a mismatch.",
        ),
        errors=("A mismatch rejects the tape.", "The program gives up at a mismatch."),
        fixes=("Fall back to the longest prefix.", "Keep the matched prefix."),
        wrong_lesson="For a row give up at a mismatch.",
    ),
    Rule(
        name="stay",
        prior=0.44,
        section=HEURISTICS,
        kinds=frozenset({"ordered", "count"}),
        lessons=(
            "Stay in the state when another color comes.",
            "Other colors must not reset the progress.",
            "Ignore other colors and keep the progress.",
            "Never go back to s0 for other colors.",
        ),
        errors=("Other colors reset the progress.", "The program goes back to s0."),
        fixes=("Stay in the state.", "Ignore other colors."),
        wrong_lesson="Other colors must reset the progress.",
    ),
    Rule(
        name="empty",
        prior=0.43,
        section=MISTAKES,
        kinds=EVERY,
        lessons=(
            "An empty tape must reject.",
            "EMPTY in t must lead to NONE.",
            "Never accept when the tape is empty.",
            "Reject when nothing is left on the tape.",
        ),
        errors=("An empty tape is accepted.", "EMPTY in t leads to end."),
        fixes=("Let EMPTY in t lead to NONE.", "Reject an empty tape."),
        wrong_lesson="EMPTY in t must lead to end.",
    ),
    Rule(
        name="accept",
        prior=0.48,
        section=MISTAKES,
        kinds=EVERY,
        lessons=(
            "The last match must lead to end.",
            "Accept as soon as the match is complete.",
            "A complete match goes to end at once.",
            "Never start again after a complete match.",
        ),
        errors=("The last match goes to s0.", "A complete match is not accepted."),
        fixes=("Let the last match lead to end.", "Accept a complete match."),
        wrong_lesson="The last match must lead to s0.",
    ),
)
# What a reflection says of a program that breaks no rule and yet fails: it has no lesson for other tasks.
MISREAD_ERROR = "The states do not follow the task."
MISREAD_FIX = "Follow the task."

BY_NAME = {rule.name: rule for rule in RULES}
RULE_OF_TEXT = {
    text: rule for rule in RULES for text in (*rule.lessons, *rule.errors, *rule.fixes, rule.wrong_lesson)
}


def applicable(kind: str) -> tuple[Rule, ...]:
    """The rules that a program for a problem of this kind can break."""
    return tuple(rule for rule in RULES if kind in rule.kinds)
