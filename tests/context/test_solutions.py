from collections import Counter

from context.fakes import attempt
from resd.context.solutions import SolutionBuffer, demonstrations


def test_own_then_peer_then_buffer():
    buffer = SolutionBuffer()
    buffer.record(
        [attempt("old", solved=True, text="kept"), attempt("old", solved=True, text="later", sample=1)]
    )
    attempts = [
        attempt("p", solved=True, text="own"), attempt("p", sample=1), attempt("old"), attempt("new"),
    ]  # fmt: skip
    shown = demonstrations(attempts, buffer, seed=0, step=3)
    assert shown == {"p#0": "own", "p#1": "own", "old#0": "kept", "new#0": ""}
    assert demonstrations(attempts, None, seed=0, step=3)["old#0"] == ""


def test_the_buffer_keeps_the_first_success_of_the_latest_step():
    buffer = SolutionBuffer()
    buffer.record([attempt("p", solved=True, text="one")])
    buffer.record([attempt("p"), attempt("p", solved=True, text="two", sample=1)])
    buffer.record([attempt("p", text="failed")])
    assert buffer.get("p") == "two"
    copy = SolutionBuffer()
    copy.load_state_dict(buffer.state_dict())
    assert copy.state_dict() == {"p": "two"}


def test_peers_are_drawn_uniformly_and_reproducibly():
    attempts = [attempt("p", solved=True, text=name, sample=i) for i, name in enumerate("abcd")]
    attempts.append(attempt("p", sample=4))
    draws = [demonstrations(attempts, None, seed=0, step=step)["p#4"] for step in range(400)]
    assert draws == [demonstrations(attempts, None, seed=0, step=step)["p#4"] for step in range(400)]
    assert all(60 < count < 140 for count in Counter(draws).values())
    assert set(draws) == set("abcd")
