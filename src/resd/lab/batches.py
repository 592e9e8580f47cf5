"""Documents to padded batches: length-bucketed, made on the fly by worker processes, never repeated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from resd.lab.corpus import SHARES, Corpus, Document
from resd.lab.tokenizer import ASSISTANT, END, USER, LineEncoder

BUCKET = 32  # tokens: rows of one batch differ by less than this
MAX_LENGTH = 768
KINDS = tuple(SHARES)


@dataclass(frozen=True)
class Batch:
    """Padded rows, and the m response tokens in them that are to be predicted."""

    rows: torch.Tensor  # [n, length] token ids
    index: torch.Tensor  # [m] flat positions in `rows` whose next token is a response token
    targets: torch.Tensor  # [m] that next token
    kinds: torch.Tensor  # [m] its document's place in KINDS
    documents: tuple[int, ...]  # documents per kind


class Encoder:
    """Encodes documents exactly as chat template and tokenizer would."""

    def __init__(self) -> None:
        self._lines = LineEncoder()
        ids = self._lines.ids
        self._user, self._end, self._assistant = ids[USER], ids[END], ids[ASSISTANT]

    def __call__(self, document: Document) -> tuple[list[int], int]:
        """(all ids, length of the prompt)."""
        prompt = [self._user, *self._lines.encode(document.prompt), self._end, self._assistant]
        return prompt + self._lines.encode(document.response) + [self._end], len(prompt)


Encoded = tuple[str, list[int], int]


class BatchStream(IterableDataset[Batch]):
    """Each worker of stream `seed` draws from its own corpus; batches hold about `tokens` padded tokens.

    Documents of more than `tokens` tokens never occur: keep it at MAX_LENGTH or above.
    """

    def __init__(self, make_corpus: Callable[[int], Corpus], seed: int, tokens: int) -> None:
        self._make_corpus, self._seed, self._tokens = make_corpus, seed, tokens

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker = info.id if info else 0
        encode = Encoder()
        buckets: dict[int, list[Encoded]] = defaultdict(list)
        for document in self._make_corpus(self._seed * 1009 + worker):
            ids, prompt = encode(document)
            width = -(-len(ids) // BUCKET) * BUCKET
            if width > MAX_LENGTH:
                continue
            bucket = buckets[width]
            bucket.append((document.kind, ids, prompt))
            if len(bucket) == self._tokens // width:
                yield collate(bucket, width)
                bucket.clear()


def collate(bucket: list[Encoded], width: int) -> Batch:
    """Right-padded rows of one width."""
    rows = np.zeros((len(bucket), width), dtype=np.int64)
    index, targets, kinds = [], [], []
    for i, (kind, ids, prompt) in enumerate(bucket):
        rows[i, : len(ids)] = ids
        index.append(np.arange(prompt - 1, len(ids) - 1) + i * width)
        targets.append(np.asarray(ids[prompt:]))
        kinds.append(np.full(len(ids) - prompt, KINDS.index(kind)))
    return Batch(
        rows=torch.from_numpy(rows),
        index=torch.from_numpy(np.concatenate(index)),
        targets=torch.from_numpy(np.concatenate(targets)),
        kinds=torch.from_numpy(np.concatenate(kinds)),
        documents=tuple(sum(kind == name for kind, _, _ in bucket) for name in KINDS),
    )


def loader(stream: BatchStream, workers: int) -> DataLoader[Batch]:
    """Batches in a fixed order for a fixed number of workers."""
    return DataLoader(
        stream, batch_size=None, num_workers=workers, prefetch_factor=8 if workers else None,
        persistent_workers=workers > 0,
    )  # fmt: skip
