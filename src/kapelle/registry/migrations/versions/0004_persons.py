"""Give persons tokens of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add who may speak to the API in his own name."""
    op.create_table(
        "persons",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("credential", sa.LargeBinary),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
        sa.Column("revoked_at_ns", sa.BigInteger),
        sa.PrimaryKeyConstraint("name", name="pk_persons"),
        sa.UniqueConstraint("prefix", name="uq_persons_prefix"),
    )
