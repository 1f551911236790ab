"""What goes when a store holds too many bytes: what is worth least, by training MACs saved per byte.

    worth(entry) = (training MACs to compute it from its nearest stored ancestor)
                   * (1 + trials that began there) / bytes

and 0 for the end of a plan, from which nobody branches. An entry gains worth when an ancestor goes: then more would
have to be computed again. Entries in use and pinned ones are never chosen (`leases`). Nobody is asked to wait: any
number of writers evict at once, they agree on the order, and an entry that is gone already counts as gone.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from trainables.store.entries import Entries
from trainables.store.leases import forget, protected, uses
from trainables.store.manifest import Damaged, Manifest


@dataclass(frozen=True)
class Holding:
    """What a store holds: manifests by key, and their bytes in all."""

    manifests: dict[str, Manifest]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(manifest.size for manifest in self.manifests.values())


def look(entries: Entries, known: Mapping[str, Manifest]) -> Holding:
    """What there is now; manifests do not change, so `known` ones are not read again."""
    found: dict[str, Manifest] = {}
    for key in entries.all_keys():
        manifest = known.get(key)
        if manifest is None:
            try:
                manifest = entries.manifest(key)
            except Damaged:
                remove(entries, key)
        if manifest is not None:
            found[key] = manifest
    return Holding(found)


def order(holding: Holding, used: Mapping[str, int], spared: set[str]) -> list[str]:
    """The keys that may go, the one that is worth least first; every one as if those before it were gone."""
    left = dict(holding.manifests)
    waiting = [(worth_of(left[key], left, used.get(key, 0)), left[key].made, key) for key in left.keys() - spared]
    heapq.heapify(waiting)
    chosen = []
    while waiting:
        worth, made, key = heapq.heappop(waiting)
        now = worth_of(left[key], left, used.get(key, 0))
        if now > worth:  # an ancestor has gone since
            heapq.heappush(waiting, (now, made, key))
            continue
        del left[key]
        chosen.append(key)
    return chosen


def worth_of(manifest: Manifest, stored: Mapping[str, Manifest], used: int) -> float:
    """Training MACs that the entry saves, per byte; `stored`: what its ancestors are looked for in."""
    if manifest.worth.is_end:
        return 0.0
    nearest = max((macs for key, macs in manifest.ancestors.items() if key in stored), default=0)
    return max(0, manifest.worth.macs - nearest) * (1 + used) / max(1, manifest.size)


def make_room(entries: Entries, holding: Holding, limit: int) -> Holding:
    """Evict until at most `limit` bytes are held, or nothing is left that may go; returns what is held then."""
    left, size = dict(holding.manifests), holding.size
    if size <= limit:
        return holding
    for key in order(holding, uses(entries), protected(entries)):
        if size <= limit:
            break
        if evict(entries, key):
            size -= left.pop(key).size
    forget(entries, holding.manifests.keys() - left.keys())
    return Holding(left)


def evict(entries: Entries, key: str) -> bool:
    """Take an entry out unless it came into use in this moment; whether it is gone."""
    withdrawn = entries.withdraw(key)
    if withdrawn is not None:
        if key in protected(entries):
            entries.reinstate(key, withdrawn)
            return False
        entries.erase(key, withdrawn)
    return True


def remove(entries: Entries, key: str) -> None:
    """Take an entry out whoever uses it: it proved damaged."""
    withdrawn = entries.withdraw(key)
    if withdrawn is not None:
        entries.erase(key, withdrawn)
