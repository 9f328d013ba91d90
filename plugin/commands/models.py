"""``foretag models``: which versions there are, how they compare, and which is in force."""

from pathlib import Path
from typing import Annotated

import typer

from plugin.commands.console import DEFAULT, ConfigPath, complete, load, out

app = typer.Typer(help="Versions of models: look, compare, promote, roll back, retire.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[int, typer.Argument(help="Number of the version, as `foretag models list` shows it.", min=1)]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of the table.")]


@app.command("list")
def models_list(
    model: Annotated[str, typer.Argument(help="Only of this model.")] = "",
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT,
) -> None:
    """Show the versions of all models, the newest first."""
    from plugin.asking import show_versions  # noqa: PLC0415

    complete(show_versions(load(config), out, model=model, as_json=as_json))


@app.command("show")
def models_show(model: Model, version: Version, as_json: AsJson = False, config: ConfigPath = DEFAULT) -> None:
    """Show all of one version: what it is, what it was trained on, how good it was, when it came into force."""
    from plugin.asking import show_version  # noqa: PLC0415

    complete(show_version(load(config), out, model=model, number=version, as_json=as_json))


@app.command("compare")
def models_compare(
    model: Model,
    challenger: Version,
    against: Annotated[int, typer.Option(help="Another version than the one in force.", min=0)] = 0,
    since: Annotated[str, typer.Option(help="Runs from then on: a duration (30d), or a date.")] = "30d",
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT,
) -> None:
    """Compare a challenger with the version in force: what both said of the same instants, and what came true."""
    from plugin.promoting import show_comparison  # noqa: PLC0415

    complete(
        show_comparison(
            load(config), out, model=model, number=challenger, against=against, since=since, as_json=as_json
        )
    )


@app.command("promote")
def models_promote(model: Model, version: Version, yes: Yes = False, config: ConfigPath = DEFAULT) -> None:
    """Put a version in force; a running service takes it up with its next run."""
    from plugin.promoting import promote  # noqa: PLC0415

    loaded = load(config)
    _ask(f"Put {model}-{version} in force?", yes)
    out.print(complete(promote(loaded, model, version)), markup=False, highlight=False)


@app.command("roll-back")
def models_roll_back(model: Model, yes: Yes = False, config: ConfigPath = DEFAULT) -> None:
    """Put the version in force that was so before; a running service takes it up with its next run."""
    from plugin.promoting import roll_back  # noqa: PLC0415

    loaded = load(config)
    _ask(f"Put the version of {model} in force that was so before?", yes)
    out.print(complete(roll_back(loaded, model)), markup=False, highlight=False)


@app.command("retire")
def models_retire(
    model: Model,
    version: Version,
    reason: Annotated[str, typer.Option(help="For the audit log.")] = "",
    yes: Yes = False,
    config: ConfigPath = DEFAULT,
) -> None:
    """Take a challenger out of play; its artifact stays."""
    from plugin.promoting import retire  # noqa: PLC0415

    loaded = load(config)
    _ask(f"Retire {model}-{version}?", yes)
    out.print(complete(retire(loaded, model, version, reason)), markup=False, highlight=False)


@app.command("sign")
def models_sign(
    model: Model,
    version: Version,
    key: Annotated[Path, typer.Option(help="Private key: Ed25519, PEM; it may be encrypted.")],
    config: ConfigPath = DEFAULT,
) -> None:
    """Vouch for a version, so that a service with foretag.model_key uses it. Keep the private key elsewhere.

    Keys: openssl genpkey -algorithm ed25519 -aes256 -out sign.pem; openssl pkey -in sign.pem -pubout -out model.pem
    """
    from models.signature import encrypted  # noqa: PLC0415
    from plugin.promoting import sign  # noqa: PLC0415

    loaded = load(config)
    password = typer.prompt("Password of the key", hide_input=True, err=True) if encrypted(key) else ""
    out.print(complete(sign(loaded, model, version, key, password)), markup=False, highlight=False)


def _ask(question: str, yes: bool) -> None:
    if not yes:
        typer.confirm(question, abort=True)
