"""Completion order -> frame order; asynchronous requests finish in any order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class ReorderBuffer(Generic[T]):
    """Holds items that arrive early until all items before them have arrived.

    It grows to the spread of the completions, which the bound on frames in flight limits.
    """

    def __init__(self) -> None:
        self._early: dict[int, T] = {}
        self._next_index = 0

    def __len__(self) -> int:
        """The number of items that wait for an earlier one."""
        return len(self._early)

    @property
    def next_index(self) -> int:
        """The index of the next item to leave."""
        return self._next_index

    def push(self, index: int, item: T) -> Iterator[T]:
        """Take one item in; yield all that are now in turn, in order of their index.

        The first index is 0 and none may be left out. Raises ValueError for an index that
        came before.
        """
        if index < self._next_index or index in self._early:
            raise ValueError(f"index {index} came twice")
        self._early[index] = item
        return self._in_turn()

    def _in_turn(self) -> Iterator[T]:
        while self._next_index in self._early:
            item = self._early.pop(self._next_index)
            self._next_index += 1
            yield item
