"""The trust list: who is trusted, who was refused, and what a person decides (OPC 10000-12, 7.8.2)."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from cryptography import x509

from plugin.errors import CertificateError
from plugin.pki.files import (
    certificate_files,
    der,
    file_name,
    load_certificate,
    load_crl,
    private_folder,
    thumbprint,
    write_private,
)

_log = logging.getLogger(__name__)

_MAX_REJECTED = 100  # strangers that knock must not fill the disk
_MAX_SEEN = 500


class Place(StrEnum):
    """Folders of the trust list."""

    TRUSTED = "trusted"
    ISSUERS = "issuers"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Entry:
    """A certificate in the trust list."""

    place: Place
    path: Path
    certificate: x509.Certificate
    seen: str
    """Who showed it, and when first; empty where a person brought it."""

    @property
    def thumbprint(self) -> str:
        return thumbprint(der(self.certificate))


def trusted_folder(folder: Path) -> Path:
    """``trusted/``, made if it is missing."""
    return private_folder(folder, Place.TRUSTED)


def rejected_folder(folder: Path) -> Path:
    """``rejected/``, made if it is missing."""
    return private_folder(folder, Place.REJECTED)


def entries(folder: Path, *places: Place) -> list[Entry]:
    """What lies there; without places: everywhere."""
    return [
        Entry(place, path, cert, _seen(folder, cert))
        for place in places or Place
        for path, cert in certificate_files(private_folder(folder, place))
    ]


def find(folder: Path, mark: str, *places: Place) -> Entry:
    """The one certificate whose thumbprint begins with ``mark``; CertificateError where there is none, or several."""
    wanted = mark.replace(":", "").replace(" ", "").upper()
    found = {entry.thumbprint: entry for entry in entries(folder, *places) if entry.thumbprint.startswith(wanted)}
    if len(found) == 1 and wanted:
        return next(iter(found.values()))
    where = " or ".join(places or Place)
    what = f"{len(found)} certificates begin with it; give more of it" if found else f"there is none such in {where}"
    raise CertificateError(f"thumbprint {mark}: {what}. `foretag trust list` shows them")


def trust(folder: Path, cert_der: bytes) -> Path:
    """Trust a certificate from now on (and take it out of ``rejected/``); returns its file."""
    return move(folder, load_certificate(cert_der), Place.TRUSTED)


def move(folder: Path, cert: x509.Certificate, place: Place) -> Path:
    """There, under its proper name, and nowhere else."""
    path = private_folder(folder, place) / file_name(cert)
    before = [entry.path for entry in entries(folder) if entry.certificate == cert]
    write_private(path, der(cert))
    for other in before:
        if other != path:
            other.unlink(missing_ok=True)
    return path


def add_file(folder: Path, file: Path, place: Place = Place.TRUSTED) -> Path:
    """Trust what a file holds: a certificate (DER, PEM) or an authority's revocation list. Returns where it lies now;
    CertificateError where it is neither."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CertificateError(f"{file}: {error.strerror}") from error
    try:
        return move(folder, load_certificate(data), place)
    except ValueError:
        return _add_list(folder, file, data, place)


def _add_list(folder: Path, file: Path, data: bytes, place: Place) -> Path:
    try:
        load_crl(data)
    except ValueError as error:
        raise CertificateError(f"{file} is neither a certificate nor a revocation list, in DER or PEM") from error
    path = private_folder(folder, place) / f"{file.stem}.crl"
    write_private(path, data)
    return path


def keep_rejected(folder: Path, cert: x509.Certificate, peer: str) -> None:
    """For a person to look at; the oldest make room."""
    rejected = rejected_folder(folder)
    path = rejected / file_name(cert)
    if path.exists():
        return
    kept = sorted(rejected.glob("*.der"), key=_age)
    for file in kept[: max(0, len(kept) - _MAX_REJECTED + 1)]:
        file.unlink(missing_ok=True)
    write_private(path, der(cert))
    seen = private_folder(folder, "seen")
    for file in sorted(seen.iterdir(), key=_age)[:-_MAX_SEEN]:
        file.unlink(missing_ok=True)
    write_private(seen / thumbprint(der(cert)), f"{peer}, first on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC".encode())


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _seen(folder: Path, cert: x509.Certificate) -> str:
    try:
        return (folder / "seen" / thumbprint(der(cert))).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
