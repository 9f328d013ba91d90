"""A session at a server that outlives the connection, and this process: what it takes to go on with it.

OPC 10000-4, 6.7: whoever knows the AuthenticationToken, and proves again who they are, may activate the session on a
new channel, its subscriptions with it. The token is a secret: it is kept in a file of its own that we alone can read,
written whole or not at all, and never in the database.
"""

import contextlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import nodeid_from_binary, nodeid_to_binary

from plugin.pki import write_private

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptSession:
    """A session that was activated."""

    peer: str
    """Endpoint, security and user that it was made with: it serves no others."""
    token: ua.NodeId = field(repr=False)
    nonce: bytes | None = field(repr=False)
    """The server's, of its last answer: the next activation is signed over it."""
    policies: tuple[ua.UserTokenPolicy, ...] = ()
    """How the server wants users to be named, from its answer to CreateSession."""
    timeout: float = 0.0
    """Granted: without a request for so long the server ends it [s]."""


class SessionFile:
    """Where a source's session is kept; without a path it lives in this process only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self, peer: str) -> KeptSession | None:
        """The session that was kept for this peer; None: there is none, or it is of no use."""
        if self._path is None:
            return None
        try:
            row = json.loads(self._path.read_text(encoding="utf-8"))
            kept = KeptSession(
                str(row["peer"]),
                nodeid_from_binary(Buffer(bytes.fromhex(row["token"]))),
                bytes.fromhex(row["nonce"]) or None,
                tuple(_policy(*parts) for parts in row["policies"]),
                float(row["timeout"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, ua.UaError) as error:
            _log.warning("%s can't be read, a new session is made: %s", self._path, type(error).__name__)
            return None
        return kept if kept.peer == peer else None

    def write(self, kept: KeptSession) -> None:
        """Keep it, in place of the one before. What fails is logged: it costs us the session at a restart, no more."""
        if self._path is None:
            return
        row = {
            "peer": kept.peer,
            "token": nodeid_to_binary(kept.token).hex(),
            "nonce": (kept.nonce or b"").hex(),
            "policies": [(p.PolicyId, int(p.TokenType), p.SecurityPolicyUri) for p in kept.policies],
            "timeout": kept.timeout,
        }
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self._path, json.dumps(row).encode())
        except OSError as error:
            _log.warning("%s can't be written, a restart will need a new session: %s", self._path, error)

    def remove(self) -> None:
        """The session is no more."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)


def _policy(name: str | None, kind: int, uri: str | None) -> ua.UserTokenPolicy:
    policy = ua.UserTokenPolicy()
    policy.PolicyId, policy.TokenType, policy.SecurityPolicyUri = name, ua.UserTokenType(kind), uri
    return policy
