"""What a scoring run could see: the sources that were away, and gaps as they were then."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "runs",
        sa.Column(
            "unheard",
            sa.JSON(),
            server_default="{}",
            nullable=False,
            comment="Last word [µs] by source that was away when it looked",
        ),
    )
    op.add_column(
        "gaps",
        sa.Column(
            "known_from",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="When it was stored as it is now, by our clock",
        ),
    )
    # What came before is not known: they have been as they are since they were found.
    op.execute("UPDATE gaps SET known_from = detected")
    op.create_table(
        "gap_history",
        sa.Column(
            "known_until",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="When the next state was stored, by our clock",
        ),
        sa.Column("gap_id", sa.Text(), nullable=False),
        sa.Column("known_from", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=False),
        sa.Column("end_time", sa.BigInteger()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("rows_filled", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["gap_id"], ["gaps.id"], name=op.f("fk_gap_history_gap_id")),
        sa.PrimaryKeyConstraint("known_until", "gap_id", name=op.f("pk_gap_history")),
        comment="Gaps as they were before they changed",
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("gap_history")
    op.drop_column("gaps", "known_from")
    op.drop_column("runs", "unheard")
