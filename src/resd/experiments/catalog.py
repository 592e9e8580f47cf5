"""The experiments: the paper's comparisons (arXiv 2605.12741) and our own, over examples/lab.yaml."""

from __future__ import annotations

from dataclasses import replace

from resd.experiments.definition import Experiment, Variant
from resd.experiments.faults import Faults
from resd.records import ResdError
from resd.solve.effort import Effort

WHOLE_STREAM = "stream.max_updates=null"
GRPO = ("algorithm=grpo", "rollout.n=8")
# Feedback alone tells the lab model nothing ("feedback only" among the ablations): SDPO and its kin, whose
# teachers are not shown the attempt as published, are compared with it as well.
ATTEMPT = ("context.use_trial=true", "context.drop_feedback_with_solution=false")
RESD = Variant("resd", (), "the method with its defaults")
UNTRAINED = Variant("base", ("stream.max_updates=0",), "the model as it is, untrained", label="no training")

PUBLISHED, SHOWN_ATTEMPT = "As published", "Teachers that are shown the attempt as well"
ALGORITHMS = Experiment(
    name="algorithms",
    title="Algorithms",
    question="What does each algorithm make of one pass over the same problems (the paper's Table 2)?",
    variants=(
        replace(UNTRAINED, group=PUBLISHED),
        Variant(
            "sdpo_published",
            ("algorithm=sdpo",),
            "no reflection, no playbook; failures alone are distilled",
            label="sdpo",
            group=PUBLISHED,
        ),
        Variant(
            "sdpo_ss_published",
            ("algorithm=sdpo", "context.distill_successes=true"),
            "the paper's SDPO+ss: own successes are distilled too",
            label="sdpo+ss",
            group=PUBLISHED,
        ),
        replace(RESD, group=PUBLISHED),
        Variant(
            "srpo_published",
            ("algorithm=srpo", "rollout.n=8"),
            "eight tries at each problem; the teacher is shown a peer's solution, or feedback",
            label="srpo, n=8",
            group=PUBLISHED,
        ),
        Variant(
            "rlsd_published",
            ("algorithm=rlsd", "rollout.n=8"),
            "likewise",
            label="rlsd, n=8",
            group=PUBLISHED,
        ),
        Variant(
            "grpo", GRPO, "eight tries at each problem, the verdict alone", label="grpo, n=8", group=PUBLISHED
        ),
        Variant(
            "sdpo",
            ("algorithm=sdpo", *ATTEMPT),
            "attempt and feedback",
            label="sdpo, attempt",
            group=SHOWN_ATTEMPT,
        ),
        Variant(
            "sdpo_ss",
            ("algorithm=sdpo", "context.distill_successes=true", *ATTEMPT),
            "own successes are distilled too",
            label="sdpo+ss, attempt",
            group=SHOWN_ATTEMPT,
        ),
        Variant(
            "srpo",
            ("algorithm=srpo", "rollout.n=8", *ATTEMPT),
            "attempt, feedback and a peer's solution",
            label="srpo, attempt, n=8",
            group=SHOWN_ATTEMPT,
        ),
        Variant(
            "rlsd",
            ("algorithm=rlsd", "rollout.n=8", *ATTEMPT),
            "likewise",
            label="rlsd, attempt, n=8",
            group=SHOWN_ATTEMPT,
        ),
    ),
    reference="resd",
    costs=True,
)

SHOWN, LEARNED = "What the teacher is shown", "What is learned from, and how it is weighted"
ONLY = ("context.use_playbook=false", "context.use_solution=false", "context.use_trial=false")
ABLATIONS = Experiment(
    name="ablations",
    title="Ablations",
    question="Which parts of RESD matter (the paper's Table 3)?",
    variants=(
        RESD,
        Variant(
            "no_reflection",
            ("context.use_reflection=false",),
            "lessons reach the student through the playbook alone",
            "no reflection",
            SHOWN,
        ),
        Variant(
            "no_playbook",
            ("context.use_playbook=false",),
            "lessons live for one update",
            "no playbook",
            SHOWN,
        ),
        Variant(
            "neither",
            ("context.use_reflection=false", "context.use_playbook=false"),
            "SDPO with successes and weights",
            "neither of the two",
            SHOWN,
        ),
        Variant(
            "neither_no_weights",
            ("context.use_reflection=false", "context.use_playbook=false", "distillation.rebalance=false"),
            "SDPO with successes, and solutions of earlier rounds",
            "neither, no success weights",
            LEARNED,
        ),
        Variant(
            "failures_and_successes",
            (
                "context.use_reflection=false",
                "context.use_playbook=false",
                "context.use_solution_buffer=false",
                "distillation.rebalance=false",
            ),
            "what is left is SDPO+ss",
            "neither, no weights, no buffer",
            LEARNED,
        ),
        Variant(
            "no_feedback",
            ("context.use_feedback=false",),
            "the teacher is not told what went wrong; the reflector still is",
            "no feedback",
            SHOWN,
        ),
        Variant(
            "no_trial",
            ("context.use_trial=false",),
            "the teacher does not see the attempt; the reflector still does",
            "no trial",
            SHOWN,
        ),
        Variant(
            "reflection_only",
            (*ONLY, "context.use_feedback=false"),
            "the teacher sees the reflection and nothing else",
            "reflection only",
            SHOWN,
        ),
        Variant(
            "feedback_only",
            (*ONLY, "context.use_reflection=false"),
            "the teacher sees the feedback and nothing else",
            "feedback only",
            SHOWN,
        ),
        Variant(
            "no_solution_buffer",
            ("context.use_solution_buffer=false",),
            "solutions of earlier rounds are forgotten",
            "no solution buffer",
            LEARNED,
        ),
        Variant(
            "no_weights",
            ("distillation.rebalance=false",),
            "successes and failures weigh the same",
            "no success weights",
            LEARNED,
        ),
        Variant(
            "failures_only",
            ("context.distill_successes=false",),
            "successes are not distilled",
            "failures only",
            LEARNED,
        ),
    ),
    reference="resd",
)

EFFICIENCY = Experiment(
    name="efficiency",
    title="Efficiency",
    question="One try with a teacher or eight tries without: by updates, rollouts, tokens and time?",
    variants=(
        RESD,
        Variant("grpo", GRPO, "eight tries at each problem", label="grpo, n=8"),
        Variant(
            "resd_then_grpo",
            ("switch.to=grpo", "switch.n=8", "switch.success=0.7"),
            "GRPO takes over once seven attempts of ten succeed",
            label="resd, then grpo",
        ),
    ),
    reference="resd",
    common=(WHOLE_STREAM,),
    costs=True,
    notes="Over the whole stream. Tokens include everything that was generated: rollouts, reflections, "
    "tags and curation. Seconds are those of the updates, with as many concurrent runs as the "
    "command says.",
)


def _setting(group: str, key: str, *values: tuple[str, str]) -> tuple[Variant, ...]:
    """One variant per (value, reason) of a setting."""
    leaf = key.rpartition(".")[2]
    return tuple(
        Variant(f"{leaf}_{value}", (f"{key}={value}",), why, f"{leaf} {value}", group)
        for value, why in values
    )


SETTINGS = Experiment(
    name="settings",
    title="Settings",
    question="How much do the settings matter that papers and releases disagree about?",
    variants=(
        RESD,
        *_setting(
            "Divergence",
            "distillation.alpha",
            ("0", "forward KL; the default, 1, is reverse KL"),
            ("0.5", "Jensen-Shannon; the paper's for BouncingSim-Easy and FiNER"),
        ),
        *_setting(
            "Lower limit of the teacher's ratio",
            "distillation.min_ratio",
            ("null", "no limit, as SDPO; the default is 0.2"),
            ("0.5", "a tight limit"),
        ),
        *_setting(
            "Teacher",
            "teacher.update_rate",
            ("0", "as released: the teacher never moves; the lab's default is 0.01"),
            ("1e-4", "the paper's"),
            ("5e-2", "SDPO's"),
        ),
        *_setting(
            "Updates per batch, at 20 updates in all",
            "stream.updates_per_batch",
            ("1", "each problem once; the default is 4"),
            ("2", "twice"),
            ("8", "fewer problems, longer"),
        ),
        *_setting(
            "Pruning",
            "context.concise_method",
            ("prioritized", "the paper's appendix G; the default is staleness"),
            ("reset", "the release's YAML"),
        ),
        *_setting(
            "Pruning",
            "context.concise_frequency",
            ("1", "every update, as in the paper's Algorithm 1; the default is 4"),
            ("null", "only when the playbook is full"),
        ),
        *_setting(
            "Playbook size",
            "context.max_entries",
            ("4", "fewer than there are rules; the default is 14"),
            ("7", "one for each rule"),
        ),
    ),
    reference="resd",
    curves=False,
    notes="Evaluations follow batches, so area and updates to 50 % are less comparable between different "
    "numbers of updates per batch. With one update per batch the problems last for 18 updates.",
)

FAULTS = {
    "clean": ("No faults", Faults()),
    "wrong1": ("1 % of the curations add a wrong lesson", Faults(0.01)),
    "wrong4": ("4 % of the curations add a wrong lesson", Faults(0.04)),
    "wrong10": ("10 % of the curations add a wrong lesson", Faults(0.1)),
    "half": ("10 % wrong lessons, and half of the tags turned round", Faults(0.1, 0.5)),
    "reversed": ("10 % wrong lessons, and all of the tags turned round", Faults(0.1, 1.0)),
}
MEASURED = "context.credit=measured"
CREDITS: dict[str, tuple[tuple[str, ...], str]] = {
    "votes": ((), "the paper's: the reflector's tags decide"),
    "measured": ((MEASURED,), "what entries do to the teacher's predictions decides"),
    "withheld": ((MEASURED, "context.probation=withheld"), "and the teacher sees proven entries alone"),
}


def _poisoned(faults: dict[str, tuple[str, Faults]]) -> tuple[Variant, ...]:
    """Each fault with each method of detecting it."""
    return tuple(
        Variant(
            f"{fault}_{credit}",
            overrides,
            why,
            credit if rates != Faults() else f"{credit}, no faults",
            group,
            rates,
        )
        for fault, (group, rates) in faults.items()
        for credit, (overrides, why) in CREDITS.items()
    )


POISON = Experiment(
    name="poison",
    title="Poison",
    question="What do wrong lessons in the playbook cost, and how soon are they gone?",
    variants=_poisoned(FAULTS),
    reference="clean_votes",
    lives=True,
    curves=False,
    notes="A wrong lesson is one of the lab's seven that teach a violation. All rows are compared with "
    "votes without faults.",
)

POISON_ALONE = Experiment(
    name="poison_alone",
    title="Poison without an antidote",
    question="What do wrong lessons cost where the teacher is shown no reflection, which says what is right?",
    variants=_poisoned(
        {
            "clean": ("No faults", Faults()),
            "wrong30": ("30 % of the curations add a wrong lesson", Faults(0.3)),
            "reversed": ("30 % wrong lessons, and all of the tags turned round", Faults(0.3, 1.0)),
        }
    ),
    common=("context.use_reflection=false",),
    reference="clean_votes",
    lives=True,
    curves=False,
    notes="Worse than anything that a model is likely to do to itself; the aim is to see where it breaks.",
)

FORGETTING = Experiment(
    name="forgetting",
    title="Forgetting",
    question="What becomes of what is not trained: reflecting, tagging, curating, solving with help?",
    variants=(
        Variant("before", ("stream.max_updates=0",), "the model as it is", measure="skills"),
        Variant("resd", (), "the method with its defaults", measure="skills"),
        Variant("sdpo", ("algorithm=sdpo", *ATTEMPT), "the smallest change of the weights", measure="skills"),
        Variant("grpo", GRPO, "trained on programs alone, eight tries", "grpo, n=8", measure="skills"),
        Variant(
            "teacher_author",
            ("context.author=teacher",),
            "the slowly moving teacher writes reflections",
            "resd, teacher writes",
            measure="skills",
        ),
    ),
    reference="resd",
    common=(WHOLE_STREAM,),
    notes="After the whole stream. Skills are those of `resd lab evaluate`, on held-out problems. All "
    "models reflect on, curate and retry the same failures, those of the untrained model, because a "
    "trained model has hardly any of its own. There is no unrelated task to forget: the untrained "
    "lab model solves no problem of any other Manufactoria family (0 of 36 to 64 samples in each of "
    "ten).",
)

BASELINES = Experiment(
    name="baselines",
    title="Context in the prompt",
    question="Is the playbook worth more in the prompt or in the weights?",
    variants=(
        UNTRAINED,
        Variant(
            "ace",
            ("algorithm=ace", "evaluation.playbook=true"),
            "the playbook is learned, the weights are not; held-out prompts show it",
            label="ace: no weights change",
        ),
        RESD,
        Variant(
            "resd_playbook",
            ("evaluation.playbook=true",),
            "held-out prompts show the playbook",
            label="resd, playbook at inference",
        ),
        Variant(
            "student_playbook",
            ("context.student_playbook=true",),
            "rollouts are shown the playbook, held-out prompts are not",
            label="resd, playbook in training",
        ),
        Variant(
            "student_playbook_both",
            ("context.student_playbook=true", "evaluation.playbook=true"),
            "both are shown it",
            label="resd, playbook in both",
        ),
    ),
    reference="resd",
)

BUDGET = 512  # attempts at most
HARD = "count"


def _way(name: str, effort: Effort, overrides: tuple[str, ...], why: str, label: str) -> Variant:
    return Variant(name, overrides, why, label, measure="discovery", effort=effort, after=HARD)


TEST_TIME = Experiment(
    name="test_time",
    title="Test-time self-distillation",
    question="How many attempts until a hard problem is solved, with and without learning from the failures?",
    variants=(
        Variant(
            HARD,
            (),
            "independent samples at every test problem: which are hard",
            measure="counts",
            effort=Effort("best_of", 1024),
            seed=1000,
        ),
        _way("best_of", Effort("best_of", BUDGET), (), "independent samples", "best of k"),
        _way(
            "multi_turn",
            Effort("multi_turn", BUDGET),
            (),
            "one conversation: each attempt is shown what was said of those before it",
            "multi-turn",
        ),
        _way(
            "sdpo",
            Effort("self_distill", BUDGET),
            ("algorithm=sdpo", "rollout.n=16", *ATTEMPT),
            "an update of the weights after every 16 attempts, from feedback alone",
            "self-distillation, sdpo",
        ),
        _way(
            "resd",
            Effort("self_distill", BUDGET),
            ("rollout.n=16",),
            "the same with reflections and a playbook",
            "self-distillation, resd",
        ),
    ),
    reference="best_of",
    common=("environment.options.states=[4,8]", "rollout.max_tokens=200"),
    notes="Hard problems are long ones, whose programs have 4 to 8 states (2 to 6 in the lab recipe): the "
    "six of these test problems with the fewest successes among 1,024 independent samples of the "
    "untrained model (the variant `count`), ties broken by id. No method sees those samples, and "
    "each starts every problem from the untrained model.",
)

EXPERIMENTS = (
    ALGORITHMS,
    ABLATIONS,
    EFFICIENCY,
    SETTINGS,
    POISON,
    POISON_ALONE,
    FORGETTING,
    TEST_TIME,
    BASELINES,
)


def find(name: str) -> Experiment:
    """The experiment with this name. Raises ResdError, listing the known names, if there is none."""
    for experiment in EXPERIMENTS:
        if experiment.name == name:
            return experiment
    known = ", ".join(experiment.name for experiment in EXPERIMENTS)
    raise ResdError(f"experiment {name}: is not known; choose from {known}")
