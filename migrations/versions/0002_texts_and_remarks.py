"""Texts of samples, elements of tags, remarks."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "tags",
        sa.Column(
            "element",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="Part of the node's value; empty: all of it",
        ),
    )
    op.create_table(
        "sample_texts",
        sa.Column("source_time", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tag_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.SmallInteger(), autoincrement=False, nullable=False, comment="Key of the sample"),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("source_time", "tag_id", "ordinal", name=op.f("pk_sample_texts")),
        comment="What the number of a sample can't say",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "remarks",
        sa.Column(
            "source_time",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="Of the first sample it is about",
        ),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="type_changed, time_went_back"),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("source_time", "source", "tag", "kind", name=op.f("pk_remarks")),
        comment="What was odd about samples that were kept all the same",
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("remarks")
    op.drop_table("sample_texts")
    op.drop_column("tags", "element")
