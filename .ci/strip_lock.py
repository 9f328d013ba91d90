"""Strip every host from a uv lock file: the hashes say what is installed, the machine's own index says from where.

``python .ci/strip_lock.py [uv.lock]`` rewrites the file in place. uv reads the result as well as its own form, keeps
the locked versions on the next ``uv lock`` and writes the hosts again: run this after each (``make lock`` does).
"""

import re
import sys
from pathlib import Path

_REGISTRY = re.compile(r'registry = "https?://[^"]*"')
_FILE = re.compile(r'url = "https?://[^"]*/([^"/?#]+)(?:[?#][^"]*)?"')


def strip(lock: str) -> str:
    """The lock with ``registry = "index"`` and files by name; ValueError where a host would be left."""
    stripped = _FILE.sub(r'path = "\1"', _REGISTRY.sub('registry = "index"', lock))
    if left := re.search(r"^.*https?://.*$", stripped, re.MULTILINE):
        raise ValueError(f"a source that is no registry, remove it or teach this script: {left[0].strip()}")
    return stripped


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "uv.lock")
    path.write_text(strip(path.read_text()))
