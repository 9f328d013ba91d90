"""``foretag trust``: whose certificates we take."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from plugin.commands.console import DEFAULT, ConfigPath, checked, complete, load, out

app = typer.Typer(help="Whom we trust: the certificates of servers, clients and authorities.", no_args_is_help=True)

Thumbprint = Annotated[str, typer.Argument(help="Beginning of its thumbprint, as `foretag trust list` shows it.")]


@app.command("list")
def trust_list(config: ConfigPath = DEFAULT) -> None:
    """Show our own certificate, and who is trusted, who was refused, and until when."""
    from plugin.report.trust import trust_view  # noqa: PLC0415

    out.print(trust_view(load(config).pki_folder, datetime.now(UTC)))


@app.command("show")
def trust_show(thumbprint: Thumbprint, config: ConfigPath = DEFAULT) -> None:
    """Show every field of one certificate, to be compared with what the peer shows."""
    from plugin import pki  # noqa: PLC0415
    from plugin.report.trust import certificate_view  # noqa: PLC0415

    folder = load(config).pki_folder
    out.print(certificate_view(checked(lambda: pki.find(folder, thumbprint))))


@app.command("add")
def trust_add(
    certificate: Annotated[
        str, typer.Argument(help="Beginning of a refused certificate's thumbprint; or a file: certificate or *.crl.")
    ],
    issuer: Annotated[
        bool, typer.Option("--issuer", help="An authority that completes chains and is not trusted by itself.")
    ] = False,
    config: ConfigPath = DEFAULT,
) -> None:
    """Trust a server, a client or an authority from now on; a running service needs no restart."""
    from plugin.auditing import entry, record  # noqa: PLC0415
    from plugin.trusting import add  # noqa: PLC0415

    loaded = load(config)
    done = checked(lambda: add(loaded.pki_folder, certificate, issuer=issuer))
    out.print(done.text, markup=False, highlight=False)
    complete(record(loaded, entry("trust", done.subject, before=done.before, after=done.after)))


@app.command("reject")
def trust_reject(thumbprint: Thumbprint, config: ConfigPath = DEFAULT) -> None:
    """Trust it no more; a connection that stands ends within a minute."""
    from plugin.auditing import entry, record  # noqa: PLC0415
    from plugin.trusting import reject  # noqa: PLC0415

    loaded = load(config)
    done = checked(lambda: reject(loaded.pki_folder, thumbprint))
    out.print(done.text, markup=False, highlight=False)
    complete(record(loaded, entry("distrust", done.subject, before=done.before, after=done.after)))
