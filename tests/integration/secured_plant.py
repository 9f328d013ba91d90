"""A plant whose server is secured: certificates that can be replaced, and clients that it may refuse."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import SimpleRoleRuleset
from asyncua.server.user_managers import UserManager
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from plugin import pki
from plugin.acquire.config import SourceConfig
from tests.certificates import Made, make
from tests.integration.acquire_plant import EPOCH, URI, Plant, config

SERVER_URI = "urn:test:secured"
KINDS = tuple(
    (policy, mode)
    for policy in ("Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss")
    for mode in ("Sign", "SignAndEncrypt")
)
STRICT = (ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,)
ALL = tuple(ua.SecurityPolicyType[f"{policy}_{mode}"] for policy, mode in KINDS)


def server_certificate(name: str = "plc1", **more: Any) -> Made:
    return make(name, **{"uri": SERVER_URI, **more})


class SecuredPlant(Plant):
    """Speaks Basic256Sha256 with encryption unless told otherwise; ``refused``: thumbprints of clients."""

    def __init__(
        self,
        identity: Made,
        *,
        tags: int = 2,
        port: int = 0,
        policies: Sequence[ua.SecurityPolicyType] = STRICT,
        users: UserManager | None = None,
        tokens: tuple[Any, ...] | None = None,
    ) -> None:
        super().__init__(tags, port)
        self.identity = identity
        self.refused: set[str] = set()
        self.clients: list[str] = []
        self._policies = list(policies)
        if users is not None:
            self.server.iserver.user_manager = users
        if tokens is not None:
            self.server.iserver.supported_tokens = tokens

    async def start(self, missing: int = 0) -> None:
        server = self.server
        await server.init()
        await server.set_application_uri(SERVER_URI)
        server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}/plant")
        server.set_security_policy(self._policies, permission_ruleset=SimpleRoleRuleset())
        server.set_certificate_validator(self._judge)
        await self.show(self.identity)
        self.index = await server.register_namespace(URI)
        await self.add(*range(missing, self.tags))
        await server.start()
        binary: Any = server.bserver
        self.port = binary._server.sockets[0].getsockname()[1]

    async def show(self, identity: Made) -> None:
        """Another certificate for connections from now on, as a server that was renewed does; sessions stay."""
        self.identity = identity
        await self.server.load_certificate(identity.der)
        await self.server.load_private_key(identity.key_pem, format="pem")
        for policy in self.server._policies:
            policy.certificate, policy.private_key = self.server.iserver.certificate, self.server.iserver.private_key
        for endpoint in self.server.iserver.endpoints:
            endpoint.ServerCertificate = identity.der

    async def reset(self, identity: Made) -> None:
        """As at the start, for the next test."""
        self.refused.clear()
        self.clients.clear()
        await self.show(identity)
        for node in self.nodes:
            await self.put(node, 0.0, EPOCH)

    def channels(self) -> set[str]:
        """Thumbprints of the clients whose channels are open now."""
        binary: Any = self.server.bserver
        found = [client.processor._connection.security_policy.peer_certificate for client in binary.clients]
        return {pki.thumbprint(certificate) for certificate in found if certificate}

    async def _judge(self, certificate: x509.Certificate, _: ua.ApplicationDescription) -> None:
        self.clients.append(pki.thumbprint(certificate.public_bytes(Encoding.DER)))
        if self.clients[-1] in self.refused or "*" in self.refused:
            raise ServiceError(ua.StatusCodes.BadCertificateUntrusted)


@contextlib.asynccontextmanager
async def secured(identity: Made, **more: Any) -> AsyncIterator[SecuredPlant]:
    plant = SecuredPlant(identity, **more)
    await plant.start()
    try:
        yield plant
    finally:
        await plant.stop()


def secure(port: int, **more: Any) -> SourceConfig:
    return config(port, **{"security_policy": "Basic256Sha256", "timeout": "3s", **more})


def ours(folder: Path, *trusted: Made) -> Path:
    """Our folder of certificates, with a key that was made before and the trust of those."""
    pki_folder = folder / "pki"
    (pki_folder / "own").mkdir(parents=True, exist_ok=True)
    if not (pki_folder / "own" / "own.key").exists():
        (pki_folder / "own" / "own.key").write_bytes(make("own").key_pem)
    for made in trusted:
        pki.trust(pki_folder, made.der)
    return pki_folder
