"""`checksums.sha256`, as `sha256sum -c` reads it: finds damage on the way, not intent."""

import hashlib
import re
from pathlib import Path

CHECKSUMS = "checksums.sha256"
LINE = re.compile(r"([0-9a-f]{64})  ([\w.]+)")


def write_checksums(directory: Path) -> None:
    """One line for every other file of `directory`."""
    names = sorted(path.name for path in directory.iterdir() if path.is_file() and path.name != CHECKSUMS)
    (directory / CHECKSUMS).write_text("".join(f"{_digest(directory / name)}  {name}\n" for name in names))


def read_checksums(directory: Path) -> dict[str, str] | None:
    """File name -> SHA-256; None where the file is not one that `write_checksums` wrote."""
    try:
        lines = (directory / CHECKSUMS).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    matches = [LINE.fullmatch(line) for line in lines]
    found = {match[2]: match[1] for match in matches if match is not None}
    return found if len(found) == len(lines) else None


def is_intact(path: Path, checksum: str) -> bool:
    """Whether the file's content is what the checksum was taken of."""
    return _digest(path) == checksum


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
