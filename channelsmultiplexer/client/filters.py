"""
Which messages match which filters.

Sans-I/O. A filter is a list of dicts. A message matches if it has all the pairs of
any one of them, by ``==``; no filter (:obj:`None`, ``[]`` or ``[{}]``) matches every
message, one that is no dict too.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

__all__ = ["Filter", "Filters"]

T = TypeVar("T", bound=Hashable)

Filter: TypeAlias = Sequence[Mapping[str, Any]] | None

# A dict, or what is left of it.
Pairs: TypeAlias = tuple[tuple[str, Any], ...]


class Filters(Generic[T]):
    """
    Filters and their owners, indexed by one pair of each dict.

    The pair is the one that the fewest others are indexed by, so that a thousand
    filters which share a pair, and differ in another, are told apart by the other.
    """

    def __init__(self) -> None:
        # Those whose filter matches everything; a dict keeps them in order.
        self._all: dict[T, None] = {}
        # Key, value: the other pairs of a dict, and whose it is.
        self._index: dict[str, dict[Any, list[tuple[Pairs, T]]]] = {}
        # Dicts without a value that can be looked up.
        self._others: list[tuple[Pairs, T]] = []
        # Where each owner's dicts are.
        self._places: dict[T, list[tuple[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self._all) + len(self._places)

    def __iter__(self) -> Iterator[T]:
        return iter([*self._all, *self._places])

    def __contains__(self, owner: object) -> bool:
        return owner in self._all or owner in self._places

    def add(self, owner: T, filters: Filter) -> None:
        """
        Let *owner* have what matches *filters*.

        Raises:
            TypeError: If these are no dicts.
        """
        listed = filters is None or isinstance(filters, Sequence)
        if not listed or not all(isinstance(pairs, Mapping) for pairs in filters or ()):
            raise TypeError(f"expected a list of dicts to filter by, got {filters!r}")
        if not filters or not all(filters):
            self._all[owner] = None
            return
        places = self._places[owner] = []
        for pairs in filters:
            anchor = self._anchor(pairs)
            if anchor is None:
                self._others.append(((*pairs.items(),), owner))
                continue
            key, value = anchor
            rest = tuple(pair for pair in pairs.items() if pair[0] != key)
            bucket = self._index.setdefault(key, {})
            bucket.setdefault(value, []).append((rest, owner))
            places.append(anchor)

    def remove(self, owner: T) -> None:
        """
        Forget an owner.
        """
        self._all.pop(owner, None)
        for key, value in self._places.pop(owner, ()):
            bucket = self._index.get(key, {})
            left = [entry for entry in bucket.pop(value, ()) if entry[1] != owner]
            if left:
                bucket[value] = left
            elif not bucket:
                self._index.pop(key, None)
        self._others = [entry for entry in self._others if entry[1] != owner]

    def match(self, message: Any) -> list[T]:
        """
        Return the owners of the filters that *message* matches, each once.
        """
        owners = list(self._all)
        if isinstance(message, dict):
            index = self._index
            # By whichever has fewer keys.
            for key in index if len(index) < len(message) else message:
                if key not in index or key not in message:
                    continue
                try:
                    entries = index[key][message[key]]
                # No such value, or one without a hash: what that equals is among
                # the others.
                except (KeyError, TypeError):
                    continue
                for rest, owner in entries:
                    for other, value in rest:
                        if other not in message or message[other] != value:
                            break
                    else:
                        owners.append(owner)
            for pairs, owner in self._others:
                if all(k in message and message[k] == v for k, v in pairs):
                    owners.append(owner)
        # Several dicts of one filter may match.
        return owners if len(owners) < 2 else list(dict.fromkeys(owners))

    def _anchor(self, pairs: Mapping[str, Any]) -> tuple[str, Any] | None:
        """Return the pair to index a dict by, if it has one with a hash."""
        best = None
        fewest = float("inf")
        for key, value in pairs.items():
            try:
                count = len(self._index.get(key, {}).get(value, ()))
            except TypeError:
                continue
            if count < fewest:
                best, fewest = (key, value), count
        return best
