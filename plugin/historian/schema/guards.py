"""What the database itself refuses: to alter what the audit log has, whoever asks."""

from sqlalchemy import Connection

_SQLITE = [
    f"CREATE TRIGGER audit_log_{event.split()[0].lower()} BEFORE {event} "
    f"BEGIN SELECT RAISE(ABORT, 'audit_log is only ever added to'); END"
    for event in (
        "UPDATE ON audit_log",
        "DELETE ON audit_log",
        "INSERT ON audit_log WHEN EXISTS (SELECT 1 FROM audit_log WHERE id = NEW.id)",  # INSERT OR REPLACE
    )
]
_POSTGRESQL = [
    """CREATE FUNCTION audit_log_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'audit_log is only ever added to' USING ERRCODE = 'insufficient_privilege';
END $$""",
    "CREATE TRIGGER audit_log_is_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log "
    "FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_kept()",
]


def create(connection: Connection) -> None:
    """On a new audit log."""
    for statement in _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL:
        connection.exec_driver_sql(statement)


def drop(connection: Connection) -> None:
    """After the audit log, which takes its triggers with it."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("DROP FUNCTION IF EXISTS audit_log_is_kept()")
