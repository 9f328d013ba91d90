"""Secrets from where they are kept: environment, file or systemd credential. None of them is ever in a message."""

import os
from pathlib import Path

from plugin.errors import SecretError


def from_one_of(*, environment: str, file: Path | None, credential: str) -> str:
    """From the place that is given. SecretError where it is not there."""
    if file is not None:
        return from_file(file)
    return from_credential(credential) if credential else from_environment(environment)


def from_environment(name: str) -> str:
    """SecretError where the variable is not set, or empty."""
    found = os.environ.get(name, "")
    if not found:
        raise SecretError(f"environment variable {name} holds no password; set it and restart")
    return found


def from_file(path: Path) -> str:
    """The first line. SecretError where it is empty, can't be read, or can be read by everybody."""
    try:
        found = private_bytes(path).decode("utf-8").partition("\n")[0].strip("\r")
    except UnicodeDecodeError:
        raise SecretError(f"file {path} can't be read: it is no UTF-8") from None
    if not found:
        raise SecretError(f"file {path} holds no password on its first line")
    return found


def from_credential(name: str) -> str:
    """systemd puts a service's credentials into a folder of its own (systemd.exec(5), CREDENTIALS)."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not folder:
        raise SecretError(
            f"there are no systemd credentials: add LoadCredential={name}:FILE to the service's unit, "
            "or say password_file instead"
        )
    return from_file(Path(folder) / name)


def private_bytes(path: Path) -> bytes:
    """What a secret file holds. SecretError where everybody may read it, or write it."""
    try:
        if os.name == "posix" and path.stat().st_mode & 0o007:
            raise SecretError(f"file {path} holds a secret and is open to everybody: chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise SecretError(f"file {path} can't be read: {error.strerror}") from error
