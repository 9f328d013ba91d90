"""Who may come in to our own OPC UA server, and which certificate it shows; as the trust list says at that moment."""

import asyncio
import logging
import socket
from pathlib import Path
from urllib.parse import urlparse

from asyncua import ua
from asyncua.common.utils import ServiceError

from plugin import pki
from plugin.errors import CertificateError
from plugin.publish.asyncua_server import PlantServer
from plugin.publish.config import PublishConfig

_log = logging.getLogger(__name__)

_REVIEW_SECONDS = 60.0  # how soon a change of the trust list, or of our certificate, takes effect
_TELL_AT_MOST = 1000


class Admission:
    """``pki_folder`` is the one that the connections to plant servers go by, too."""

    def __init__(self, config: PublishConfig, pki_folder: Path) -> None:
        self._config = config
        self._pki = pki_folder
        self._shown = ""  # thumbprint of our certificate
        self._told: set[str] = set()

    async def introduce(self, server: PlantServer) -> None:
        """Have the server show our certificate from now on. Raises CertificateError where there is none to show."""
        hosts = certificate_hosts(self._config)
        found = await asyncio.to_thread(pki.own_certificates, self._pki, self._config.application_uri, hosts)
        own = pki.shown_certificate(found)
        if own.thumbprint == self._shown:
            return
        await server.change_certificate(own.cert_path, own.key_path)
        if self._shown:
            _log.warning("OPC UA server: new connections are shown our new certificate %s", own.thumbprint)
        self._shown = own.thumbprint

    async def admit(self, certificate: bytes, application_uri: str, address: str) -> None:
        """Refuse a client that is not trusted; say so once per reason, not at each of its attempts."""
        try:
            refusal = await self._refusal(certificate, f"OPC UA client at {address}", application_uri)
        except OSError as error:
            self._say_once(f"OPC UA server: refuses all clients, for the trust list can't be read: {error}")
            raise ServiceError(ua.StatusCodes.BadSecurityChecksFailed) from error
        if refusal is not None:
            self._say_once(refusal.message)
            raise ServiceError(getattr(ua.StatusCodes, refusal.reason))

    async def watch(self, server: PlantServer) -> None:
        """Take up a certificate that was renewed or brought; part with clients that a person no longer trusts."""
        while set(self._config.security) != {"None"}:
            await asyncio.sleep(_REVIEW_SECONDS)
            try:
                await self.introduce(server)
            except (CertificateError, OSError, ValueError) as error:
                self._say_once(f"OPC UA server: goes on with its certificate, for the new one can't be used: {error}")
            try:
                await self._part(server)
            except OSError as error:
                self._say_once(f"OPC UA server: keeps its sessions, though the trust list can't be read: {error}")

    async def _part(self, server: PlantServer) -> None:
        for session in server.sessions():
            if session.channel_certificate is None:
                continue
            refusal = await self._refusal(session.channel_certificate, "OPC UA client with a session")
            if refusal is not None and refusal.decided:  # an end of validity must not cut it off at night
                self._say_once(f"{refusal.message}; its session is closed")
                await session.close_session(True)

    async def _refusal(self, certificate: bytes, peer: str, application_uri: str | None = None) -> pki.Refusal | None:
        return await asyncio.to_thread(
            pki.refusal,
            self._pki,
            certificate,
            peer=peer,
            application_uri=application_uri,
            use=pki.Use.CLIENT,
            require_crl=self._config.require_crl,
        )

    def _say_once(self, text: str) -> None:
        if text not in self._told and len(self._told) < _TELL_AT_MOST:
            self._told.add(text)
            _log.warning("%s", text)


def certificate_hosts(config: PublishConfig) -> list[str]:
    """Under which names clients reach us: what our certificate has to say."""
    host = urlparse(config.endpoint).hostname or ""
    names = (socket.gethostname(), "localhost", "" if host in {"0.0.0.0", "::"} else host)  # noqa: S104
    return [name for name in dict.fromkeys((*names, *config.host_names)) if name]
