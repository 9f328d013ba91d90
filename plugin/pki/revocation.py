"""Revocation lists: what an authority takes back (OPC 10000-4, 6.1.3, the last two steps)."""

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from plugin.pki.chain import Chain, extension
from plugin.pki.files import load_crl, quoted_name

Lists = tuple[tuple[Path, x509.CertificateRevocationList | None], ...]
"""Files and what they hold; None: the file can't be read."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """What the lists say of a chain."""

    revoked: x509.Certificate | None = None
    """The first link that is on a list."""
    unknown: x509.Certificate | None = None
    """The first link of whose authority there is no current list."""
    why: str = ""
    """Why it is unknown."""
    broken: bool = False
    """A list can't be read, and it may be the one that is missing."""


def read_lists(*folders: Path) -> Lists:
    """Every ``*.crl``, DER or PEM."""
    return tuple((path, _read(path)) for folder in folders for path in sorted(folder.glob("*.crl")))


def _read(path: Path) -> x509.CertificateRevocationList | None:
    try:
        return load_crl(path.read_bytes())
    except (OSError, ValueError):
        return None


def look_up(chain: Chain, lists: Lists, now: datetime) -> Revocation:
    """Each link in the lists of the one above it; a list that is out of date still revokes."""
    unknown, reasons = None, ""
    for link, issuer in pairwise(chain):
        own = [found for _, found in lists if found is not None and _signed_by(found, issuer)]
        if any(found.get_revoked_certificate_by_serial_number(link.serial_number) is not None for found in own):
            return Revocation(revoked=link)
        current = any(found.next_update_utc is None or found.next_update_utc >= now for found in own)
        if not current and unknown is None:
            unknown, reasons = link, _reasons(issuer, lists, outdated=bool(own))
    return Revocation(None, unknown, reasons, any(found is None for _, found in lists))


def _reasons(issuer: x509.Certificate, lists: Lists, *, outdated: bool) -> str:
    broken = [str(path) for path, found in lists if found is None]
    if broken:
        return f"{', '.join(broken)} can't be read as a revocation list"
    if outdated:
        return f"the revocation list of {quoted_name(issuer)} is out of date"
    return f"there is no revocation list (*.crl) of {quoted_name(issuer)}"


def _signed_by(found: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    usage = extension(issuer, x509.KeyUsage)
    if found.issuer != issuer.subject or (usage is not None and not usage.value.crl_sign):
        return False
    key: Any = issuer.public_key()
    try:
        return found.is_signature_valid(key)
    except (UnsupportedAlgorithm, TypeError, ValueError):
        return False
