"""Certificate and key of a user, who is known by them in place of a password."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from plugin.errors import SourceRefused
from plugin.passwords import private_bytes

_PEM = b"-----"


def load_identity(certificate: Path, key: Path) -> tuple[x509.Certificate, RSAPrivateKey]:
    """A user's certificate and key, which belong together. SourceRefused or SecretError where they can't be used."""
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
