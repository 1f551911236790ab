"""Files behind an address, such as `s3://bucket/runs`: a few acts, each whole or not at all, with errors of one kind.

fsspec speaks to the stores; it is imported only where an address is used. Who may do what there is configured as each
store's own clients are (environment, profiles; `fsspec.config` for the rest), never in a study file.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from spaces.errors import UserError


def is_address(place: str) -> bool:
    """Whether a place is no folder of this machine."""
    return "://" in place and not place.startswith(("file://", "local://"))


def folder_of(place: str) -> Path:
    """The folder that a path or a `file://` address names."""
    return Path(unquote(place.partition("://")[2] or place)).expanduser().absolute()


class Remote:
    """The files under one address; every act may raise OSError.

    Raises UserError where nobody here speaks its protocol.
    """

    def __init__(self, address: str) -> None:
        from fsspec.core import url_to_fs

        self.address = address
        protocol = address.partition("://")[0]
        try:
            with _in_one_voice():
                files, root = url_to_fs(address, use_listings_cache=False)
        except ImportError as error:
            raise UserError(f"'{address}': {error} (a Python package, on every machine that uses it)") from error
        except ValueError as error:
            raise UserError(
                f"'{address}': the protocol '{protocol}' is not known; allowed: a folder, s3://, gs://, abfs:// and "
                "whatever else fsspec knows"
            ) from error
        if not str(root).strip("/"):
            raise UserError(f"'{address}' names no place; a bucket and a folder in it are wanted")
        self._files: Any = files
        self._root = str(root).rstrip("/")

    def read(self, path: str) -> bytes | None:
        """A file's content; None where it is not there."""
        try:
            with _in_one_voice():
                return bytes(self._files.cat_file(self._at(path)))
        except FileNotFoundError:
            return None

    def write(self, path: str, content: bytes) -> None:
        """Make this the file's content."""
        with _in_one_voice():
            self._files.pipe_file(self._at(path), content)

    def create(self, path: str, content: bytes) -> bool:
        """Write a file that is not there; False where one is. Between machines as sure as the store is: some look first
        and write then.
        """
        try:
            with _in_one_voice():
                self._files.pipe_file(self._at(path), content, mode="create")
            return True
        except FileExistsError:
            return False
        except OSError:
            if self.present([path]):
                return False
            self.write(path, content)  # a store that has no such act
            return True

    def present(self, paths: Iterable[str]) -> set[str]:
        """Those that are there."""
        with _in_one_voice():
            return {path for path in paths if self._files.exists(self._at(path))}

    def names(self, folder: str) -> list[str]:
        """What lies in a folder; nothing where there is none."""
        try:
            with _in_one_voice():
                found = self._files.ls(self._at(folder), detail=False)
        except FileNotFoundError:
            return []
        names = (str(path).rstrip("/").rpartition("/")[2] for path in found)
        return sorted(name for name in names if name and name != folder.rpartition("/")[2])

    def delete(self, path: str) -> None:
        """Delete a file, where it is there."""
        with suppress(FileNotFoundError), _in_one_voice():
            self._files.rm_file(self._at(path))

    def delete_folder(self, folder: str) -> None:
        """Delete all that lies in it."""
        with suppress(FileNotFoundError), _in_one_voice():
            self._files.rm(self._at(folder), recursive=True)

    def upload(self, file: Path, path: str) -> None:
        """Copy a file of this machine there."""
        with _in_one_voice():
            self._files.put_file(str(file), self._at(path))

    def download(self, path: str, file: Path) -> None:
        """Copy a file to this machine. Raises FileNotFoundError where it is not there."""
        with _in_one_voice():
            self._files.get_file(self._at(path), str(file))

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"


@contextmanager
def _in_one_voice() -> Iterator[None]:
    """What a store's client raises, as an OSError; what has no bearing on the store passes."""
    try:
        yield
    except (OSError, ImportError, ValueError):
        raise
    except Exception as error:  # clients have error classes of their own
        raise OSError(f"{type(error).__name__}: {error}".splitlines()[0][:300]) from error
