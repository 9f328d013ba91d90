"""``foretag trust``: whom we trust, whom we refused, and until when, as a person reads it."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from plugin import pki
from plugin.report.layout import headed, printable

_STYLES = {pki.Place.TRUSTED: "green", pki.Place.ISSUERS: "", pki.Place.REJECTED: "yellow"}
_SOON = timedelta(days=30)


def trust_view(folder: Path, now: datetime) -> RenderableType:
    """Our own certificate, then a line per certificate and revocation list of the trust list in ``folder``."""
    own, entries, lists = folder / "own" / "own.der", pki.entries(folder), _lists(folder)
    parts: list[RenderableType] = []
    if own.exists():
        cert = x509.load_der_x509_certificate(own.read_bytes())
        ours = Text(
            f"Our own, to be trusted by servers and clients: {own}\n  {pki.thumbprint(own.read_bytes())}, until "
        )
        parts += [ours.append_text(_end(cert.not_valid_after_utc, now)), Text()]
    if not entries and not lists:
        return Group(*parts, Text("nobody is trusted yet, and nobody was refused"))
    table = headed("place", "name", "thumbprint", "kind", "valid until", "first seen")
    for entry in entries:
        table.add_row(
            Text(entry.place.value, _STYLES[entry.place]),
            Text(_name(entry.certificate.subject)),
            entry.thumbprint[:16],
            _kind(entry.certificate),
            _end(entry.certificate.not_valid_after_utc, now),
            Text(printable(entry.seen)),
        )
    for path, found in lists:
        table.add_row(*_list_row(path, found, now))
    for column in table.columns[:-1]:
        column.no_wrap = True
    return Group(*parts, table, Text(), Text(_hint(entries)))


def certificate_view(entry: pki.Entry) -> RenderableType:
    """Every field of one certificate that a person compares."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for field, text in _fields(entry):
        table.add_row(Text(field, "bold"), Text(printable(text)))
    return table


def _fields(entry: pki.Entry) -> Iterator[tuple[str, str]]:
    cert = entry.certificate
    key = cert.public_key()
    algorithm = cert.signature_hash_algorithm
    mark = entry.thumbprint
    yield "subject", cert.subject.rfc4514_string()
    yield "issuer", "itself" if cert.subject == cert.issuer else cert.issuer.rfc4514_string()
    yield "thumbprint", " ".join(mark[at : at + 4] for at in range(0, len(mark), 4))
    yield "serial number", f"{cert.serial_number:X}"
    yield "valid", f"{cert.not_valid_before_utc:%Y-%m-%d %H:%M} to {cert.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    yield "application URI", ", ".join(pki.application_uris(cert)) or "none"
    yield "hosts", ", ".join(pki.hosts(cert)) or "none"
    yield "kind", _kind(cert) or "application"
    yield "key", f"RSA, {key.key_size} bits" if isinstance(key, RSAPublicKey) else type(key).__name__
    yield "signed with", algorithm.name.upper() if algorithm else "unknown"
    yield "place", f"{entry.place.value}: {entry.path}"
    yield "first seen", entry.seen or "not seen here: a person brought it"


def _lists(folder: Path) -> pki.Lists:
    return pki.read_lists(folder / pki.Place.TRUSTED, folder / pki.Place.ISSUERS)


def _list_row(path: Path, found: x509.CertificateRevocationList | None, now: datetime) -> tuple[Text | str, ...]:
    place = Text(path.parent.name)
    if found is None:
        return place, Text(printable(path.name)), "", Text("unreadable", "bold red"), "", ""
    until = Text("for ever") if found.next_update_utc is None else _end(found.next_update_utc, now)
    return place, Text(_name(found.issuer)), "", f"revokes {len(found)}", until, ""


def _name(name: x509.Name) -> str:
    common = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return printable(str(common[0].value) if common else name.rfc4514_string())[:60]


def _kind(cert: x509.Certificate) -> str:
    """A machine's own certificate is one also where it says that it may sign others, as many self-signed ones do."""
    if not pki.is_authority(cert):
        return ""
    return "may sign others" if pki.application_uris(cert) else "authority"


def _end(end: datetime, now: datetime) -> Text:
    style = "bold red" if end <= now else "yellow" if end - now <= _SOON else ""
    return Text(f"{end.astimezone(UTC):%Y-%m-%d}{' (ended)' if end <= now else ''}", style)


def _hint(entries: Sequence[pki.Entry]) -> str:
    waiting = [entry for entry in entries if entry.place is pki.Place.REJECTED]
    if not waiting:
        return "nobody waits to be trusted"
    return f"{len(waiting)} refused; to trust one: foretag trust add {waiting[-1].thumbprint[:16]}"
