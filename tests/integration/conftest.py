"""Fixtures of several modules."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.model_bench import Bench, opened


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """See :func:`tests.integration.model_bench.opened`."""
    async with opened(tmp_path) as made:
        yield made
