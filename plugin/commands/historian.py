"""What is done to the database: ``migrate``."""

from typing import Annotated

import typer

from plugin.commands.console import DEFAULT, ConfigPath, checked, load, out


def migrate(
    config: ConfigPath = DEFAULT,
    revision: Annotated[str, typer.Option(help="Revision to go to; older ones drop what they do not know.")] = "head",
) -> None:
    """Bring the database to this release's schema (or to another revision)."""
    from plugin.historian.migrate import migrate as bring  # noqa: PLC0415

    loaded = load(config)
    missing = checked(lambda: bring(loaded.historian.located(loaded.data), revision))
    out.print(f"The database has revision {revision}.")
    if missing:
        out.print("For reports an administrator of the database may run this, and then `foretag migrate` again:")
        out.print("\n".join(f"  {statement};" for statement in missing), markup=False, highlight=False)
