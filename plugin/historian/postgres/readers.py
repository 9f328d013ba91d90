"""Who reads reports in PostgreSQL: a role that may select from the views, and nothing else."""

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from plugin.historian.schema import views

ROLE = "foretag_reader"
_LACKS_RIGHT, _IS_THERE = "42501", "42710"


def admit(connection: Connection) -> tuple[str, ...]:
    """Let the role read the views that there are. What an administrator has to run first, where we may not.

    It can't log in: users of reports are made members of it, ``GRANT foretag_reader TO grafana``.
    """
    create = f"CREATE ROLE {ROLE} NOLOGIN"
    known = connection.exec_driver_sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{ROLE}'").first()  # noqa: S608
    if known is None and not _created(connection, create):
        return (create,)
    schema = connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {ROLE}")
    names = ", ".join(view.name for view in views.views("postgresql"))
    connection.exec_driver_sql(f"GRANT SELECT ON {names} TO {ROLE}")
    return ()


def _created(connection: Connection, create: str) -> bool:
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(create)
    except DBAPIError as error:
        code = str(getattr(error.orig, "sqlstate", ""))
        if code not in {_LACKS_RIGHT, _IS_THERE}:
            raise
        return code == _IS_THERE  # roles belong to the whole server: another database's migration was quicker
    return True
