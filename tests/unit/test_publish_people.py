"""Who may come in to our OPC UA server, and who has to wait: no sockets, and time as it is told."""

import asyncio
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto import uacrypto
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError

from plugin import pki
from plugin.diagnostics import Diagnostics
from plugin.domain import Audit
from plugin.publish.config import PublishConfig, UserConfig
from plugin.publish.identity import claimed
from plugin.publish.lockout import Lockout
from plugin.publish.people import (
    ANONYMOUS,
    Call,
    Claim,
    People,
    Permission,
    Role,
    caller,
    calling,
    hashed,
    may,
    role_of,
)
from tests.certificates import DAY, make

PASSWORD = "correct horse"
HASH = hashed(PASSWORD)
ANNA = UserConfig(name="anna", role="operator", password_hash=HASH)
PERMISSIONS = {
    Role.OBSERVER: {Permission.READ, Permission.HISTORY},
    Role.OPERATOR: {Permission.READ, Permission.HISTORY, Permission.ALARMS, Permission.OPERATE},
    Role.ENGINEER: set(Permission) - {Permission.ADMINISTER},
    Role.ADMINISTRATOR: set(Permission),
}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """The users, a clock that a test turns, and the audit log."""

    def __init__(self, *users: UserConfig, **more: Any) -> None:
        self.clock = Clock()
        self.audit: list[Audit] = []
        self.diagnostics = Diagnostics()
        self.people = People(PublishConfig(users=users, **more), self.diagnostics, self._record, self.clock)

    async def _record(self, entry: Audit) -> None:
        self.audit.append(entry)

    async def refuses(self, claim: Claim, address: str = "10.0.0.1", client: bytes = b"") -> bool:
        try:
            await self.people.identify(claim, address, client)
        except ServiceError as error:
            return error.code == ua.StatusCodes.BadUserAccessDenied
        return False


@pytest.mark.parametrize("role", Role)
def test_each_role_may_do_what_those_before_it_may_and_more(role):
    assert {each for each in Permission if may(role, each)} == PERMISSIONS[role]
    assert not any(may(None, each) for each in Permission)


async def test_a_method_knows_its_caller_and_nothing_else_does():
    with pytest.raises(LookupError):
        caller()
    with calling(Call(ANONYMOUS)):
        assert caller() is ANONYMOUS
    with pytest.raises(LookupError):
        caller()


async def test_a_name_with_its_password_has_its_role_and_is_on_record():
    desk = Desk(ANNA)
    person = await desk.people.identify(Claim("anna", PASSWORD), "10.0.0.1")

    class Session:
        user = person

    assert role_of(Session()) is Role.OPERATOR
    assert (person.name, person.rank) == ("anna", Role.OPERATOR)
    (entry,) = desk.audit
    assert (entry.action, entry.user, entry.origin, entry.after) == ("session", "anna", "opcua", {"role": "operator"})


@pytest.mark.parametrize("claim", [Claim("anna", "guess"), Claim("nobody", PASSWORD), Claim(), Claim("anna", "")])
async def test_what_does_not_fit_is_refused_counted_and_on_record_without_its_password(claim):
    desk = Desk(ANNA)
    assert await desk.refuses(claim)
    assert desk.diagnostics.total("users_refused_total") == 1
    (entry,) = desk.audit
    assert entry.action == "session refused"
    assert "guess" not in repr((entry, claim))


@pytest.mark.parametrize(
    ("users", "anonymous", "let_in"),
    [((), None, True), ((ANNA,), None, False), ((ANNA,), True, True), ((ANNA,), False, False)],
)
async def test_anonymous_is_an_observer_where_there_are_no_users_or_it_is_said(users, anonymous, let_in):
    desk = Desk(*users, anonymous=anonymous)
    assert (ua.AnonymousIdentityToken in desk.people.tokens) is let_in
    assert await desk.refuses(Claim()) is not let_in
    assert ANONYMOUS.rank is Role.OBSERVER


async def test_a_guess_whose_client_goes_away_counts_and_keeps_its_turn():
    desk = Desk(ANNA)
    for _ in range(5):
        guess = asyncio.create_task(desk.people.identify(Claim("anna", "guess"), "10.0.0.1"))
        await asyncio.sleep(0)
        guess.cancel()
        with pytest.raises(asyncio.CancelledError):
            await guess
    assert desk.diagnostics.value("users_refused_total", cause="password") == 5
    assert await desk.refuses(Claim("anna", PASSWORD), "10.0.0.2")


async def test_who_guesses_is_locked_out_by_name_though_the_password_is_right_then():
    desk = Desk(ANNA)
    for _ in range(5):
        assert await desk.refuses(Claim("anna", "guess"))
    assert await desk.refuses(Claim("anna", PASSWORD), "10.0.0.2")
    assert desk.diagnostics.value("users_refused_total", cause="locked") == 1
    desk.clock.now += 31
    assert not await desk.refuses(Claim("anna", PASSWORD), "10.0.0.2")


async def test_who_tries_many_names_is_locked_out_by_address():
    desk = Desk(ANNA)
    for number in range(20):
        await desk.people.refuse(f"user-{number}", "10.0.0.1", "password")
    assert await desk.refuses(Claim("anna", PASSWORD))
    assert not await desk.refuses(Claim("anna", PASSWORD), "10.0.0.2")


async def test_a_user_with_a_certificate_is_known_by_its_thumbprint():
    made, other = make("engineer"), make("another")
    desk = Desk(UserConfig(name="eva", role="engineer", certificate=pki.thumbprint(made.der).lower()))
    person = await desk.people.identify(Claim(certificate=made.der), "10.0.0.1")
    assert (person.name, person.rank) == ("eva", Role.ENGINEER)
    assert await desk.refuses(Claim(certificate=other.der))


def test_a_lock_grows_with_each_failure_to_a_quarter_of_an_hour_and_is_forgotten():
    clock = Clock()
    lockout = Lockout(2, clock)
    pauses = []
    for _ in range(9):
        pauses.append(lockout.fail("anna"))
        clock.now += pauses[-1]
    assert pauses == [0, 30, 60, 120, 240, 480, 900, 900, 900]
    assert not lockout.locked("anna")
    clock.now += 901
    assert lockout.fail("anna") == 0


def test_a_lock_is_lifted_by_success_alone_and_keeps_a_bounded_number_of_keys():
    lockout = Lockout(1, Clock())
    lockout.fail("anna")
    assert lockout.locked("anna")
    lockout.forgive("anna")
    assert not lockout.locked("anna")
    for number in range(10_000):
        lockout.fail(str(number))
    assert len(lockout._failures) == 4096
    assert lockout.locked("9999")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"password_hash": "secret"}, "no hash of argon2id"),
        ({"password_hash": HASH.replace("argon2id", "argon2i")}, "no hash of argon2id"),
        ({"password_hash": HASH.replace("m=65536", "m=1024")}, "too few"),
        ({"certificate": "AA:BB"}, "no thumbprint"),
        ({}, "one of password_hash and certificate"),
        ({"password_hash": HASH, "certificate": "00" * 20}, "one of password_hash and certificate"),
    ],
)
def test_a_user_that_could_not_come_or_would_be_easy_prey_is_refused(fields, complaint):
    with pytest.raises(ValidationError, match=complaint):
        UserConfig(name="anna", role="observer", **fields)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"users": (ANNA, ANNA)}, "several users called 'anna'"),
        ({"users": (ANNA,), "security": ("None",)}, "no policy that protects"),
        ({"anonymous": False}, "lets nobody in"),
    ],
)
def test_users_that_nobody_can_come_as_are_refused(fields, complaint):
    with pytest.raises(ValidationError, match=complaint):
        PublishConfig(**fields)


# --- what a client shows ---------------------------------------------------------------------------------------------

OWN = make("server")
NONCE = bytes(range(32))
OAEP = "http://www.w3.org/2001/04/xmlenc#rsa-oaep"
OFFERED = ua.AnonymousIdentityToken, ua.UserNameIdentityToken, ua.X509IdentityToken
SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"


class Policy:
    """What of a channel's policy counts here."""

    host_certificate = OWN.der

    def __init__(self, mode: str) -> None:
        self.Mode = ua.MessageSecurityMode[mode]


def read(token: Any, mode: str = "SignAndEncrypt", signature: ua.SignatureData | None = None) -> Claim:
    params = ua.ActivateSessionParameters(UserIdentityToken=token, UserTokenSignature=signature or ua.SignatureData())
    return claimed(params, OFFERED, NONCE, Policy(mode), OWN.key)


def encrypted(password: str, nonce: bytes = NONCE, algorithm: str = OAEP) -> ua.UserNameIdentityToken:
    secret = password.encode() + nonce
    block = len(secret).to_bytes(4, "little") + secret
    by = uacrypto.encrypt_rsa15 if algorithm.endswith("rsa-1_5") else uacrypto.encrypt_rsa_oaep
    return ua.UserNameIdentityToken("username", "anna", by(OWN.key.public_key(), block), algorithm)


@pytest.mark.parametrize("token", [ua.AnonymousIdentityToken("anonymous"), ua.ExtensionObject()])
def test_no_token_is_anonymous(token):
    assert read(token, "None_") == Claim()


def test_a_password_is_read_where_it_was_hidden_on_its_way():
    assert read(ua.UserNameIdentityToken("username", "anna", b"secret", None)) == Claim("anna", "secret")
    for mode in ("Sign", "SignAndEncrypt"):
        assert read(encrypted("secret"), mode) == Claim("anna", "secret")


@pytest.mark.parametrize(
    ("token", "mode"),
    [
        (ua.UserNameIdentityToken("username", "anna", b"secret", None), "None_"),
        (encrypted("secret"), "None_"),
        (ua.UserNameIdentityToken("username", "anna", b"secret", None), "Sign"),
        (encrypted("secret", bytes(32)), "Sign"),
        (encrypted("secret", b""), "Sign"),
        (encrypted("secret", algorithm="http://www.w3.org/2001/04/xmlenc#rsa-1_5"), "Sign"),
        (ua.UserNameIdentityToken("username", "anna", bytes(256), OAEP), "Sign"),
        (ua.UserNameIdentityToken("username", "anna", b"x", OAEP), "Sign"),
        (ua.UserNameIdentityToken("username", None, b"secret", None), "SignAndEncrypt"),
        (ua.UserNameIdentityToken("username", "anna", b"\xff", None), "SignAndEncrypt"),
        (ua.UserNameIdentityToken("username", "a" * 2000, b"secret", None), "SignAndEncrypt"),
        (ua.IssuedIdentityToken("issued", b"token"), "SignAndEncrypt"),
    ],
    ids=[
        "open channel", "open channel, encrypted", "readable on its way", "recorded in another session", "no nonce",
        "RSA 1.5", "no such text", "cut", "no name", "no UTF-8", "too long", "issued token",
    ],
)  # fmt: skip
def test_a_password_that_was_seen_recorded_or_mangled_is_none(token, mode):
    with pytest.raises(ServiceError):
        read(token, mode)


def signed(made: Any, what: bytes = OWN.der + NONCE) -> ua.SignatureData:
    return ua.SignatureData(SHA256, uacrypto.sign_sha256(made.key, what))


def test_a_certificate_counts_for_who_holds_its_key():
    made = make("engineer")
    token = ua.X509IdentityToken("certificate", made.der)
    assert read(token, signature=signed(made)) == Claim(certificate=made.der)
    for wrong in (
        signed(make("another")),
        signed(made, OWN.der + bytes(32)),
        ua.SignatureData("http://www.w3.org/2000/09/xmldsig#rsa-sha1", uacrypto.sign_sha1(made.key, OWN.der + NONCE)),
        ua.SignatureData(),
    ):
        with pytest.raises(ServiceError):
            read(token, signature=wrong)


def test_a_certificate_that_has_ended_is_none():
    made = make("engineer", start=-2 * DAY, end=-DAY)
    with pytest.raises(ServiceError):
        read(ua.X509IdentityToken("certificate", made.der), signature=signed(made))


def _odd_certificate(kind: str) -> bytes:
    made = make("engineer")
    if kind == "unknown":  # instead of rsaEncryption, an algorithm that there is not
        oid = bytes.fromhex("2a864886f70d010101")
        return made.der.replace(oid, oid[:-1] + b"\x7f", 1)
    builder = x509.CertificateBuilder(made.cert.issuer, made.cert.subject, X25519PrivateKey.generate().public_key())
    builder = builder.serial_number(1).not_valid_before(made.cert.not_valid_before_utc)
    odd = builder.not_valid_after(made.cert.not_valid_after_utc).sign(made.key, hashes.SHA256())
    return odd.public_bytes(Encoding.DER)


@pytest.mark.parametrize("kind", ["unknown", "x25519"])
def test_a_certificate_whose_key_signs_nothing_is_refused_as_any_other(kind):
    token = ua.X509IdentityToken("certificate", _odd_certificate(kind))
    with pytest.raises(ServiceError) as refused:
        read(token, signature=signed(make("engineer")))
    assert refused.value.code == ua.StatusCodes.BadIdentityTokenInvalid


async def test_guesses_at_the_same_time_are_counted_one_by_one():
    desk = Desk(ANNA)
    await asyncio.gather(*(desk.refuses(Claim("anna", "guess"), f"10.0.0.{n}") for n in range(12)))
    assert desk.diagnostics.value("users_refused_total", cause="password") <= 6


async def test_a_lock_does_not_tell_which_names_there_are():
    desk = Desk(ANNA)
    for name in ("anna", "nobody"):
        for n in range(6):
            assert await desk.refuses(Claim(name, "guess"), f"10.0.{n}.{len(name)}")
    assert desk.diagnostics.value("users_refused_total", cause="locked") == 2


async def test_who_guesses_does_not_lock_out_the_client_that_the_user_comes_from():
    desk = Desk(ANNA)
    await desk.people.identify(Claim("anna", PASSWORD), "10.0.0.1", b"panel")
    for _ in range(30):
        assert await desk.refuses(Claim("anna", "guess"), "10.0.0.1", b"thief")
    assert await desk.refuses(Claim("anna", PASSWORD), "10.0.0.1", b"thief")
    assert not await desk.refuses(Claim("anna", PASSWORD), "10.0.0.1", b"panel")
    for _ in range(5):
        assert await desk.refuses(Claim("anna", "guess"), "10.0.0.1", b"panel")
    assert await desk.refuses(Claim("anna", PASSWORD), "10.0.0.1", b"panel")


async def test_only_guesses_lock_an_address():
    desk = Desk(ANNA)
    for _ in range(30):
        assert await desk.refuses(Claim())
        await desk.people.refuse("", "10.0.0.1", "token")
    assert not await desk.refuses(Claim("anna", PASSWORD))


async def test_a_client_that_tries_on_and_on_does_not_fill_the_audit_log():
    desk = Desk(ANNA)
    for _ in range(100):
        assert await desk.refuses(Claim())
    assert [entry.after["times"] for entry in desk.audit] == [1]
    desk.clock.now += 61
    assert await desk.refuses(Claim())
    assert [entry.after["times"] for entry in desk.audit] == [1, 100]


def test_a_certificate_is_one_users():
    shown = "9F" * 20
    users = tuple(UserConfig(name=name, role="observer", certificate=shown) for name in ("eva", "ed"))
    with pytest.raises(ValidationError, match="several users with the certificate 9F9F"):
        PublishConfig(users=users)
