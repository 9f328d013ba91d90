"""What a client shows of its user when it activates a session (OPC 10000-4, 5.7.3 and 7.40).

asyncua 2.1.0 takes an encrypted password again that was recorded in another session (it skips the server's nonce), one
that is encrypted with RSA 1.5, and a signature with SHA-1. Nothing of that passes here, nor a password that is not
encrypted on its way.
"""

import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto import uacrypto
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from plugin.publish.people import Claim

_DECRYPT: dict[str, Any] = {
    "http://www.w3.org/2001/04/xmlenc#rsa-oaep": uacrypto.decrypt_rsa_oaep,
    "http://opcfoundation.org/UA/security/rsa-oaep-sha2-256": uacrypto.decrypt_rsa_oaep_sha256,
}
_VERIFY: dict[str, Any] = {
    "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256": uacrypto.verify_sha256,
    "http://opcfoundation.org/UA/security/rsa-pss-sha2-256": uacrypto.verify_pss_sha256,
}
_LONGEST = 1024  # characters of a name or a password: more is no password, but work


def claimed(
    params: ua.ActivateSessionParameters, offered: Sequence[type], nonce: bytes, policy: Any, private_key: Any
) -> Claim:
    """ServiceError where the token is of no kind that is offered, can't be read, or proves nothing.

    ``nonce``: what the server sent to this session last.
    """
    token: Any = params.UserIdentityToken
    if isinstance(token, ua.ExtensionObject) and token.TypeId == ua.NodeId():
        token = ua.AnonymousIdentityToken()  # none at all is anonymous
    if not isinstance(token, tuple(offered)):
        raise ServiceError(ua.StatusCodes.BadIdentityTokenRejected)
    if isinstance(token, ua.AnonymousIdentityToken):
        return Claim()
    if policy.Mode == ua.MessageSecurityMode.None_:
        raise ServiceError(ua.StatusCodes.BadIdentityTokenRejected)
    try:
        if isinstance(token, ua.UserNameIdentityToken):
            return Claim(_text(token.UserName), _password(token, nonce, policy, private_key))
        return Claim(certificate=_certificate(token, params.UserTokenSignature, nonce, policy))
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):  # what decoding and cryptography raise
        raise ServiceError(ua.StatusCodes.BadIdentityTokenInvalid) from None


def _text(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST:
        raise ValueError
    return name


def _password(token: ua.UserNameIdentityToken, nonce: bytes, policy: Any, private_key: Any) -> str:
    secret = bytes(token.Password or b"")
    if not token.EncryptionAlgorithm:
        if policy.Mode != ua.MessageSecurityMode.SignAndEncrypt:
            raise ValueError
        return _text(secret.decode("utf-8"))
    decrypt = _DECRYPT.get(token.EncryptionAlgorithm)
    if decrypt is None or len(secret) > 16 * _LONGEST:
        raise ValueError
    plain = decrypt(private_key, secret)  # length [UInt32], password, nonce
    end = 4 + int.from_bytes(plain[:4], "little")
    password, shown = plain[4 : end - len(nonce)], plain[end - len(nonce) : end]
    if end > len(plain) or not hmac.compare_digest(shown, nonce):
        raise ValueError
    return _text(password.decode("utf-8"))


def _certificate(token: Any, signature: ua.SignatureData, nonce: bytes, policy: Any) -> bytes:
    """Signed is what makes this session this one: our certificate as the channel shows it, and our nonce."""
    verify = _VERIFY.get(signature.Algorithm or "")
    if verify is None:
        raise ValueError
    certificate = uacrypto.x509_from_der(token.CertificateData)  # type: ignore[no-untyped-call]
    if certificate is None or not isinstance(certificate.public_key(), RSAPublicKey):
        raise ValueError
    verify(certificate, policy.host_certificate + nonce, signature.Signature)
    if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
        raise ValueError
    return bytes(certificate.public_bytes(Encoding.DER))
