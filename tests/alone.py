"""What the workers of one test run must not do at the same time, such as installing something."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDER = Path(__file__).parents[1] / ".pytest_cache"


@contextmanager
def alone(what: str) -> Iterator[None]:
    """Whoever comes second waits, and finds it done."""
    _FOLDER.mkdir(exist_ok=True)
    with (_FOLDER / f"{what}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
