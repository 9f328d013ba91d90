"""What every command needs: the terminal, the file that it is told of, and how it ends."""

import asyncio
import gc
import os
import sys
from collections.abc import Callable, Coroutine
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console

from plugin.errors import ForetagError

if TYPE_CHECKING:
    from plugin.config import Config

T = TypeVar("T")

_NO_TERMINAL = 200
"""Columns of what is written into a file or a pipe: a table there is cut by no screen."""

out = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _NO_TERMINAL)
err = Console(stderr=True)

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.", envvar="FORETAG_CONFIG")]
DEFAULT = Path("foretag.toml")


def load(path: Path, code: int = 2) -> "Config":
    """The configuration; a wrong one ends the command with this exit status."""
    from plugin.config import load as read  # noqa: PLC0415 - each command loads only what it needs

    return checked(lambda: read(path), code)


def checked(work: Callable[[], T], code: int = 2) -> T:
    """An error that foretag raises on purpose, or a file that can't be read or written, ends the command with its text
    alone."""
    _collect_garbage()
    try:
        return work()
    except ForetagError as error:
        fail(error, code)
    except OSError as error:
        fail(_of_a_file(error), code)


def complete(work: Coroutine[Any, Any, T]) -> T:
    """The bridge from sync to async, and :func:`checked`."""
    _collect_garbage()
    try:
        return asyncio.run(work)
    except ForetagError as error:
        fail(error)
    except OSError as error:
        fail(_of_a_file(error))
    except BaseExceptionGroup as group:
        ours, others = group.split(ForetagError)
        if ours is None or others is not None:
            raise
        fail(_first(ours))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _collect_garbage() -> None:
    """From now on, but in what was imported: that stays."""
    gc.freeze()
    gc.enable()


def _of_a_file(error: OSError) -> ForetagError:
    """What a person mends who is told which file it is, or that a disk is full. Any other is raised again."""
    if error.filename is None and error.errno not in {ENOSPC, EDQUOT}:
        raise error
    return ForetagError(f"{error.filename or 'a file'} can't be used: {error.strerror}")


def _first(group: BaseExceptionGroup[ForetagError]) -> ForetagError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def fail(error: ForetagError, code: int = 2) -> NoReturn:
    """End the command."""
    err.print(str(error), style="red", markup=False, highlight=False)
    raise typer.Exit(code)
