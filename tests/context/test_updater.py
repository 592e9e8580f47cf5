import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from context.fakes import CharTokenizer, ScriptedEngine, attempt, curation_json, reflection_json
from resd.config import ContextConfig
from resd.context import journal
from resd.context.playbook import load_playbooks
from resd.context.prompts import style
from resd.context.teacher_prompt import TeacherPromptComposer
from resd.context.updater import ContextUpdater
from resd.records import ResdError

LESSONS = {"p": "lesson of p", "q": "lesson of q", "r": "lesson of r", "s": "lesson of s", "t": "lesson of t"}


def problem_in(request):
    return request.id.split("/")[2].split("#")[0]


def new_lesson(prompt, request):
    return reflection_json(LESSONS[problem_in(request)])


def copy_lesson(prompt, request):
    """A curator that copies the lesson unless the playbook that it sees has it."""
    lesson = prompt.split("Lesson: ")[1].split("<")[0]
    return curation_json() if lesson in prompt.split("Reflection:")[0] else curation_json(lesson)


def no_tags(prompt, request):
    return '{"tags": []}'


def updater(engine=None, *, thinking_template=False, wording="compact", **config):
    config = ContextConfig(**{"style": wording, "sequential_below": 0, **config})
    engine = engine or ScriptedEngine(reflect=new_lesson, tag=no_tags, curate=copy_lesson)
    return ContextUpdater(config, style(config.style), engine, CharTokenizer(thinking_template), 7, True)


def contents(context, problem_id="p"):
    return [entry.content for entry in context.playbook_for(problem_id).entries]


def seed_playbook(context, *lessons):
    for lesson in lessons:
        context.playbook_for("p").add("others", lesson)


def test_one_update_from_end_to_end():
    context = updater()
    update = context.update([attempt("p"), attempt("q", solved=True, text="good"), attempt("r")], step=0)
    assert context.engine.roles() == [["reflect", "reflect"], ["curate", "curate"]]
    assert sorted(contents(context)) == ["lesson of p", "lesson of r"]
    assert {key: r.lessons for key, r in update.reflections.items()} == {
        "p#0": ("lesson of p",), "r#0": ("lesson of r",),
    }  # fmt: skip
    assert update.solutions == {"p#0": "", "q#0": "good", "r#0": ""}
    assert update.metrics["playbook/total_bullets"] == update.metrics["playbook/added"] == 2
    assert update.metrics["playbook/unused"] == 2
    assert [record["role"] for record in update.records] == ["reflect", "reflect", "curate", "curate"]
    json.dumps([*update.records, dict(update.metrics)])
    assert context.playbook_for("p").update_count == 1


def test_reflections_and_tags_are_one_wave_and_tags_are_applied_before_curation():
    seen = []

    def tag(prompt, request):
        return '{"tags": [{"id": "misc-00001", "tag": "Helpful"}, {"id": "misc-99999", "tag": "helpful"}]}'

    def reflect(prompt, request):
        return reflection_json("new", misc_00001="harmful", misc_00002="neutral", misc_00003="helpful")

    def curate(prompt, request):
        seen.append("helpful=1 harmful=1 :: old" in prompt)
        return curation_json("new")

    context = updater(ScriptedEngine(reflect=reflect, tag=tag, curate=curate), wording="full")
    seed_playbook(context, "old", "other")
    update = context.update([attempt("p"), attempt("q", solved=True)], step=0)
    assert context.engine.roles() == [["reflect", "tag"], ["curate"]]
    assert seen == [True]
    assert update.metrics["context/tags_applied"] == 3
    assert update.metrics["context/tags_unknown"] == 2


def test_waves_see_what_earlier_waves_added():
    prompts = []

    def curate(prompt, request):
        prompts.append(prompt)
        return copy_lesson(prompt, request)

    engine = ScriptedEngine(reflect=new_lesson, tag=no_tags, curate=curate)
    context = updater(engine, curation_wave=2, sequential_below=2)
    context.update([attempt(p) for p in "pqrst"], step=0)
    assert [len(wave) for wave in engine.waves] == [5, 1, 1, 2, 1], (
        "one at a time while the playbook is small"
    )
    for already, prompt in zip((0, 1, 2, 2, 4), prompts, strict=True):
        assert prompt.split("Reflection:")[0].count("lesson of") == already
    assert len(contents(context)) == 5


def test_the_same_lesson_is_curated_once():
    same = ScriptedEngine(reflect=lambda *_: reflection_json("Same lesson."), tag=no_tags, curate=copy_lesson)
    context = updater(same, curation_wave=1)
    update = context.update([attempt(p) for p in "pqrst"], step=0)
    assert contents(context) == ["Same lesson."]
    assert update.metrics["context/curations"] == 1
    assert update.metrics["context/curations_skipped"] == 4


def test_duplicates_within_a_wave_merge():
    same = ScriptedEngine(reflect=lambda *_: reflection_json("Same lesson."), tag=no_tags, curate=copy_lesson)
    update = updater(same, curation_wave=5).update([attempt(p) for p in "pqrst"], step=0)
    assert update.metrics["playbook/added"] == 1
    assert update.metrics["playbook/merged"] == 4


def test_new_lessons_are_curated_first_and_no_more_than_allowed():
    context = updater(max_curations=2)
    seed_playbook(context, "lesson of q", "LESSON of s")
    update = context.update([attempt(p) for p in "qspt"], step=0)
    assert sorted(request.id for request in context.engine.waves[1]) == ["curate/0/p#0", "curate/0/t#0"]
    assert update.metrics["context/curations_skipped"] == 2
    none = updater(max_curations=0)
    none.update([attempt("p")], step=0)
    assert none.engine.roles() == [["reflect"]]


def test_one_curation_per_problem_but_every_failure_is_reflected():
    attempts = [attempt("p", sample=0), attempt("p", sample=1), attempt("q", solved=True),
                attempt("q", solved=True, sample=1)]  # fmt: skip
    for single, roles in ((True, [["reflect", "reflect", "tag"], ["curate"]]),
                          (False, [["reflect", "reflect", "tag", "tag"], ["curate", "curate"]])):  # fmt: skip
        context = updater(one_curation_per_problem=single, curation_wave=4)
        seed_playbook(context, "old")
        update = context.update(attempts, step=0)
        assert context.engine.roles() == roles
        assert set(update.reflections) == {"p#0", "p#1"}
    silent = updater(tag_successes=False)
    seed_playbook(silent, "old")
    silent.update(attempts, step=0)
    assert silent.engine.roles()[0] == ["reflect", "reflect"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(alphabet='{}[]":,ADoperationstagsidlessons0-<>/', max_size=50), min_size=3, max_size=3)
)
def test_junk_is_counted_and_never_raised(replies):
    reflect, tag, curate = ((lambda *_, text=text: text) for text in replies)
    context = updater(ScriptedEngine(reflect=reflect, tag=tag, curate=curate))
    seed_playbook(context, "old")
    update = context.update([attempt("p"), attempt("q", solved=True)], step=0)
    assert contents(context)[0] == "old"
    assert set(update.reflections) == {"p#0"}


def test_rejected_replies_are_counted():
    context = updater(
        ScriptedEngine(reflect=lambda *_: "prose", tag=lambda *_: "prose", curate=lambda *_: "{")
    )
    seed_playbook(context, "old")
    metrics = context.update([attempt("p"), attempt("q", solved=True)], step=0).metrics
    for name in ("reflections_rejected", "tag_replies_rejected", "curations_rejected"):
        assert metrics[f"context/{name}"] == 1
    partly = updater(ScriptedEngine(
        reflect=new_lesson, tag=no_tags, curate=lambda *_: '{"operations": [{"type": "DELETE"}, 3]}',
    ))  # fmt: skip
    assert partly.update([attempt("p")], step=0).metrics["context/operations_rejected"] == 2


def test_degenerate_replies_reach_neither_teacher_nor_playbook():
    def reflect(prompt, request):
        bad = problem_in(request) == "p"
        return reflection_json("Lesson of r.", ",", **({"error": "s0s0s1s0"} if bad else {}))

    engine = ScriptedEngine(
        reflect=reflect, tag=no_tags, curate=lambda *_: curation_json("s0s0s1", "Lesson of r.")
    )
    context = updater(engine)
    update = context.update([attempt("p"), attempt("r")], step=0)
    assert engine.roles() == [["reflect", "reflect"], ["curate"]]
    assert contents(context) == ["Lesson of r."]
    for name in ("reflections_rejected", "lessons_rejected", "operations_rejected", "curations_skipped"):
        assert update.metrics[f"context/{name}"] == 1
    assert "s0s0s1s0" in update.records[0]["output"]
    composer = TeacherPromptComposer(context.config, context.style, CharTokenizer(), thinking=True)
    shown = [
        composer.compose(
            attempt(p).problem, trial="my try", feedback="bad tape", reflection=update.reflections[f"{p}#0"]
        ).sections
        for p in "pr"
    ]
    assert shown == [("problem", "trial", "feedback"), ("problem", "trial", "feedback", "reflection")]


def test_unfinished_thinking_is_no_reflection():
    engine = ScriptedEngine(
        reflect=lambda *_: f"hm {reflection_json('draft')}", tag=no_tags, curate=copy_lesson
    )
    context = updater(engine, thinking_template=True)
    update = context.update([attempt("p", text="thinking on and on")], step=0)
    assert engine.roles() == [["reflect"]]
    assert update.reflections["p#0"].raw == ""
    assert update.metrics["context/reflections_rejected"] == 1
    assert "ran out of tokens" in CharTokenizer().decode(engine.waves[0][0].prompt_ids)


def test_long_prompts_are_cut_and_counted_and_only_shown_entries_can_be_tagged():
    context = updater(max_prompt_tokens=200)
    seed_playbook(context, "a" * 60, "b" * 60)
    update = context.update([attempt("p")], step=0)
    request = context.engine.waves[0][0]
    assert request.schema["properties"]["tags"]["items"]["properties"]["id"]["enum"] == ["misc-00002"]
    assert update.metrics["context/prompts_truncated"] >= 1
    assert len(request.prompt_ids) <= 200


def test_concise_by_frequency_spares_the_young():
    context = updater(concise_frequency=1, concise_method="prioritized")
    for step, problem in enumerate("pqr"):
        context.update([attempt(problem)], step=step)
    assert contents(context) == ["lesson of q", "lesson of r"], "unused for two updates"


def test_concise_by_limit_before_and_after_curation():
    config = {"max_entries": 2, "concise_frequency": None, "curation_wave": 1}
    after = updater(**config)
    update = after.update([attempt(p) for p in "pqrst"], step=0)
    assert update.metrics["playbook/total_bullets"] == 2
    assert update.metrics["playbook/removed"] == 3
    before = updater(**config, concise_after_curation=False)
    assert before.update([attempt(p) for p in "pqrst"], step=0).metrics["playbook/total_bullets"] == 5
    assert before.update([attempt("p", solved=True)], step=1).metrics["playbook/total_bullets"] == 2


def test_seeds_depend_on_step_attempt_and_role_alone():
    first, second = updater(), updater()
    first.update([attempt("p"), attempt("q")], step=3)
    second.update([attempt("q"), attempt("p")], step=3)
    second.update([attempt("p")], step=4)

    def seeds(context, step):
        requests = [request for wave in context.engine.waves for request in wave]
        return {r.id: r.seed for r in requests if r.id.split("/")[1] == str(step)}

    assert seeds(first, 3) == seeds(second, 3)
    assert len({*seeds(first, 3).values(), *seeds(second, 4).values()}) == 5
    assert all(0 <= seed < 2**63 for seed in seeds(first, 3).values())


def test_one_playbook_per_problem():
    context = updater(mode="per_example", curation_wave=1)
    update = context.update([attempt("p"), attempt("q"), attempt("p", sample=1)], step=0)
    assert [len(wave) for wave in context.engine.waves] == [3, 2]
    assert contents(context, "p") == ["lesson of p"]
    assert contents(context, "q") == ["lesson of q"]
    assert [entry.id for p in "pq" for entry in context.taught(p)] == ["err-00001", "err-00001"]
    assert update.metrics["playbook/num_playbooks"] == 2
    context.update([attempt("p")], step=1)
    assert [context.playbook_for(p).update_count for p in "pq"] == [2, 1]


@pytest.mark.parametrize("mode", ["global", "per_example"])
def test_resuming_equals_never_having_stopped(tmp_path, mode):
    steps = [
        [attempt("p"), attempt("q", solved=True, text="yes")],
        [attempt("q"), attempt("r")],
        [attempt("s")],
    ]
    config = {"mode": mode, "max_entries": 2, "concise_frequency": 2}
    path = tmp_path / "playbook.jsonl"

    def run(context, numbered):
        update = None
        for number, attempts in numbered:
            update = context.update(attempts, step=number)
            journal.append(path, context.drain_journal())
        return update

    straight = updater(**config)
    last = run(straight, enumerate(steps))
    path.unlink()
    stopped = updater(**config)
    run(stopped, list(enumerate(steps))[:2])
    saved = json.loads(json.dumps(stopped.state_dict()))
    resumed = updater(**config)
    resumed.load_state_dict(saved)
    assert run(resumed, list(enumerate(steps))[2:]) == last
    assert resumed.state_dict() == straight.state_dict()
    replayed = {name: playbook.state() for name, playbook in load_playbooks(path).items()}
    assert replayed == straight.state_dict()["playbooks"]


def test_an_update_of_nothing():
    update = updater().update([], step=0)
    assert update.records == []
    assert update.metrics["playbook/total_bullets"] == 0


@pytest.mark.parametrize("seen", [True, False])
def test_the_reflector_sees_the_end_of_the_thinking(seen):
    shown = {}

    def reflect(prompt, request):
        shown["reflect"] = prompt
        return reflection_json("lesson")

    def tag(prompt, request):
        shown["tag"] = prompt
        return no_tags(prompt, request)

    engine = ScriptedEngine(reflect=reflect, tag=tag, curate=copy_lesson)
    context = updater(engine, thinking_template=True, reflect_on_thinking=seen)
    seed_playbook(context, "an old lesson")
    text = "I count to three.</think>The answer."
    context.update([attempt("p", text=text), attempt("q", solved=True, text=text)], step=0)
    assert ("I count to three." in shown["reflect"]) == seen
    assert "I count to three." not in shown["tag"]
    assert all("The answer." in prompt for prompt in shown.values())


def asked(context, problem_id="p"):
    return CharTokenizer().decode(context.rollout_prompt(attempt(problem_id).problem))


PLAIN = "<user>question p<assistant>"
WITH_LESSON = "<user>Solve the task.\nPlaybook:\n[err-00001] lesson of p\nTask:\nquestion p<assistant>"


def test_the_student_sees_a_snapshot_of_the_playbook_every_so_many_updates():
    context = updater(student_playbook=True, student_playbook_sync=2, curation_wave=1)
    seen = [asked(context)]
    for step, problem in enumerate("pqrs"):
        context.update([attempt(problem)], step=step)
        seen.append(asked(context))
    after_two = WITH_LESSON.replace("\nTask:", "\n[err-00002] lesson of q\nTask:")
    after_four = after_two.replace("\nTask:", "\n[err-00003] lesson of r\n[err-00004] lesson of s\nTask:")
    assert seen == [PLAIN, PLAIN, after_two, after_two, after_four]
    composer = TeacherPromptComposer(context.config, context.style, CharTokenizer(), thinking=True)
    prompt = composer.compose(attempt("p").problem, entries=context.taught("p"))
    assert prompt.ids == context.rollout_prompt(attempt("p").problem), "as the teacher is shown it"
    reflectors = [wave[0] for wave in context.engine.waves if wave[0].id.startswith("reflect")]
    assert "Task:\nquestion s\nAttempt:" in CharTokenizer().decode(reflectors[-1].prompt_ids)


@pytest.mark.parametrize(
    ("config", "first_shown"),
    [
        ({"student_playbook": False}, None),
        ({"concise_frequency": 3}, 3),
        ({"concise_frequency": None}, 1),
        ({"use_playbook": False, "student_playbook_sync": 1}, 1),
        ({"max_prompt_tokens": 60, "student_playbook_sync": 1}, None),
    ],
)
def test_when_the_student_is_first_shown_the_playbook(config, first_shown):
    engine = ScriptedEngine(reflect=new_lesson, curate=lambda *_: curation_json("lesson of p"))
    context = updater(engine, **{"student_playbook": True, **config})
    shown = []
    for step in range(4):
        context.update([attempt("p")], step=step)
        shown.append(asked(context))
    hidden = 4 if first_shown is None else first_shown - 1
    assert shown == [PLAIN] * hidden + [WITH_LESSON] * (4 - hidden)


def test_a_snapshot_for_each_problem():
    context = updater(mode="per_example", student_playbook=True, student_playbook_sync=2)
    for step, problems in enumerate(["pq", "p"]):
        context.update([attempt(problem) for problem in problems], step=step)
    assert asked(context, "p") == WITH_LESSON
    assert asked(context, "q") == PLAIN.replace("p<", "q<"), "after one update of its own"


@pytest.mark.parametrize("mode", ["global", "per_example"])
def test_snapshots_are_resumed(mode):
    config = {"mode": mode, "student_playbook": True, "student_playbook_sync": 2}
    straight, resumed = updater(**config), updater(**config)
    for step in range(3):
        straight.update([attempt("p"), attempt("q")], step=step)
    resumed.load_state_dict(json.loads(json.dumps(straight.state_dict())))
    for context in (straight, resumed):
        assert asked(context) != PLAIN
        context.playbook_for("p").add("others", "not yet shown")
    assert resumed.state_dict() == straight.state_dict()
    assert asked(resumed) == asked(straight)
    assert "not yet" not in asked(resumed)


def test_a_state_of_another_wording_is_refused():
    with pytest.raises(ResdError, match="the wording differs from the one the run started with"):
        updater(wording="full").load_state_dict(updater().state_dict())


def healing(score, **config):
    engine = ScriptedEngine(reflect=new_lesson, tag=no_tags, curate=lambda *_: curation_json("wrong lesson"))
    settings = ContextConfig(style="compact", sequential_below=0, credit="measured", **config)
    return ContextUpdater(settings, style("compact"), engine, CharTokenizer(), 7, True, score)


def obeys(pairs):
    """Told the wrong lesson, it finds a good response less likely; told the true one, more."""

    def logprob(prompt, reply):
        leaning = 2.0 * ("true lesson" in prompt) - 2.0 * ("wrong lesson" in prompt)
        return -5.0 + leaning * (reply == "good")

    return [logprob("".join(map(chr, prompt)), "".join(map(chr, reply))) for prompt, reply in pairs]


def test_a_wrong_lesson_is_refuted_and_does_not_come_back():
    context = healing(obeys)
    seed_playbook(context, "wrong lesson", "true lesson")
    context.update([attempt(name, text="bad") for name in "pqrst"], step=1)
    update = context.update([attempt(name, solved=True, text="good") for name in "pqrst"], step=2)
    assert contents(context) == ["true lesson"]
    assert update.metrics["playbook/refuted"] == update.metrics["playbook/proven"] == 1
    assert update.metrics["context/credits"] == 8
    update = context.update([attempt("p", text="bad")], step=3)
    assert contents(context) == ["true lesson"], "the curator has written it again"
    assert update.metrics["playbook/refused"] == 1


def test_on_probation_the_teacher_is_shown_only_what_is_proven():
    context = healing(obeys, probation="withheld")
    seed_playbook(context, "true lesson")
    context.update([attempt(name, text="bad") for name in "pqrst"], step=1)
    assert context.taught("p") == ()
    context.update([attempt(name, solved=True, text="good") for name in "pqrst"], step=2)
    assert [entry.content for entry in context.taught("p")] == ["true lesson"]


def test_what_was_failed_is_part_of_the_state():
    first, second = healing(obeys), healing(obeys)
    for context in (first, second):
        seed_playbook(context, "wrong lesson")
    first.update([attempt(name, text="bad") for name in "pqrst"], step=1)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    solved = [attempt(name, solved=True, text="good") for name in "pqrst"]
    assert second.update(solved, step=2).metrics == first.update(solved, step=2).metrics
    assert second.state_dict() == first.state_dict()
