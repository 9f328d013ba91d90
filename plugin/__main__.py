"""The command line: ``foretag``, or ``python -m plugin``. Each command is in :mod:`plugin.commands`."""

import gc
import logging

import typer

from plugin.commands import asking, commissioning, evaluating, exchange, historian, models, people, running, trust

app = typer.Typer(
    name="foretag",
    help="A tag from the future: keeps a plant's OPC UA tags in SQL, runs models over them, and serves the predictions "
    "as OPC UA nodes.\n\n"
    "Start with [bold]foretag init[/bold], look with [bold]foretag check[/bold], then [bold]foretag run[/bold].",
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    commissioning.init,
    commissioning.check,
    commissioning.browse,
    running.run,
    running.reload,
    running.train,
    evaluating.evaluate,
    asking.status,
    asking.gaps,
    people.audit,
    people.user,
    historian.migrate,
    historian.backup,
    exchange.export,
    running.demo,
    asking.config,
    asking.version,
):
    app.command()(command)
app.command(name="import")(exchange.import_)
app.add_typer(trust.app, name="trust")
app.add_typer(models.app, name="models")
app.add_typer(people.label_app, name="label")
app.add_typer(people.lab_app, name="lab")


def main() -> None:
    """The entry point of the ``foretag`` command."""
    gc.disable()  # until a command has what it imports: that stays, and to look for garbage in it took a fifth longer
    logging.getLogger("asyncua").setLevel(logging.ERROR)  # what goes wrong a command says in words of its own
    app()


if __name__ == "__main__":
    main()
