"""Say what is particular about a device's part in an allocation; NULL: nothing."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add merit order, steps, least times, must-run and opt-out."""
    op.add_column("devices", sa.Column("tier", sa.SmallInteger))
    op.add_column("devices", sa.Column("priority", sa.Double))
    op.add_column("devices", sa.Column("steps", sa.SmallInteger))
    op.add_column("devices", sa.Column("min_on_s", sa.Double))
    op.add_column("devices", sa.Column("min_off_s", sa.Double))
    op.add_column("devices", sa.Column("must_run", sa.SmallInteger))
    op.add_column("devices", sa.Column("opted_out_until_ns", sa.BigInteger))
