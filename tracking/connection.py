"""The way to an MLflow store: where the default one lies, whether one answers, and its errors in our voice.

mlflow is imported inside functions: it takes two seconds, which a command that only prints help must not spend.
"""

import logging
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spaces.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

PATIENCE = 4.0  # seconds a server may take for its first answer


def default_uri(storage: str) -> str:
    """The SQLite store in a storage folder. Raises UserError where storage is no folder of this machine."""
    if "://" in storage:
        raise UserError(f"storage '{storage}' is not a folder of this machine: give --tracking-uri")
    return f"sqlite:///{Path(storage).expanduser().absolute() / 'mlflow.db'}"


def database(uri: str) -> Path | None:
    """The file of a SQLite store; None for every other kind."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def artifact_folder(uri: str) -> Path | None:
    """Where a SQLite store keeps its files: beside the database. None where a server decides."""
    path = database(uri)
    return None if path is None else path.parent.absolute() / "mlartifacts"


def writable(uri: str) -> "MlflowClient":
    """A client of a store to write to; a SQLite one is made if it is not there.

    Raises UserError when it cannot be had.
    """
    path = database(uri)
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            writes = os.access(path if path.exists() else path.parent, os.W_OK)
        except OSError as error:
            raise UserError(f"cannot write to {path.parent}: {error.strerror or error}") from error
        if not writes:
            raise UserError(f"cannot write to {path}")
    return connected(uri)


def readable(uri: str) -> "MlflowClient":
    """A client of a store that is there already. Raises UserError when it is not."""
    path = database(uri)
    if path is not None and not path.exists():
        raise UserError(f"no tracking store at {path}; give --storage or --tracking-uri, or run a search first")
    return connected(uri)


def connected(uri: str) -> "MlflowClient":
    """A client of a store that answers. Raises UserError, within seconds, when it does not."""
    require_answer(uri)
    _settle()
    from mlflow import MlflowClient

    with in_our_voice(uri):
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return client


def require_answer(uri: str) -> None:
    """Raises UserError, within seconds, where the address is a server's and it does not answer."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=PATIENCE).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise UserError(f"the tracking server {uri} answers '{error.code} {error.reason}'") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"the tracking server {uri} does not answer: {reason}") from error


def _settle() -> None:
    """What mlflow should not do to a command: chatter, long retries, reports on its user. A set variable stays set."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_LOGGING_LEVEL": "CRITICAL",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }.items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def in_our_voice(uri: str) -> Iterator[None]:
    """Errors of the store, inside, are the user's to mend: one line."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise UserError(f"the tracking store {uri}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What an error says, in one line of readable length."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return line if len(line) <= 300 else line[:297] + "..."


def is_passing(error: Exception) -> bool:
    """Whether an error may go away by itself (a server that is away), rather than come again for what was asked."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if not isinstance(error, MlflowException):
        return isinstance(error, OSError | SQLAlchemyError | sqlite3.Error)
    status: int = error.get_http_status_code()  # type: ignore[no-untyped-call]
    return status not in {400, 403, 404, 409}
