"""The configuration of a source: one plant server."""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from pydantic import Field, model_validator

from plugin import passwords
from plugin.acquire import credentials
from plugin.acquire.profiles import PROFILES
from plugin.errors import SecretError, SourceRefused
from plugin.fields import CredentialName, Duration, Section, VariableName

if TYPE_CHECKING:
    from plugin.channel import Terms

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


class Policy(StrEnum):
    """How the connection is secured (OPC 10000-7); the older Basic128Rsa15 and Basic256 are broken and not offered."""

    NONE = "None"
    BASIC256SHA256 = "Basic256Sha256"
    AES128_SHA256_RSA_OAEP = "Aes128Sha256RsaOaep"
    AES256_SHA256_RSA_PSS = "Aes256Sha256RsaPss"


class Mode(StrEnum):
    """What the policy does to a message."""

    SIGN = "Sign"
    SIGN_AND_ENCRYPT = "SignAndEncrypt"


class HistoryConfig(Section):
    """Reading the past from the server (HistoryRead): at the first start, after our own downtime, and into gaps."""

    enabled: bool = True
    """False: the past is never read, and every gap stays."""

    back: Annotated[Duration, Field(ge=timedelta(0), le=36500 * _DAY)] | Literal["all"] = 30 * _DAY
    """How far back a tag that is new to the historian is read: a duration from 0s to 36500d, or "all"; default 30d."""

    margin: Annotated[Duration, Field(ge=timedelta(0), le=7 * _DAY)] = timedelta(minutes=5)
    """How far before the last stored value a window begins, for values out of order; 0s to 7d; default 5min. What is
    read twice is stored once."""

    settle: Annotated[Duration, Field(ge=timedelta(0), le=timedelta(minutes=10))] = 2 * _SECOND
    """How long after a gap's end it is read, so that the server has archived its values; 0s to 10min; default 2s."""

    page: Annotated[int, Field(ge=2, le=100_000)] = 2000
    """Values of one tag in one answer, 2 to 100000; default 2000. The server may send fewer."""

    tags: Annotated[int, Field(ge=1, le=1000)] = 10
    """Tags in one request, 1 to 1000; default 10. A page of all of them should not keep the server busy for long."""


class WatchdogConfig(Section):
    """When a tag is called silent, late or flat while its server lives: a gauge, a line in the log, a word in
    `foretag status`; its values are kept as they come."""

    silent: Annotated[Duration, Field(ge=_SECOND, le=365 * _DAY)] | Literal["auto", "off"] = "auto"
    """No value for this long: 1s to 365d; ``auto`` (default): for ten times the tag's own longest interval of late,
    30 s at least, and only where it has reported for an hour; ``off``: never."""

    late: Annotated[Duration, Field(ge=_SECOND, le=365 * _DAY)] | Literal["off"] = timedelta(minutes=10)
    """Values that are older than this when they arrive, and older than ten of the tag's own intervals (a laboratory is
    late by nature): 1s to 365d, or ``off``; default 10min."""

    flat: Annotated[Duration, Field(ge=_SECOND, le=365 * _DAY)] | Literal["off"] = "off"
    """The number has not changed for this long: 1s to 365d, or ``off`` (default): setpoints do not change by nature."""

    skip: tuple[str, ...] = ()
    """Names of tags that are not watched; ``*`` and ``?`` are wildcards."""

    service_level: Annotated[int, Field(ge=0, le=255)] = 100
    """A server whose ServiceLevel is below this is not relied on, as if it were away; 0 to 255, default 100; 0 where
    the server gives a number that means nothing. One that says it has failed, or is not configured, never is."""


class SourceConfig(Section):
    """A plant server, and how to speak to it. Secured unless the file says otherwise."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """Name of the source: letters, digits, ``_ . -``; unique. Rows and checkpoints are kept under it."""

    endpoint: Annotated[str, Field(pattern=r"^opc\.tcp://[^/\s@]+(/\S*)?$")]
    """URL of the server, such as ``opc.tcp://plant-gw:4840/server``; user and password do not belong here."""

    enabled: bool = True
    """False: not connected; its tags stay configured."""

    security_policy: Policy = Policy.BASIC256SHA256
    """``Basic256Sha256`` (default), ``Aes128Sha256RsaOaep``, ``Aes256Sha256RsaPss``; ``None`` has to be written out,
    and then whoever is on the network can read and forge values. There is no fall-back from one to another."""

    security_mode: Mode = Mode.SIGN_AND_ENCRYPT
    """``SignAndEncrypt`` (default) or ``Sign``; without meaning where the policy is ``None``."""

    check_hostname: bool = True
    """Whether the server's certificate must name the host that ``endpoint`` names (default). False only where it can't
    be had: then any server that is trusted may stand in for this one."""

    application_uri: str = ""
    """The URI that the server must call itself by; empty (default): whichever its certificate names."""

    require_crl: bool = False
    """True: a server whose certificate comes from an authority is refused while there is no current revocation list of
    that authority in the trust list. False (default): the log warns."""

    user: str = ""
    """User name; empty (default): anonymous, unless ``user_certificate`` says who we are."""

    password_env: VariableName = ""
    """Name of the environment variable that holds the password."""

    password_file: Path | None = None
    """File that holds the password, on its first line; others than its owner and group must not read it."""

    password_credential: CredentialName = ""
    """Name of the systemd credential that holds the password: ``LoadCredential=`` or ``LoadCredentialEncrypted=`` in
    the service's unit."""

    user_certificate: Path | None = None
    """File with the X.509 certificate of the user (DER or PEM), in place of user and password."""

    user_key: Path | None = None
    """File with the private key of ``user_certificate`` (PEM or DER, not encrypted); others must not read it."""

    publishing_interval: Annotated[Duration, Field(ge=timedelta(milliseconds=10), le=60 * _SECOND)] = 0.5 * _SECOND
    """How often the server reports what changed, 10ms to 60s; default 500ms."""

    sampling_interval: Annotated[Duration, Field(ge=timedelta(0), le=3600 * _SECOND)] = 0.5 * _SECOND
    """How often the server looks at its source, 0s (as fast as it can) to 1h; default 500ms. At most half of the period
    in which the source itself changes, or values are missed."""

    bridge: Annotated[Duration, Field(ge=10 * _SECOND, le=3600 * _SECOND)] = timedelta(minutes=5)
    """How long a cut the server's queues should bridge, 10s to 1h; default 5min. Queue sizes, subscription lifetime and
    session timeout are asked for accordingly; the server may grant less."""

    queue_limit: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Values the server is asked to queue for one tag, at most, 1 to 100000; default 1000."""

    keep_alive: Annotated[Duration, Field(ge=timedelta(milliseconds=100), le=60 * _SECOND)] = 3 * _SECOND
    """Longest silence of a subscription, 100ms to 60s; default 3s. A cut is noticed after 1.5 times this plus
    ``timeout``."""

    timeout: Annotated[Duration, Field(ge=0.5 * _SECOND, le=120 * _SECOND)] = 10 * _SECOND
    """Longest wait for an answer, 500ms to 120s; default 10s."""

    profile: Literal["default", "s7-1200", "s7-1500", "kepware", "ignition", "prosys"] = "default"
    """Kind of server: ``s7-1200``, ``s7-1500``, ``kepware``, ``ignition``, ``prosys`` or ``default``. It sets what is
    not given of ``batch``, ``subscription_size``, ``max_items``, ``publish_requests`` and ``filters``. `foretag check`
    names the one that suits."""

    batch: Annotated[int, Field(ge=1, le=10_000)] = 500
    """Tags in one request that creates or reads them, 1 to 10000; default 500 (s7-1200 and ignition 100, kepware 1000,
    prosys 800). Halved where the server finds it too many; its own limits are respected."""

    subscription_size: Annotated[int, Field(ge=1, le=100_000)] = 5000
    """Tags in one subscription, 1 to 100000; default 5000 (s7-1200 and s7-1500: 1000)."""

    mode: Literal["auto", "subscribe", "poll"] = "auto"
    """``subscribe``: the server reports what changes; ``poll``: we read every tag at its sampling interval, and what
    happens between two readings is not seen; ``auto`` (default): subscribe, and poll only a server that says that it
    knows no subscriptions."""

    max_items: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Tags that the server monitors at most; 0 (default): not known (s7-1200: 1000, s7-1500: 10000). More than that are
    a fault of the configuration, unless they are polled."""

    publish_requests: Annotated[int, Field(ge=1, le=100)] = 10
    """Requests that wait at the server for its reports, at most, 1 to 100; default 10 (s7-1200: 3, s7-1500: 5). Fewer
    are sent where there are fewer subscriptions, or where the server wants no more."""

    filters: bool = True
    """False: the server knows no DataChangeFilter (s7-1200); it reports every change, and a tag's deadband has no
    effect there."""

    report: Literal["update", "change"] = "update"
    """``update`` (default): every new source time is a sample, so that a steady value is seen to be alive; ``change``:
    only new values and statuses. A tag with a deadband, and a server that knows no filters, report changes only."""

    buffer: Annotated[int, Field(ge=1000, le=10_000_000)] = 100_000
    """Samples that may wait here for the database, 1000 to 10000000; default 100000 (4 MB). Beyond it the server is
    asked for no more until the database has caught up."""

    reconnect_max: Annotated[Duration, Field(ge=0.1 * _SECOND, le=3600 * _SECOND)] = 30 * _SECOND
    """Longest pause between attempts to connect, 100ms to 1h; default 30s."""

    resume: bool = True
    """``true`` (default): a session that we leave, stopped or killed, waits at the server until its timeout, and the
    next start goes on with it: a restart within ``bridge`` costs no value. ``false``: it is ended when we stop."""

    history: HistoryConfig = HistoryConfig()
    """Reading the past."""

    watchdog: WatchdogConfig = WatchdogConfig()
    """When a tag or the server is called unwell."""

    @model_validator(mode="before")
    @classmethod
    def _filled_from_the_profile(cls, given: Any) -> Any:
        name = given.get("profile") if isinstance(given, dict) else None
        profile = PROFILES.get(name) if isinstance(name, str) else None
        return given if profile is None else profile.settings() | given

    @model_validator(mode="after")
    def _user_is_complete(self) -> Self:
        places = bool(self.password_env) + (self.password_file is not None) + bool(self.password_credential)
        if bool(self.user) != bool(places) or places > 1:
            raise ValueError(
                "give user together with one of password_env, password_file and password_credential, or none of them "
                "for anonymous"
            )
        if (self.user_certificate is None) != (self.user_key is None):
            raise ValueError("give user_certificate and user_key together, or none of them")
        if self.user and self.user_certificate:
            raise ValueError("give either user and a password, or user_certificate and user_key")
        if self.user_certificate and self.security_policy is Policy.NONE:
            raise ValueError("user_certificate needs a secured connection: not over security_policy None")
        if self.user and self.security_policy is Policy.NONE:
            raise ValueError("user needs encryption: a password never goes over security_policy None")
        if self.user and self.security_mode is Mode.SIGN:
            raise ValueError("user needs encryption: set security_mode SignAndEncrypt")
        return self

    def terms(self, pki_folder: Path, application_uri: str) -> "Terms":
        """Whom the source speaks to, and how; ``application_uri``: ours."""
        from plugin.channel import Terms  # noqa: PLC0415 - the OPC UA client, which takes long and not every command uses

        return Terms(
            name=self.name,
            endpoint=self.endpoint,
            pki_folder=pki_folder,
            application_uri=application_uri,
            policy=self.security_policy.value,
            mode=self.security_mode.value,
            server_uri=self.application_uri,
            check_hostname=self.check_hostname,
            require_crl=self.require_crl,
            timeout=self.timeout.total_seconds(),
        )

    def password(self) -> str:
        """The password from where it is kept. Raises :class:`SourceRefused` where it is not there."""
        try:
            return passwords.from_one_of(
                environment=self.password_env, file=self.password_file, credential=self.password_credential
            )
        except SecretError as error:
            raise SourceRefused(f"{self.name}: no password for user {self.user!r}: {error}") from None

    def identity(self) -> tuple[x509.Certificate, RSAPrivateKey] | None:
        """Certificate and key of the user; None where there is none. Raises :class:`SourceRefused` where they can't be
        used."""
        if self.user_certificate is None or self.user_key is None:
            return None
        try:
            return credentials.load_identity(self.user_certificate, self.user_key)
        except (SourceRefused, SecretError) as error:
            raise SourceRefused(f"{self.name}: {error}") from None
