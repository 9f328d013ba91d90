"""What a command writes where nobody's screen bounds it."""

import os
import subprocess
import sys

import pytest

SHOW = "from plugin.commands.console import out; out.print('x' * 150)"


@pytest.mark.parametrize(("columns", "lines"), [({}, 1), ({"COLUMNS": "100"}, 2)])
def test_what_goes_into_a_pipe_is_cut_by_no_screen_unless_one_is_named(columns, lines):
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | columns
    ended = subprocess.run(
        [sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert len(ended.stdout.splitlines()) == lines
