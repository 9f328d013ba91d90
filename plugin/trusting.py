"""``foretag trust add`` and ``reject``: what a person decides, and what follows from it, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from plugin import pki
from plugin.errors import CertificateError


@dataclass(frozen=True, slots=True)
class Decided:
    """What was done."""

    text: str
    """For who decided it."""
    subject: str
    """Which certificate or revocation list, for the audit log."""
    before: Mapping[str, str]
    """Place, and name."""
    after: Mapping[str, str]


def add(folder: Path, certificate: str, *, issuer: bool) -> Decided:
    """Trust a refused certificate by its thumbprint, or what a file holds. Raises CertificateError."""
    place = pki.Place.ISSUERS if issuer else pki.Place.TRUSTED
    if Path(certificate).is_file():
        path = pki.add_file(folder, Path(certificate), place)
    else:
        path = _add_refused(folder, certificate, place)
    if path.suffix == ".crl":
        told = f"{path}: this revocation list counts from the next connection on."
        return Decided(told, path.name, {}, {"place": place.value})
    (entry,) = [entry for entry in pki.entries(folder, place) if entry.path == path]
    text = f"{entry.thumbprint} is in {place.value} now and counts from the next connection on: {path}"
    if not issuer and pki.is_authority(entry.certificate):
        who = "says that it may sign others" if pki.application_uris(entry.certificate) else "is an authority"
        text += f"\nIt {who}: every certificate that it signed, or will sign, is trusted too."
    return Decided(text, entry.thumbprint, {}, _found(entry))


def _add_refused(folder: Path, mark: str, place: pki.Place) -> Path:
    try:
        entry = pki.find(folder, mark, pki.Place.REJECTED)
    except CertificateError as error:
        if "/" in mark or mark.endswith((".der", ".crt", ".cer", ".pem", ".crl")):
            raise CertificateError(f"{mark}: there is no such file") from error
        raise
    return pki.move(folder, entry.certificate, place)


def reject(folder: Path, mark: str) -> Decided:
    """Trust it no more. Raises CertificateError."""
    entry = pki.find(folder, mark, pki.Place.TRUSTED, pki.Place.ISSUERS)
    path = pki.move(folder, entry.certificate, pki.Place.REJECTED)
    text = f"{entry.thumbprint} is trusted no more: {path}\nA connection that stands on it ends within a minute."
    left = pki.refusal(folder, entry.certificate.public_bytes(Encoding.DER), peer=entry.seen)
    if left is None or not left.decided:
        issuer = entry.certificate.issuer.rfc4514_string()
        text += (
            f"\nBut its authority {issuer!r} is trusted, so it is still let in: reject the authority, or add a "
            "revocation list that names it."
        )
    return Decided(text, entry.thumbprint, _found(entry), {"place": pki.Place.REJECTED.value})


def _found(entry: pki.Entry) -> dict[str, str]:
    return {"place": entry.place.value, "name": entry.certificate.subject.rfc4514_string()}
