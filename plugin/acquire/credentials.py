"""Secrets from where they are kept: environment, file or systemd credential. None of them is ever in a message."""

import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from plugin.errors import SourceRefused

_PEM = b"-----"


def from_environment(name: str) -> str:
    """SourceRefused where the variable is not set, or empty."""
    found = os.environ.get(name, "")
    if not found:
        raise SourceRefused(f"environment variable {name} holds no password; set it and restart")
    return found


def from_file(path: Path) -> str:
    """The first line. SourceRefused where it is empty, can't be read, or can be read by everybody."""
    try:
        found = private_bytes(path).decode("utf-8").partition("\n")[0].strip("\r")
    except UnicodeDecodeError:
        raise SourceRefused(f"file {path} can't be read: it is no UTF-8") from None
    if not found:
        raise SourceRefused(f"file {path} holds no password on its first line")
    return found


def from_credential(name: str) -> str:
    """systemd puts a service's credentials into a folder of its own (systemd.exec(5), CREDENTIALS)."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not folder:
        raise SourceRefused(
            f"there are no systemd credentials: add LoadCredential={name}:FILE to the service's unit, "
            "or say password_file instead"
        )
    return from_file(Path(folder) / name)


def private_bytes(path: Path) -> bytes:
    """What a secret file holds. SourceRefused where everybody may read it, or write it."""
    try:
        if os.name == "posix" and path.stat().st_mode & 0o007:
            raise SourceRefused(f"file {path} holds a secret and is open to everybody: chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise SourceRefused(f"file {path} can't be read: {error.strerror}") from error


def load_identity(certificate: Path, key: Path) -> tuple[x509.Certificate, RSAPrivateKey]:
    """A user's certificate and key, which belong together. SourceRefused where they can't be used."""
    try:
        data = certificate.read_bytes()
        pem = data.startswith(_PEM)
        cert = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
    except (OSError, ValueError) as error:
        raise SourceRefused(f"user_certificate {certificate} is no certificate in DER or PEM") from error
    secret = private_bytes(key)
    load = load_pem_private_key if secret.startswith(_PEM) else load_der_private_key
    try:
        found = load(secret, None)
    except (ValueError, TypeError):  # TypeError: it is encrypted
        raise SourceRefused(f"user_key {key} is no unencrypted private key in PEM or DER") from None
    if not isinstance(found, RSAPrivateKey) or found.public_key() != cert.public_key():
        raise SourceRefused(f"user_key {key} is not the RSA key of user_certificate {certificate}")
    return cert, found
