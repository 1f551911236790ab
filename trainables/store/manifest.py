"""What an entry of the stage store consists of, and what it is worth: the last of its files to be written.

Without its manifest an entry does not exist; with it, every byte of the others can be checked.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
VERSION = 1


class Damaged(Exception):
    """An entry that is not what its manifest says, or whose manifest says nothing that can be read."""


@dataclass(frozen=True)
class StoredFile:
    """One file of an entry."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Worth:
    """What the owner of an entry says of it, for whoever must choose what to evict."""

    macs: int = 0  # training MACs of the whole chain up to here, as if run alone
    epochs: int = 0
    is_end: bool = False  # the last boundary of a plan: nothing branches from it


@dataclass(frozen=True)
class Manifest:
    """The files of an entry by name, and its worth."""

    files: Mapping[str, StoredFile]
    worth: Worth
    ancestors: Mapping[str, int]  # boundaries stored on the way here: key to training MACs of the chain up to there
    made: int  # nanoseconds since 1970: a number of one width, so that equal entries take equally many bytes
    generation: str = ""  # where its files lie, where a place keeps several of one key

    @cached_property
    def size(self) -> int:
        """Bytes that the entry takes, this manifest included."""
        return sum(file.bytes for file in self.files.values()) + len(self.written())

    def written(self) -> bytes:
        """As it is stored."""
        body = {"version": VERSION, **asdict(self)}
        return json.dumps({**body, "sha256": _digest(body)}, separators=(",", ":")).encode()

    def check(self, folder: Path) -> None:
        """Raises Damaged where a file is missing from `folder`, or is not what it was."""
        for name, expected in self.files.items():
            path = folder / name
            try:
                size = path.stat().st_size
                digest = _digest_of(path) if size == expected.bytes else ""
            except FileNotFoundError as error:
                raise Damaged(f"{path} is missing") from error
            if size != expected.bytes:
                raise Damaged(f"{path} has {size} bytes instead of {expected.bytes}")
            if digest != expected.sha256:
                raise Damaged(f"{path} is not what was written")


def manifest_of(folder: Path, worth: Worth, ancestors: Mapping[str, int]) -> Manifest:
    """The manifest of the files in `folder`."""
    files = {
        path.name: StoredFile(path.stat().st_size, _digest_of(path))
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    return Manifest(files, worth, dict(ancestors), time.time_ns())


def read_manifest(content: bytes, where: str) -> Manifest:
    """A manifest from its bytes. Raises Damaged where they are not one."""
    try:
        body: dict[str, Any] = json.loads(content)
        if body.pop("sha256") != _digest(body) or body.pop("version") != VERSION:
            raise Damaged(f"{where} was changed, or another version wrote it")
        files = {name: StoredFile(**file) for name, file in body.pop("files").items()}
        if any(name != os.path.basename(name) or name in ("", ".", "..", MANIFEST) for name in files):
            raise Damaged(f"{where} names files outside its entry")
        return Manifest(files, Worth(**body.pop("worth")), **body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{where} cannot be read: {error}") from error


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
