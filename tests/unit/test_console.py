"""What a command writes where nobody's screen bounds it."""

import gc
import os
import subprocess
import sys

import pytest

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
