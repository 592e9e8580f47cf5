"""Temperature, nucleus and the inverse CDF, against definitions and frequencies."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resd.generation.sampling import SamplingParameters, draw, log_probabilities, uniforms


def parameters(temperature: float = 1.0, top_p: float = 1.0, rows: int = 1) -> SamplingParameters:
    return SamplingParameters.of([temperature] * rows, [top_p] * rows)


def brute_nucleus(probabilities: list[float], top_p: float) -> set[int]:
    kept, mass = set[int](), 0.0
    for i in sorted(range(len(probabilities)), key=lambda i: -probabilities[i]):
        if kept and mass >= top_p:
            break
        kept.add(i)
        mass += probabilities[i]
    return kept


def test_a_seed_names_its_own_stream() -> None:
    assert np.array_equal(uniforms(3, 5), uniforms(3, 9)[:5])
    assert not np.array_equal(uniforms(3, 5), uniforms(4, 5))
    many = uniforms(-1, 20_000)
    assert many.min() >= 0
    assert many.max() < 1
    assert abs(many.mean() - 0.5) < 0.01


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 1000), min_size=2, max_size=12, unique=True),
    st.sampled_from([0.05, 0.3, 0.5, 0.77, 0.9, 0.999]),
)
def test_the_nucleus_is_the_fewest_tokens(weights: list[int], top_p: float) -> None:
    total = sum(weights)
    probabilities = [w / total for w in weights]
    logprobs = log_probabilities(torch.tensor([probabilities]).log(), parameters(top_p=top_p))[0]
    kept = brute_nucleus(probabilities, top_p)
    mass = sum(probabilities[i] for i in kept)
    expected = torch.tensor([probabilities[i] / mass if i in kept else 0.0 for i in range(len(weights))])
    torch.testing.assert_close(logprobs.exp(), expected, atol=1e-5, rtol=0)


def test_rows_keep_their_own_settings() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0]]).repeat(3, 1)
    mixed = SamplingParameters.of([1.0, 0.5, 0.0], [1.0, 0.5, 1.0])
    logprobs = log_probabilities(logits, mixed)
    torch.testing.assert_close(logprobs[0], torch.log_softmax(logits[0], -1))
    assert logprobs[1].exp().tolist() == [1.0, 0.0, 0.0]
    ids, chosen = draw(logprobs, torch.tensor([0.99, 0.99, 0.99]), mixed)
    assert ids.tolist() == [2, 0, 0]
    torch.testing.assert_close(chosen[2], torch.log_softmax(logits[0], -1)[0])


def test_frequencies_follow_the_distribution() -> None:
    count, weights = 20_000, torch.tensor([0.1, 0.0, 0.55, 0.05, 0.3])
    u = torch.from_numpy(uniforms(11, count))
    settings_ = parameters(rows=count)
    ids, _ = draw(log_probabilities(weights.log().repeat(count, 1), settings_), u, settings_)
    seen = torch.bincount(ids, minlength=5) / count
    torch.testing.assert_close(seen, weights, atol=0.012, rtol=0)
    assert seen[1] == 0


def test_what_is_masked_is_never_drawn() -> None:
    allowed = torch.tensor([[False, True, False, True, False]])
    for u in (0.0, 0.5, 1 - 2**-32):
        logprobs = log_probabilities(torch.zeros(1, 5), parameters(), allowed)
        ids, chosen = draw(logprobs, torch.tensor([u], dtype=torch.float64), parameters())
        assert ids.item() in (1, 3)
        torch.testing.assert_close(chosen.exp(), torch.tensor([0.5]))
