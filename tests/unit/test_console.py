"""What a command writes where nobody's screen bounds it."""

import errno
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from plugin.commands.console import checked, complete

SHOW = "from plugin.commands.console import out; out.print('x' * 150)"


@pytest.mark.parametrize(("columns", "lines"), [({}, 1), ({"COLUMNS": "100"}, 2)])
def test_what_goes_into_a_pipe_is_cut_by_no_screen_unless_one_is_named(columns, lines):
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | columns
    ended = subprocess.run(
        [sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert len(ended.stdout.splitlines()) == lines


@pytest.fixture
def uncollected():
    """As a command begins, while it imports what it needs."""
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


async def collects() -> bool:
    return gc.isenabled()


@pytest.mark.usefixtures("uncollected")
def test_what_a_command_does_is_not_done_without_the_collector():
    assert complete(collects())


@pytest.mark.usefixtures("uncollected")
def test_nor_is_what_it_does_without_a_loop():
    assert checked(gc.isenabled)


def ended(error: OSError) -> int:
    async def work() -> None:
        raise error

    def at_once() -> None:
        raise error

    codes = set()
    for command in (lambda: checked(at_once), lambda: complete(work())):
        with pytest.raises(typer.Exit) as caught:
            command()
        codes.add(caught.value.exit_code)
    (code,) = codes
    return code


@pytest.mark.usefixtures("uncollected")
def test_a_file_that_can_not_be_used_is_named_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught:
        (tmp_path / "file" / "below").touch()
    assert ended(caught.value) == 2
    told = "".join(capsys.readouterr().err.split())
    assert told.count("file/belowcan'tbeused:Notadirectory") == 2
    assert ended(OSError(errno.ENOSPC, "No space left on device")) == 2
    assert "a file can't be used: No space left on device" in capsys.readouterr().err


@pytest.mark.usefixtures("uncollected")
def test_an_error_of_no_file_keeps_its_traceback():
    with pytest.raises(ConnectionResetError):
        ended(ConnectionResetError("by peer"))


def test_a_question_is_answered_without_what_takes_long_to_load():
    loaded = "import sys, plugin.asking; print({'jax', 'flax', 'asyncua', 'plugin.service'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "set()\n"
