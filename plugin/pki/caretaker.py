"""Looks after our own certificate while the service runs: renewal in time, and a word to the log before it ends."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from plugin.errors import CertificateError
from plugin.pki.own import RENEWAL, OwnCertificate, own_certificates

_log = logging.getLogger(__name__)

_LOOK = 6 * 3600.0  # [s]
_STAGES = (7, 30, 90)  # days before the end at which the log says so


class Caretaker:
    """``hostnames`` go into a certificate that is made; ``ends`` hears when the present one ends [s since 1970]."""

    def __init__(
        self, folder: Path, application_uri: str, hostnames: Sequence[str], ends: Callable[[float], None]
    ) -> None:
        self._folder = folder
        self._application_uri = application_uri
        self._hostnames = hostnames
        self._ends = ends
        self._told = ""

    async def look(self) -> None:
        """Make what is missing, renew what ends, and tell what a person has to do: once."""
        try:
            found = await asyncio.to_thread(own_certificates, self._folder, self._application_uri, self._hostnames)
        except (CertificateError, OSError) as error:
            text, level = str(error), logging.ERROR
        else:
            self._ends(found[0].not_after.timestamp())
            text, level = notice(found, datetime.now(UTC)), logging.WARNING
        if text and text != self._told:
            _log.log(level, "%s", text)
        self._told = text

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(_LOOK)
            await self.look()


def notice(certificates: Sequence[OwnCertificate], now: datetime) -> str:
    """What a person should know of :func:`own_certificates`; the same text until the next stage, and empty before."""
    *_, oldest = certificates
    left = oldest.not_after - now
    stage = next((days for days in _STAGES if left <= timedelta(days=days)), None)
    if stage is None:
        return ""
    end = f"our application certificate {oldest.thumbprint} ends on {oldest.not_after:%Y-%m-%d}"
    if not oldest.self_made:
        return (
            f"{end}, in less than {stage} days; it was put there by hand: bring a new one to {oldest.cert_path} (and "
            "own.key); it is taken up without a restart"
        )
    if oldest is not certificates[0]:
        return (
            f"{end}, in less than {stage} days; who trusts it and not yet {certificates[0].thumbprint} will refuse us "
            f"then: hand out {certificates[0].cert_path}"
        )
    return (
        f"{end}. It is renewed by itself on {oldest.not_after - RENEWAL:%Y-%m-%d}; every server and client that trusts "
        "it must then trust the new one too, before the old one ends"
    )
