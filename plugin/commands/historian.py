"""What is done to the database: ``migrate``, ``backup``."""

from pathlib import Path
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


def backup(
    target: Annotated[Path, typer.Argument(help="A new file, or a folder, in which the file is named by the time.")],
    config: ConfigPath = DEFAULT,
) -> None:
    """Copy the database, of one moment and checked, also while the service runs."""
    from rich.progress import Progress  # noqa: PLC0415

    from plugin.historian.sqlite.backup import back_up  # noqa: PLC0415

    loaded = load(config)
    with Progress(console=out, transient=True) as shown:
        task = shown.add_task("copying")
        made = checked(
            lambda: back_up(
                loaded.historian,
                loaded.data,
                target,
                lambda done, total: shown.update(task, completed=done, total=total),
            )
        )
    out.print(f"{made.path}: {made.size / 1e6:,.1f} MB in {made.seconds:.1f} s, checked", markup=False, highlight=False)
