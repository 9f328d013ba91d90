"""The plant's own certificate, and which clients' certificates it trusts (OPC 10000-2, 8)."""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncua import Server, ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

_MAX_REJECTED = 100  # strangers that knock must not fill the disk


async def load_own_certificate(server: Server, folder: Path, application_uri: str, host: str) -> None:
    """Load ``own.der`` and ``own.key``; where they are missing or out of date, make them anew."""
    _make(folder)
    certificate, key = folder / "own.der", folder / "own.key"
    await setup_self_signed_certificate(
        key, certificate, application_uri, host, [ExtendedKeyUsageOID.SERVER_AUTH], {"commonName": "opcua_sim"}
    )
    key.chmod(0o600)
    await server.load_certificate(certificate)
    await server.load_private_key(key, format="pem")


def trust_only(trusted: Path, rejected: Path) -> Callable[[x509.Certificate, Any], Awaitable[None]]:
    """A validator that knows clients by their very certificate: ``*.der`` in ``trusted``, read at each connect.

    Others are kept in ``rejected``; to trust one, move its file.
    """
    _make(trusted, rejected)

    async def validate(certificate: x509.Certificate, _: Any) -> None:
        der = certificate.public_bytes(Encoding.DER)
        if not _is_among(der, trusted):
            _keep(der, rejected)
            raise ServiceError(ua.StatusCodes.BadSecurityChecksFailed)
        now = datetime.now(UTC)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise ServiceError(ua.StatusCodes.BadCertificateTimeInvalid)

    return validate


def _make(*folders: Path) -> None:
    for folder in folders:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _is_among(der: bytes, folder: Path) -> bool:
    return any(path.read_bytes() == der for path in folder.glob("*.der"))


def _keep(der: bytes, folder: Path) -> None:
    if sum(1 for _ in folder.iterdir()) < _MAX_REJECTED:
        (folder / f"{hashlib.sha256(der).hexdigest()[:40]}.der").write_bytes(der)
