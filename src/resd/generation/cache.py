"""A key/value cache that is allocated once and written in place."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin


class PreallocatedLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values `[rows, kv_heads, capacity, head_dim]` of a layer; `length` columns are used."""

    is_sliding = False
    is_croppable = False

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__()
        self.rows, self.capacity = rows, capacity
        self.length = 0
        # The rows of the next `update`; prefill processes the batch in slices.
        self.window = slice(0, rows)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate when the first keys reveal heads, width, dtype and device."""
        # Zeros, because masked columns are still multiplied: uninitialised memory could contain NaN.
        self.keys = self._zeros(key_states)
        self.values = self._zeros(value_states)
        self.is_initialized = True

    def _zeros(self, like: Tensor) -> Tensor:
        return like.new_zeros(self.rows, like.shape[1], self.capacity, like.shape[3])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append `[window, kv_heads, q, head_dim]` to the used columns; return views of all used columns."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        keys, values = self.keys[self.window], self.values[self.window]
        keys[:, :, self.length : end] = key_states
        values[:, :, self.length : end] = value_states
        self.length = end
        return keys[:, :, :end], values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return self.capacity

    def keep(self, rows: Tensor) -> None:
        """Drop every other row."""
        self.keys, self.values = self.keys[rows], self.values[rows]
        self.rows = len(rows)
        self.window = slice(0, self.rows)

    def spread(self, source: PreallocatedLayer) -> None:
        """Start every row with the columns of a cache of one row."""
        if not self.is_initialized:
            self.lazy_initialization(source.keys, source.values)
        self.keys[:, :, : source.length] = source.keys[:, :, : source.length]
        self.values[:, :, : source.length] = source.values[:, :, : source.length]
        self.length = source.length


class PreallocatedCache(Cache):  # type: ignore[misc]
    """A `transformers` cache for `rows` sequences of at most `capacity` tokens."""

    def __init__(self, layers: int, rows: int, capacity: int) -> None:
        super().__init__(layers=[PreallocatedLayer(rows, capacity) for _ in range(layers)])

    @property
    def length(self) -> int:
        """Used columns."""
        return int(self.layers[0].length)

    def seek(self, column: int, window: slice | None = None) -> None:
        """Let the next forward write from `column` on, in the rows of `window` (default: all)."""
        for layer in self.layers:
            layer.length = column
            layer.window = window or slice(0, layer.rows)

    def keep(self, rows: Tensor) -> None:
        """Drop every other row."""
        for layer in self.layers:
            layer.keep(rows)

    def spread(self, source: PreallocatedCache) -> None:
        """Start every row with the columns of a cache of one row."""
        for layer, origin in zip(self.layers, source.layers, strict=True):
            layer.spread(origin)
