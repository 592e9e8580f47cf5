"""Batches beside the documents that they are made of."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from lab.transcripts import documents
from resd.lab.batches import BUCKET, KINDS, MAX_LENGTH, Batch, BatchStream, Encoder, collate, loader
from resd.lab.corpus import Document
from resd.lab.pool import make_corpus
from resd.lab.tokenizer import END, PAD, vocabulary

TOKENS = 4096
PAD_ID, END_ID = vocabulary().index(PAD), vocabulary().index(END)


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    return list(islice(BatchStream(make_corpus, seed=0, tokens=TOKENS), 30))


def test_collate_asks_for_response_and_end_of_each_document() -> None:
    encode = Encoder()
    chosen = [document for document in documents() if len(encode(document)[0]) <= 320][:5]
    bucket = [(document.kind, *encode(document)) for document in chosen]
    batch = collate(bucket, 320)
    assert batch.targets.tolist() == [token for _, ids, prompt in bucket for token in ids[prompt:]]
    assert batch.kinds.tolist() == [KINDS.index(kind) for kind, ids, prompt in bucket for _ in ids[prompt:]]
    for row, (_, ids, _) in zip(batch.rows.tolist(), bucket, strict=True):
        assert row == ids + [PAD_ID] * (320 - len(ids))
    assert batch.documents == tuple(sum(d.kind == kind for d in chosen) for kind in KINDS)


def test_targets_are_the_tokens_behind_the_index(batches: list[Batch]) -> None:
    for batch in batches:
        assert torch.equal(batch.rows.flatten()[batch.index + 1], batch.targets)
        assert not (batch.targets == PAD_ID).any()
        assert (batch.targets == END_ID).sum() == len(batch.rows)
        assert len(batch.targets) == len(batch.kinds) == len(batch.index.unique())


def test_rows_are_of_one_width_within_the_budget(batches: list[Batch]) -> None:
    for batch in batches:
        count, width = batch.rows.shape
        lengths = (batch.rows != PAD_ID).sum(dim=1)
        assert width % BUCKET == 0
        assert width <= MAX_LENGTH
        assert count == TOKENS // width == sum(batch.documents)
        assert ((lengths <= width) & (lengths > width - BUCKET)).all()
        # Padding follows the row, nothing else does.
        assert all((row[length:] == PAD_ID).all() for row, length in zip(batch.rows, lengths, strict=True))


def test_no_row_comes_twice(batches: list[Batch]) -> None:
    """But for students' documents: those are short, and there are fewer tasks than draws."""
    student = KINDS.index("student")
    rows = [tuple(row) for batch in batches for row in batch.rows.tolist() if batch.documents[student] == 0]
    assert len(rows) > 50
    assert len(set(rows)) == len(rows)


def test_streams_are_decided_by_their_seed() -> None:
    def rows(seed: int) -> list[torch.Tensor]:
        stream = BatchStream(make_corpus, seed, TOKENS)
        return [batch.rows for batch in islice(loader(stream, workers=0), 3)]

    first, again, other = rows(1), rows(1), rows(2)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def test_workers_draw_streams_of_their_own() -> None:
    stream = BatchStream(make_corpus, 1, TOKENS)
    alone = [batch.rows for batch in islice(BatchStream(make_corpus, 1, TOKENS), 1)]
    both = [batch.rows for batch in islice(loader(stream, workers=2), 2)]
    assert torch.equal(both[0], alone[0])
    assert not torch.equal(both[0], both[1])


def test_documents_that_are_too_long_are_left_out() -> None:
    class Long:
        """A corpus of documents too long for any batch, each followed by one that fits."""

        def __iter__(self):  # type: ignore[no-untyped-def]
            while True:
                yield Document("student", "R" * MAX_LENGTH, "B")
                yield Document("student", "R" * 20, "B")

    batch = next(iter(BatchStream(lambda seed: Long(), 0, 64)))  # type: ignore[arg-type, return-value]
    assert batch.rows.shape == (2, BUCKET)


def test_hardly_any_document_is_too_long() -> None:
    encode = Encoder()
    lengths = [len(encode(document)[0]) for document in documents()]
    assert sum(length > MAX_LENGTH for length in lengths) <= len(lengths) // 1000
