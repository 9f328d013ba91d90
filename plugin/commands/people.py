"""What people tell, what is on record of what they did, and who they are: ``label``, ``lab``, ``audit``, ``user``."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from plugin.commands.console import DEFAULT, ConfigPath, checked, complete, err, load, out

Kind = Literal["failure", "work_order", "verdict", "normal"]
UserRole = Literal["observer", "operator", "engineer", "administrator"]
_SHORTEST = 10  # characters of a password
Word = Literal["confirmed", "false_alarm", "unclear"]

label_app = typer.Typer(help="What happened: failures, work orders, verdicts on flags, times when all was well.",
                        no_args_is_help=True)  # fmt: skip
lab_app = typer.Typer(help="Results of the laboratory.", no_args_is_help=True)

Since = Annotated[str, typer.Option(help="Only those from then on: a duration (30d), or a date.")]
AssetName = Annotated[str, typer.Option("--asset", help="Only those of this asset.")]
AsJson = Annotated[bool, typer.Option("--json", help="A JSON list instead of the table.")]


@label_app.command("add")
def label_add(
    kind: Annotated[Kind, typer.Argument(help="What it is.")],
    asset: Annotated[str, typer.Argument(help="Name of the machine.")],
    at: Annotated[str, typer.Option(help="When it happened or began: a date, or so long ago (2h); else now.")] = "",
    until: Annotated[str, typer.Option(help="When it ended; left out: a moment, or it lasts.")] = "",
    verdict: Annotated[Word | None, typer.Option(help="Of the newest flag that was raised by then.")] = None,
    model: Annotated[str, typer.Option(help="Whose flag; needed where several models raise some.")] = "",
    reference: Annotated[str, typer.Option(help="Such as the number of a work order.")] = "",
    note: Annotated[str, typer.Option(help="For whoever reads it.")] = "",
    replaces: Annotated[str, typer.Option(help="Id of a label that was wrong; the audit log keeps what it was.")] = "",
    config: ConfigPath = DEFAULT,
) -> None:
    """Say what happened to a machine: a failure, a work order, a verdict on a flag, or that all was well."""
    from plugin.telling import Said, tell_label  # noqa: PLC0415

    said = Said(kind, asset, at, until, verdict or "", model, reference, note, replaces)
    label, new = complete(tell_label(load(config), said))
    told = f"{label.kind} of {label.asset} at {label.start.astimezone():%Y-%m-%d %H:%M:%S}: {label.id}"
    out.print(told if new else f"{told} (known already)", markup=False, highlight=False)


@label_app.command("import")
def label_import(
    csv: Annotated[
        Path,
        typer.Argument(help="Columns kind, asset, at; and perhaps until, verdict, model, reference, note, id."),
    ],
    config: ConfigPath = DEFAULT,
) -> None:
    """Say what many things happened, from a CSV; the same file told again says nothing new."""
    from plugin.telling import tell_labels  # noqa: PLC0415

    count, new = complete(tell_labels(load(config), csv))
    out.print(f"{count:,} told, {new:,} of them new or other than before.")


@label_app.command("list")
def label_list(
    asset: AssetName = "",
    kind: Annotated[Kind | None, typer.Option(help="Only those of this kind.")] = None,
    since: Since = "",
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT,
) -> None:
    """Show what people said happened, the newest last."""
    from plugin.asking import show_labels  # noqa: PLC0415

    complete(show_labels(load(config), out, asset=asset, kind=kind or "", since=since, as_json=as_json))


@lab_app.command("add")
def lab_add(
    asset: Annotated[str, typer.Argument(help="Name of the machine.")] = "",
    quantity: Annotated[str, typer.Argument(help="What was measured: the name of the soft sensor's output.")] = "",
    value: Annotated[str, typer.Argument(help="The result.")] = "",
    taken: Annotated[str, typer.Option(help="When the specimen was drawn: a date, or so long ago (2h).")] = "",
    unit: Annotated[str, typer.Option(help="Of the result.")] = "",
    note: Annotated[str, typer.Option(help="For whoever reads it.")] = "",
    key: Annotated[str, typer.Option("--id", help="The laboratory's number; told again, it is corrected.")] = "",
    csv: Annotated[
        Path | None, typer.Option(help="Many: columns asset, quantity, taken, value; and perhaps unit, note, id.")
    ] = None,
    config: ConfigPath = DEFAULT,
) -> None:
    """Tell a result of the laboratory, or many from a CSV; the same told again changes nothing, another corrects it.

    Predictions are held against it. What a model learns from, and corrects itself by, is the tag in its role lab.
    """
    from plugin.telling import lab_rows, tell_lab  # noqa: PLC0415

    loaded = load(config)
    one = {"asset": asset, "quantity": quantity, "taken": taken, "value": value, "unit": unit, "note": note, "id": key}
    rows = checked(lambda: lab_rows(one, csv))
    count, new = complete(tell_lab(loaded, rows, str(csv or "lab add")))
    out.print(f"{count:,} told, {new:,} of them new or corrected.")


@lab_app.command("list")
def lab_list(
    asset: AssetName = "",
    quantity: Annotated[str, typer.Option(help="Only this one.")] = "",
    since: Since = "30d",
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT,
) -> None:
    """Show results of the laboratory, the newest last."""
    from plugin.asking import show_lab  # noqa: PLC0415

    complete(show_lab(load(config), out, asset=asset, quantity=quantity, since=since, as_json=as_json))


def audit(
    since: Since = "",
    action: Annotated[str, typer.Option(help="Only of this kind, such as promote, trust, reload.")] = "",
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 100,
    as_json: AsJson = False,
    config: ConfigPath = DEFAULT,
) -> None:
    """Show who changed what: promotions, corrections, trust, reloads, imports, what retention dropped; newest last."""
    from plugin.asking import show_audit  # noqa: PLC0415

    complete(show_audit(load(config), out, since=since, action=action, limit=limit, as_json=as_json))


def user(
    name: Annotated[str, typer.Argument(help="User name, as the client will tell it.")],
    role: Annotated[UserRole, typer.Option(help="What it may do.")] = "observer",
) -> None:
    """Make a user of the OPC UA server: asks for a password, prints the section for foretag.toml with its hash."""
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415

    from plugin.publish.config import UserName  # noqa: PLC0415
    from plugin.publish.people import hashed  # noqa: PLC0415

    try:
        TypeAdapter(UserName).validate_python(name)
    except ValidationError:
        err.print(f"{name!a} is no user name: 1 to 64 characters, no space at its ends, all to be seen.",
                  style="red", markup=False)  # fmt: skip
        raise typer.Exit(2) from None
    password = typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True, err=True)
    if len(password) < _SHORTEST:
        err.print(f"A password has at least {_SHORTEST} characters; choose a longer one.", style="red")
        raise typer.Exit(2)
    quoted = json.dumps(name, ensure_ascii=False)  # TOML knows no surrogates: an emoji goes as it is
    typer.echo(f'[[publish.users]]\nname = {quoted}\nrole = "{role}"\npassword_hash = "{hashed(password)}"')
