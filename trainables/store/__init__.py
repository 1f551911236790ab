"""The stage store: checkpoints by boundary key at one place that every worker sees, a folder or an address.

manifest     what an entry consists of, with checksums, and what it would cost to compute it again
entries      what a place for entries can do
folder       entries as folders: a disk, NFS
objects      entries behind an address: S3, GCS ...
leases       who uses which entry, and which are pinned
eviction     what goes when there are too many bytes
stages       the store itself: fetch, put, discard, pin
"""

from trainables.store.manifest import Worth
from trainables.store.stages import StageStore

__all__ = ["StageStore", "Worth"]
