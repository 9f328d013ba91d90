"""The sections ``[publish]`` and ``[write_back]`` of the configuration file."""

import re
from datetime import timedelta
from string import Formatter
from typing import Annotated, Literal, Self
from unicodedata import category
from urllib.parse import urlparse

from argon2 import Type, extract_parameters
from argon2.exceptions import InvalidHashError
from pydantic import AfterValidator, Field, model_validator

from plugin.fields import Duration, Section

SecurityPolicy = Literal[
    "Basic256Sha256_SignAndEncrypt",
    "Aes128Sha256RsaOaep_SignAndEncrypt",
    "Aes256Sha256RsaPss_SignAndEncrypt",
    "Basic256Sha256_Sign",
    "Aes128Sha256RsaOaep_Sign",
    "Aes256Sha256RsaPss_Sign",
    "None",
]
"""A policy and a mode in one name; ``None`` is neither signed nor encrypted."""

_LEAST_MEMORY = 19 * 1024
"""Of a password's hash [KiB]: what OWASP asks for at least."""
_NODE = re.compile(r"nsu=[^;]+;[isgb]=.+")
_PLACEHOLDERS = frozenset({"asset", "model", "output"})


def _endpoint(text: str) -> str:
    url = urlparse(text)
    try:
        complete = url.scheme == "opc.tcp" and bool(url.hostname) and url.port is not None
    except ValueError:
        complete = False
    if not complete or "@" in url.netloc:
        raise ValueError("is no endpoint; write it as opc.tcp://host:port/path, without a user")
    return text


def _node_template(text: str) -> str:
    try:
        names = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ValueError(f"has unbalanced braces ({error})") from error
    if unknown := names - _PLACEHOLDERS:
        raise ValueError(f"has unknown placeholders {sorted(unknown)}; known are {sorted(_PLACEHOLDERS)}")
    if not _NODE.fullmatch(text):
        raise ValueError('is no node; write it by namespace URI, such as "nsu=urn:plant;s={asset}.advisory.rul"')
    return text


Endpoint = Annotated[str, AfterValidator(_endpoint)]
NodeTemplate = Annotated[str, AfterValidator(_node_template)]


def _argon2id(text: str) -> str:
    try:
        found = extract_parameters(text)
    except InvalidHashError:
        found = None
    if found is None or found.type is not Type.ID:
        raise ValueError("is no hash of argon2id; `foretag user NAME` asks for the password and prints one")
    if found.memory_cost < _LEAST_MEMORY:
        raise ValueError(f"was made with {found.memory_cost} KiB of memory, too few; make it with `foretag user NAME`")
    return text


def _thumbprint(text: str) -> str:
    digits = text.replace(":", "").replace(" ", "").upper()
    if not re.fullmatch("[0-9A-F]{40}", digits):
        raise ValueError("is no thumbprint: 40 hex digits, the SHA-1 of the certificate's DER, as OPC UA tools show it")
    return digits


def _user_name(text: str) -> str:
    if any(category(letter) in {"Cc", "Cs"} for letter in text):
        raise ValueError("has characters that can't be shown; leave them out")
    return text


UserName = Annotated[str, Field(pattern=r"^\S(.{0,62}\S)?$"), AfterValidator(_user_name)]


class UserConfig(Section):
    """``[[publish.users]]``: a person or a program that may do more than who is anonymous, or is known by name."""

    name: UserName
    """Name in logs, in the audit log and in the comments of alarms; with a password it is the user name."""

    role: Literal["observer", "operator", "engineer", "administrator"]
    """What it may do, each also what those before it may: ``observer``: read values and history; ``operator``:
    acknowledge, comment and shelve alarms, ask for a score; ``engineer``: train and promote models; ``administrator``:
    reload the configuration."""

    password_hash: Annotated[str, AfterValidator(_argon2id)] | None = None
    """Hash of the password (argon2id): what `foretag user NAME` prints."""

    certificate: Annotated[str, AfterValidator(_thumbprint)] | None = None
    """Thumbprint of the user's X.509 certificate: 40 hex digits. In place of a password."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.password_hash is None) == (self.certificate is None):
            raise ValueError("needs one of password_hash and certificate")
        return self


class PublishConfig(Section):
    """``[publish]``: foretag's own OPC UA server."""

    enabled: bool = True
    """Whether results are served as OPC UA nodes; default true."""

    endpoint: Endpoint = "opc.tcp://127.0.0.1:4841/foretag"
    """Address to listen on. The default is reached from this machine alone; name a host or 0.0.0.0 to open it."""

    security: Annotated[tuple[SecurityPolicy, ...], Field(min_length=1)] = ("Basic256Sha256_SignAndEncrypt",)
    """Policies that are offered; no other is accepted. ``None`` (no signing, no encryption, any client) only where it
    is written here."""

    application_uri: Annotated[str, Field(pattern=r"^urn:\S+$")] = "urn:foretag"
    """URI of this server, as its certificate names it; make it unique where a plant has several."""

    host_names: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9:._-]{1,253}$")], ...] = ()
    """Further names and addresses under which clients reach this server, for the certificate that foretag makes; it
    names this machine and the endpoint's host anyway."""

    require_crl: bool = False
    """True: a client whose certificate comes from an authority is refused while there is no current revocation list of
    that authority in the trust list. False (default): the log warns."""

    max_sessions: Annotated[int, Field(ge=1, le=1000)] = 50
    """Sessions that may be open at a time, 1 to 1000; default 50."""

    max_subscriptions: Annotated[int, Field(ge=1, le=1000)] = 100
    """Subscriptions that may be open at a time in all sessions, 1 to 1000; default 100."""

    mirror: tuple[str, ...] = ()
    """Patterns of tags, with ``*`` and ``?``, that are shown beside what is predicted, value, status and source time as
    the plant gave them: ``["engine-*"]``. Default: none."""

    simulated: bool = False
    """True: the plant is a simulated one, and every Good result says so (UncertainSimulatedValue). Default false."""

    max_monitored_items: Annotated[int, Field(ge=1, le=5_000_000)] = 250_000
    """Monitored items that may be there at a time in all subscriptions, 1 to 5000000; default 250000."""

    anonymous: bool | None = None
    """Whether a trusted client may come without a user, as an observer. Default: only while there are no users."""

    users: tuple[UserConfig, ...] = ()
    """Who may come in with a name and a password, or with a certificate of their own; see below."""

    @property
    def lets_anonymous_in(self) -> bool:
        """A session needs no user."""
        return not self.users if self.anonymous is None else self.anonymous

    @model_validator(mode="after")
    def _users_can_come(self) -> Self:
        names = [user.name for user in self.users]
        if twins := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"has several users called {twins[0]!r}; give each its own name")
        shown = [user.certificate for user in self.users if user.certificate]
        if twins := sorted({one for one in shown if shown.count(one) > 1}):
            raise ValueError(f"has several users with the certificate {twins[0]}; give each its own")
        if self.users and set(self.security) == {"None"}:
            raise ValueError("has users, but no policy that protects what they show; add one to security")
        if not self.users and self.anonymous is False:
            raise ValueError("lets nobody in: anonymous is false, and there are no users")
        return self


class WriteRule(Section):
    """``[[write_back.rules]]``: one output that may be written, and where. What no rule names is never written."""

    source: str
    """Name of the source whose server is written to."""

    model: str
    """Name of the model."""

    output: str
    """Name of the output, such as ``rul``."""

    node: NodeTemplate
    """Node by namespace URI; ``{asset}``, ``{model}``, ``{output}`` are filled in: ``nsu=urn:plant;s={asset}.rul``."""

    low: Annotated[float, Field(allow_inf_nan=False)]
    """Lowest value that is written [unit of the output]; what lies below is refused, not clamped."""

    high: Annotated[float, Field(allow_inf_nan=False)]
    """Highest value that is written [unit of the output]."""

    assets: str = "*"
    """Pattern of the assets' names, with ``*`` and ``?``; default all."""

    minimum_interval: Annotated[Duration, Field(ge=timedelta(0), le=timedelta(days=1))] = timedelta(0)
    """Shortest time between two writes to one node, 0 to 1 d; the newest value waits. Default 0: every value."""

    uncertain: Literal["write", "mark", "skip"] = "mark"
    """What happens to an Uncertain value: ``write``: it is written with its StatusCode, where the server takes one;
    ``mark`` (default): it is refused, but what was written before is made Uncertain when it grows old or its source is
    lost; ``skip``: nothing Uncertain is ever written."""

    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Most that the written value may change [unit of the output per minute]; what is faster is refused, not clamped.
    Counted from the last write, before the first from the plant's own value. Default: no limit."""

    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How far the value that is read back may be from the written one [unit of the output]; default 0: the same as the
    node's type holds it."""

    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a write is tried again that failed for what may pass, 0 to 10, after 1 s, 2 s, 4 s …; default 2."""

    create: bool = False
    """True: a node that the server lacks is made (AddNodes), where the server allows it, below its Objects folder.
    Default false."""

    approval: bool = False
    """True: a set-point. The value is published as an advice, and written only when an operator approves it there
    before it expires. Default false."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")
        return self


class WriteBackConfig(Section):
    """``[write_back]``: writing results into the plant's own servers. Off, and empty, by default.

    `foretag reload` takes up ``enabled`` and ``dry_run`` at once: it is the switch that stops all writing.
    """

    enabled: bool = False
    """Whether anything is written at all; default false."""

    dry_run: bool = False
    """Resolve, check and log every write, but write nothing; default false."""

    rules: tuple[WriteRule, ...] = ()
    """What may be written, and where; default nothing."""
