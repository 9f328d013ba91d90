"""What is only looked at: ``status``, ``gaps``, ``config``, ``version``."""

from typing import Annotated

import typer

from plugin import __version__
from plugin.commands.console import DEFAULT, ConfigPath, complete, load, out


def status(config: ConfigPath = DEFAULT) -> None:
    """Show how the running service is, what the historian holds, the models in force, and their last runs.

    Exit status: 0 all is well, 1 something is wrong, 2 the command or the file is, 3 it does not run, 4 not known.
    """
    from plugin.asking import show_status  # noqa: PLC0415

    if verdict := complete(show_status(load(config), out)):
        raise typer.Exit(verdict)


def gaps(
    config: ConfigPath = DEFAULT,
    open_only: Annotated[bool, typer.Option("--open", help="Only those that history may still fill.")] = False,
    since: Annotated[
        str, typer.Option(help="Only those that lasted into the time since then: a duration (24h), or a date.")
    ] = "",
    tag: Annotated[str, typer.Option(help="Only those that concern this tag: its own, and its whole source's.")] = "",
    source: Annotated[str, typer.Option(help="Only those of this source.")] = "",
    cause: Annotated[str, typer.Option(help="Only those of this cause, such as subscription_lost.")] = "",
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list instead of the table.")] = False,
) -> None:
    """List the gaps: when and why values were missed, and what became of it; the newest last."""
    from plugin.asking import Chosen, show_gaps  # noqa: PLC0415

    chosen = Chosen(open_only=open_only, since=since, tag=tag, source=source, cause=cause, limit=limit)
    complete(show_gaps(load(config), chosen, out, as_json=as_json))


def config(
    metrics: Annotated[bool, typer.Option("--metrics", help="The metrics of the Prometheus endpoint instead.")] = False,
    views: Annotated[bool, typer.Option("--views", help="The SQL views of the database instead.")] = False,
) -> None:
    """Print every field of the configuration file, as Markdown."""
    from plugin import reference  # noqa: PLC0415

    page = reference.metrics if metrics else reference.sql_views if views else reference.reference
    typer.echo(page(), nl=False)


def version() -> None:
    """Print the version."""
    out.print(__version__)
