"""A few seconds of the soak, so that it works when it is wanted; for its verdict on memory it takes minutes."""

from pathlib import Path

from tests.acceptance.soak import Soak, show


async def test_a_short_soak_accounts_for_every_number(tmp_path: Path) -> None:
    report = await Soak(tmp_path, seed=3).run(0.15)
    assert not report.faults(memory=False), show(report, memory=False)
    assert sum(account.written for account in report.accounts.values()) > 0
    assert report.events.total() > 0
