"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "assets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_assets")),
        comment="Machines that models watch",
    )
    op.create_table(
        "checkpoints",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_checkpoints")),
        comment="What sources need at their next start, committed with their samples",
    )
    op.create_table(
        "gaps",
        sa.Column("id", sa.Text(), nullable=False, comment="UUID"),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=True, comment="Name of the tag; NULL: all tags of the source"),
        sa.Column("start_time", sa.BigInteger(), nullable=False),
        sa.Column("end_time", sa.BigInteger(), nullable=True, comment="NULL: it lasts"),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("detected", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, comment="open, filled, unfillable"),
        sa.Column("rows_filled", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gaps")),
        comment="Where samples are or may be missing",
    )
    op.create_index(op.f("ix_gaps_detected"), "gaps", ["detected"], unique=False)
    op.create_index(op.f("ix_gaps_state"), "gaps", ["state"], unique=False)
    op.create_table(
        "model_versions",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, comment="champion, challenger, retired"),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False, comment="On held-out groups; null: not a finite number"),
        sa.Column("provenance", sa.JSON(), nullable=False),
        sa.Column("artifact", sa.Text(), nullable=False, comment="File relative to the model folder"),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model", "version", name=op.f("pk_model_versions")),
        comment="Trained models",
    )
    op.create_index(
        "uq_model_versions_champion",
        "model_versions",
        ["model"],
        unique=True,
        sqlite_where=sa.text("state = 'champion'"),
        postgresql_where=sa.text("state = 'champion'"),
    )
    op.create_table(
        "output_tags",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("output", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("low", sa.Double(), nullable=False),
        sa.Column("high", sa.Double(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("flag", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_output_tags")),
        sa.UniqueConstraint("model", "asset", "output", name=op.f("uq_output_tags_model")),
        comment="Tags from the future: the numbers that models give",
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="score, train"),
        sa.Column("scheduled", sa.BigInteger(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=True),
        sa.Column("finished", sa.BigInteger(), nullable=True),
        sa.Column("result", sa.Text(), nullable=False, comment="running, done, failed, missed"),
        sa.Column("version", sa.Integer(), nullable=False, comment="0: none"),
        sa.Column("assets", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("stages", sa.JSON(), nullable=False, comment="Seconds by stage"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        comment="Scheduled executions",
    )
    op.create_index("ix_runs_model_scheduled", "runs", ["model", "scheduled"], unique=False)
    op.create_table(
        "samples",
        sa.Column("source_time", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tag_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "ordinal",
            sa.SmallInteger(),
            autoincrement=False,
            nullable=False,
            comment="0, 1, … for different values that carry one source time, in order of arrival",
        ),
        sa.Column("value", sa.Double(), nullable=True, comment="NULL: no number"),
        sa.Column("status", sa.BigInteger(), nullable=False, comment="OPC UA StatusCode, all 32 bits"),
        sa.Column("server_time", sa.BigInteger(), nullable=False),
        sa.Column("received_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source_time", "tag_id", "ordinal", name=op.f("pk_samples")),
        comment="What the plant said",
        sqlite_with_rowid=False,
        postgresql_partition_by="RANGE (source_time)",
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute("CREATE TABLE samples_default PARTITION OF samples DEFAULT")
    op.create_table(
        "alarms",
        sa.Column("id", sa.Text(), nullable=False, comment="Of the condition; one row per condition and branch"),
        sa.Column("branch", sa.Text(), server_default="", nullable=False, comment="Empty: the current state"),
        sa.Column("event_id", sa.Text(), nullable=False, comment="Of the last notification"),
        sa.Column("source", sa.Text(), nullable=False, comment="Asset, model or plant server that it is about"),
        sa.Column("condition_type", sa.Text(), nullable=False, comment="BrowseName of the OPC UA type"),
        sa.Column("condition_class", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("acknowledged", sa.Boolean(), nullable=False),
        sa.Column("confirmed", sa.Boolean(), nullable=False),
        sa.Column("suppressed", sa.Boolean(), nullable=False),
        sa.Column("shelved_until", sa.BigInteger(), nullable=True, comment="NULL: not shelved"),
        sa.Column("retain", sa.Boolean(), nullable=False),
        sa.Column("severity", sa.Integer(), nullable=False, comment="1..1000"),
        sa.Column("quality", sa.BigInteger(), nullable=False, comment="StatusCode of the input"),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("client_user", sa.Text(), nullable=False, comment="Who acknowledged or commented last"),
        sa.Column("time", sa.BigInteger(), nullable=False, comment="Of the last change of state"),
        sa.Column("active_time", sa.BigInteger(), nullable=True),
        sa.Column("acknowledged_time", sa.BigInteger(), nullable=True),
        sa.Column("returned_time", sa.BigInteger(), nullable=True),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.CheckConstraint("severity BETWEEN 1 AND 1000", name=op.f("ck_alarms_severity")),
        sa.ForeignKeyConstraint(
            ["model", "version"], ["model_versions.model", "model_versions.version"], name=op.f("fk_alarms_model")
        ),
        sa.PrimaryKeyConstraint("id", "branch", name=op.f("pk_alarms")),
        sa.UniqueConstraint("event_id", name=op.f("uq_alarms_event_id")),
        comment="State of alarms (OPC 10000-9), to be found again after a restart",
    )
    op.create_table(
        "flags",
        sa.Column("as_of", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("raised", sa.Boolean(), nullable=False),
        sa.Column("score", sa.Double(), nullable=True, comment="NULL: no score"),
        sa.Column("threshold", sa.Double(), nullable=True, comment="NULL: no threshold"),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_flags_run_id")),
        sa.PrimaryKeyConstraint("as_of", "model", "asset", "run_id", name=op.f("pk_flags")),
        comment="Decisions on anomaly scores",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "predictions",
        sa.Column(
            "as_of", sa.BigInteger(), autoincrement=False, nullable=False, comment="End of the window: source time"
        ),
        sa.Column("output_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column(
            "target_time", sa.BigInteger(), autoincrement=False, nullable=False, comment="What the number speaks of"
        ),
        sa.Column("run_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("valid_until", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True, comment="NULL: no number"),
        sa.Column("lower", sa.Double(), nullable=True),
        sa.Column("upper", sa.Double(), nullable=True),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("coverage", sa.Double(), nullable=False, comment="Share of the window observed, 0..1"),
        sa.Column("version", sa.Integer(), nullable=False, comment="Model version; 0: no model has run"),
        sa.ForeignKeyConstraint(["output_id"], ["output_tags.id"], name=op.f("fk_predictions_output_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_predictions_run_id")),
        sa.PrimaryKeyConstraint("as_of", "output_id", "target_time", "run_id", name=op.f("pk_predictions")),
        comment="What models said",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tags",
        sa.Column(
            "id",
            sa.Integer(),
            sa.Identity(always=False),
            nullable=False,
            comment="1, 2, … without holes: a tag is never deleted",
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False, comment="NodeId by namespace URI"),
        sa.Column("asset", sa.Text(), nullable=True),
        sa.Column("feature", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("low", sa.Double(), nullable=True, comment="Range [unit]"),
        sa.Column("high", sa.Double(), nullable=True),
        sa.Column("deadband", sa.Double(), nullable=False, comment="[unit]"),
        sa.Column(
            "sampling", sa.BigInteger(), nullable=True, comment="Sampling interval [µs]; NULL: the source's default"
        ),
        sa.UniqueConstraint("name", name=op.f("uq_tags_name")),
        sa.ForeignKeyConstraint(["asset"], ["assets.name"], name=op.f("fk_tags_asset")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tags")),
        comment="Configured plant measurements",
    )


def downgrade() -> None:
    op.drop_table("tags")
    op.drop_table("predictions")
    op.drop_table("flags")
    op.drop_table("alarms")
    op.drop_table("samples")
    op.drop_index("ix_runs_model_scheduled", table_name="runs")
    op.drop_table("runs")
    op.drop_table("output_tags")
    op.drop_index(
        "uq_model_versions_champion",
        table_name="model_versions",
        sqlite_where=sa.text("state = 'champion'"),
        postgresql_where=sa.text("state = 'champion'"),
    )
    op.drop_table("model_versions")
    op.drop_index(op.f("ix_gaps_state"), table_name="gaps")
    op.drop_index(op.f("ix_gaps_detected"), table_name="gaps")
    op.drop_table("gaps")
    op.drop_table("checkpoints")
    op.drop_table("assets")
