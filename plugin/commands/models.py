"""``foretag models``: which versions there are, how they compare, and which is in force."""

from pathlib import Path
from typing import Annotated

import typer

from plugin.commands.console import DEFAULT, ConfigPath, complete, load, out

app = typer.Typer(help="Versions of models: look, compare, promote, roll back, retire.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[
    str, typer.Argument(help="The version: its number, or its name, such as rul-3; that alone does for a model too.")
]
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
def models_show(model: Model, version: Version = "", as_json: AsJson = False, config: ConfigPath = DEFAULT) -> None:
    """Show all of one version: what it is, what it was trained on, how good it was, when it came into force."""
    from plugin.asking import show_version  # noqa: PLC0415

    model, number = _which(model, version)
    complete(show_version(load(config), out, model=model, number=number, as_json=as_json))


@app.command("compare")
def models_compare(
    model: Model,
    challenger: Version = "",
    against: Annotated[int, typer.Option(help="Another version than the one in force.", min=0)] = 0,
    since: Annotated[str, typer.Option(help="Runs from then on: a duration (30d), or a date.")] = "30d",
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT,
) -> None:
    """Compare a challenger with the version in force: what both said of the same instants, and what came true."""
    from plugin.promoting import show_comparison  # noqa: PLC0415

    model, number = _which(model, challenger)
    complete(
        show_comparison(load(config), out, model=model, number=number, against=against, since=since, as_json=as_json)
    )


@app.command("promote")
def models_promote(model: Model, version: Version = "", yes: Yes = False, config: ConfigPath = DEFAULT) -> None:
    """Put a version in force; a running service takes it up with its next run."""
    from plugin.promoting import promote  # noqa: PLC0415

    model, number = _which(model, version)
    loaded = load(config)
    _ask(f"Put {model}-{number} in force?", yes)
    out.print(complete(promote(loaded, model, number)), markup=False, highlight=False)


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
    version: Version = "",
    reason: Annotated[str, typer.Option(help="For the audit log.")] = "",
    yes: Yes = False,
    config: ConfigPath = DEFAULT,
) -> None:
    """Take a challenger out of play; its artifact stays."""
    from plugin.promoting import retire  # noqa: PLC0415

    model, number = _which(model, version)
    loaded = load(config)
    _ask(f"Retire {model}-{number}?", yes)
    out.print(complete(retire(loaded, model, number, reason)), markup=False, highlight=False)


@app.command("sign")
def models_sign(
    model: Model,
    key: Annotated[Path, typer.Option(help="Private key: Ed25519, PEM; it may be encrypted.")],
    version: Version = "",
    config: ConfigPath = DEFAULT,
) -> None:
    """Vouch for a version, so that a service with foretag.model_key uses it. Keep the private key elsewhere.

    Keys: openssl genpkey -algorithm ed25519 -aes256 -out sign.pem; openssl pkey -in sign.pem -pubout -out model.pem
    """
    from models.signature import encrypted  # noqa: PLC0415
    from plugin.promoting import sign  # noqa: PLC0415

    model, number = _which(model, version)
    loaded = load(config)
    password = typer.prompt("Password of the key", hide_input=True, err=True) if encrypted(key) else ""
    out.print(complete(sign(loaded, model, number, key, password)), markup=False, highlight=False)


def _which(model: str, version: str) -> tuple[str, int]:
    """The model and the number of the version that is meant by ``rul 3``, ``rul-3`` or ``rul rul-3``."""
    if version.isdecimal() and int(version) > 0:
        return model, int(version)
    name, _, number = (version or model).rpartition("-")
    if not name or not number.isdecimal() or int(number) < 1 or (version and name != model):
        shown = f"{model} {version}".strip()
        raise typer.BadParameter(f"{shown!r} names no version: say {model} 3 or {model}-3, as `models list` has them")
    return name, int(number)


def _ask(question: str, yes: bool) -> None:
    if not yes:
        typer.confirm(question, abort=True)
