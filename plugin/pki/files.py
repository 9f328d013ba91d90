"""The folder of certificates on disk: private folders, files that are whole or not there, names that are safe."""

import hashlib
import logging
import os
import stat
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

_log = logging.getLogger(__name__)

_PEM = b"-----"
_ODD = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm)
_SUFFIXES = (".der", ".crt", ".cer", ".pem")


def thumbprint(cert_der: bytes) -> str:
    """SHA-1 of the DER as 40 upper-case hex digits, as OPC UA tools show it (OPC 10000-6, 6.2.2)."""
    return hashlib.sha1(cert_der, usedforsecurity=False).hexdigest().upper()


def der(cert: x509.Certificate) -> bytes:
    """The certificate's bytes."""
    return cert.public_bytes(Encoding.DER)


def private_folder(folder: Path, name: str) -> Path:
    """``folder/name``, made if it is missing; both are their owner's alone, whatever the umask."""
    path = folder / name
    if not path.is_dir():
        for missing in reversed([above for above in (path, *path.parents) if not above.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
            if _is_root():
                os.chown(missing, *_owner(missing.parent), follow_symlinks=False)
    for mine in (folder, path):
        if mine.stat().st_mode & 0o077:
            mine.chmod(0o700)
    return path


def write_private(path: Path, data: bytes) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if _is_root():
            os.fchown(descriptor, *_owner(path.parent))
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def hand_over(folder: Path) -> bool:
    """What root left in a folder that is another's is that one's from now on; whether there was something."""
    if not _is_root() or not folder.is_dir() or _owner(folder)[0] == 0:
        return False
    left = [path for path in folder.rglob("*") if _is_roots(path.lstat())]
    for path in left:
        os.chown(path, *_owner(folder), follow_symlinks=False)
    return bool(left)


def _is_roots(found: os.stat_result) -> bool:
    """Not what has a second name: somebody may have linked a file of the system into the folder."""
    return found.st_uid == 0 and (stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1))


def _is_root() -> bool:
    """An administrator's command must not leave files that the service can't read: they are the folder's owner's."""
    return os.name == "posix" and os.geteuid() == 0


def _owner(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_uid, found.st_gid


@lru_cache(maxsize=200)
def say_once(text: str) -> None:
    """The trust list is read at every connect: what is wrong with it is told once in the life of a process."""
    _log.warning("%s", text)


def load_certificate(data: bytes) -> x509.Certificate:
    """DER or PEM, with its extensions and its key, which else are read where they are asked for. Raises ValueError."""
    try:
        pem = data.startswith(_PEM)
        cert = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
        _ = cert.extensions, cert.public_key(), cert.subject, cert.issuer, cert.signature_hash_algorithm
    except _ODD as error:
        raise ValueError(str(error)) from error
    return cert


def load_crl(data: bytes) -> x509.CertificateRevocationList:
    """DER or PEM. Raises ValueError."""
    return x509.load_pem_x509_crl(data) if data.startswith(_PEM) else x509.load_der_x509_crl(data)


def certificate_files(folder: Path) -> list[tuple[Path, x509.Certificate]]:
    """Every certificate of a folder; a file that is none is named in the log and skipped: it grants nothing."""
    found = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES):
        try:
            found.append((path, load_certificate(path.read_bytes())))
        except FileNotFoundError:
            continue  # moved meanwhile
        except (OSError, ValueError) as error:
            reason = f"can't be read ({error.strerror})" if isinstance(error, OSError) else "is no certificate"
            say_once(f"{path} {reason}; skipped")
    return found


def common_name(cert: x509.Certificate) -> str:
    """What its owner calls itself; empty where it doesn't."""
    found = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def quoted_name(cert: x509.Certificate) -> str:
    """The common name for a message: a stranger chose it, so it is quoted and short."""
    name = common_name(cert)
    return repr(name[:80]) if name else "without a name"


def file_name(cert: x509.Certificate) -> str:
    """``common name [thumbprint].der`` (OPC 10000-12, F); what a stranger calls itself must not leave the folder."""
    name = common_name(cert) or "peer"
    safe = "".join(char if (char.isascii() and char.isalnum()) or char in " -_" else "_" for char in name)[:60]
    return f"{safe} [{thumbprint(der(cert))}].der"
