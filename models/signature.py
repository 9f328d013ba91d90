"""Who vouches for an artifact: an Ed25519 signature (RFC 8032) of its SHA-256, in a file beside it.

The hash in the database says that a file is the one that was stored; the signature, that somebody with the private key
has looked at it. Whoever can write into database and folder can forge the first, and not the second.
"""

import base64
import binascii
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

SUFFIX = ".sig"
_CONTEXT = b"foretag-model-1\n"
"""Before what is signed: a signature of something else is none of a model."""


class SignatureError(ValueError):
    """There is no signature, or it is not by that key; or a key can't be read."""


def public_key(path: Path) -> Ed25519PublicKey:
    """Of a PEM file."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise SignatureError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{path} is no public key in PEM form") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(f"{path} is no Ed25519 key: make one with `openssl genpkey -algorithm ed25519`")
    return key


def private_key(path: Path, password: str = "") -> Ed25519PrivateKey:
    """Of a PEM file, which may be encrypted."""
    try:
        key = load_pem_private_key(path.read_bytes(), password.encode() or None)
    except OSError as error:
        raise SignatureError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{path} is no private key in PEM form, or the password is not the right one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{path} is no Ed25519 key: make one with `openssl genpkey -algorithm ed25519`")
    return key


def encrypted(path: Path) -> bool:
    """Whether a private key wants a password."""
    return path.is_file() and b"ENCRYPTED" in path.read_bytes()


def beside(path: Path) -> Path:
    """Where the signature of an artifact is."""
    return path.with_name(path.name + SUFFIX)


def sign(path: Path, sha256: str, key: Ed25519PrivateKey) -> None:
    """Write the signature of the artifact ``path``, whose hash has been checked; in the place of another one."""
    text = base64.b64encode(key.sign(_CONTEXT + sha256.encode()))
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(text + b"\n")
    draft.replace(beside(path))


def check(path: Path, sha256: str, key: Ed25519PublicKey) -> None:
    """SignatureError where the artifact with this hash is not signed by the key."""
    try:
        signature = base64.b64decode(beside(path).read_bytes().strip(), validate=True)
        key.verify(signature, _CONTEXT + sha256.encode())
    except OSError as error:
        raise SignatureError(f"{path.name} is not signed") from error
    except (InvalidSignature, binascii.Error) as error:
        raise SignatureError(f"the signature of {path.name} is not by the key that is configured") from error
