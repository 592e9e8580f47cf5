"""Grouping requests into batches, and finding their common prompt prefix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from resd.records import Request, ResdError

# A shared prefix shorter than this costs more, as a separate forward, than it saves.
SHORTEST_PREFIX = 8


def check(requests: Sequence[Request], max_positions: int) -> None:
    """Raises ResdError for requests that cannot be served, before anything runs."""
    if len({request.id for request in requests}) < len(requests):
        raise ResdError("two requests of one call have the same id: give each its own")
    for request in requests:
        _check_one(request, max_positions)


def _check_one(request: Request, max_positions: int) -> None:
    name, length = f"request {request.id!r}", len(request.prompt_ids)
    if not request.prompt_ids:
        raise ResdError(f"{name} has an empty prompt: give it at least one token")
    if request.max_tokens < 1:
        raise ResdError(f"{name} has max_tokens {request.max_tokens}: give it at least 1")
    if length + request.max_tokens > max_positions:
        raise ResdError(
            f"{name} needs {length} + {request.max_tokens} tokens but the model has {max_positions} "
            f"positions: shorten the prompt or lower max_tokens"
        )
    if request.temperature < 0 or not 0 < request.top_p <= 1:
        raise ResdError(f"{name}: temperature must be 0 or more, and top_p above 0 and at most 1")


def batches(requests: Sequence[Request], max_batch: int, max_cached_tokens: int) -> Iterator[list[Request]]:
    """Yield batches, longest total first to group similar lengths; within a batch, shortest prompt first.

    A batch has at most `max_batch` rows, and rows times its longest prompt and reply are at most
    `max_cached_tokens` (a single request always fits).
    """
    waiting = sorted(requests, key=lambda r: (-len(r.prompt_ids) - r.max_tokens, r.prompt_ids, r.id))
    batch: list[Request] = []
    for request in waiting:
        if batch and (len(batch) == max_batch or cached_tokens([*batch, request]) > max_cached_tokens):
            yield by_prompt(batch)
            batch = []
        batch.append(request)
    if batch:
        yield by_prompt(batch)


def by_prompt(batch: Sequence[Request]) -> list[Request]:
    return sorted(batch, key=lambda r: (len(r.prompt_ids), r.id))


def cached_tokens(batch: Sequence[Request]) -> int:
    """Rows times columns of the cache that a batch needs."""
    return len(batch) * (max(len(r.prompt_ids) for r in batch) + max(r.max_tokens for r in batch))


def common_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Length of the common prefix, leaving each prompt a token of its own; 0 if sharing does not pay off."""
    if len(prompts) < 2:
        return 0
    shared = 0
    # The lexicographically smallest and largest prompts differ first.
    low, high = min(prompts), max(prompts)
    limit = min(map(len, prompts)) - 1
    while shared < limit and low[shared] == high[shared]:
        shared += 1
    return shared if shared >= SHORTEST_PREFIX else 0
