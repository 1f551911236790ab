"""What a place for entries can do, be it a folder or an object store; the store's rules are built on these few acts.

An entry is withdrawn before it is erased. In between nobody new finds it, and whoever found it before still has all
of its files: that is the moment to look whether it is in use, and to put it back.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Protocol

from trainables.store.manifest import Manifest

Mark = Literal["leases", "pins", "uses"]


class Entries(Protocol):
    """Entries by key, and marks: names without content that lie beside them. All may raise OSError."""

    def all_keys(self) -> set[str]:
        """Of every entry; some may prove to be gone."""
        ...

    def present(self, keys: Iterable[str]) -> set[str]:
        """Those that are there."""
        ...

    def manifest(self, key: str) -> Manifest | None:
        """What the entry consists of; None where there is none. Raises Damaged."""
        ...

    def folder(self, key: str, manifest: Manifest) -> Path:
        """Its files, checked, in a folder of this machine. Raises Damaged."""
        ...

    def draft(self, key: str) -> Path:
        """A new folder of this machine to write an entry in."""
        ...

    def publish(self, key: str, draft: Path, manifest: Manifest) -> Path:
        """Make a draft an entry, whole or not at all; returns the folder of its files. One that is there stays."""
        ...

    def withdraw(self, key: str) -> bytes | None:
        """Let nobody find the entry any more; returns what `reinstate` needs, None where it was gone."""
        ...

    def reinstate(self, key: str, withdrawn: bytes) -> None:
        """Take a withdrawal back."""
        ...

    def erase(self, key: str, withdrawn: bytes) -> None:
        """Delete the files of an entry that was withdrawn."""
        ...

    def mark(self, kind: Mark, name: str) -> None:
        """Leave a mark."""
        ...

    def unmark(self, kind: Mark, name: str) -> None:
        """Take a mark away, where it is there."""
        ...

    def marks(self, kind: Mark) -> list[str]:
        """The names of all marks of a kind."""
        ...

    def free_some(self) -> bool:
        """After a write found no room on this machine: delete what can go; whether there was any."""
        ...

    def tidy(self) -> None:
        """Delete what writers that died have left half done."""
        ...
