"""Say where a device's energy registers begin anew, and how finely they count."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add what is known of the meters; NULL: not declared."""
    op.add_column("devices", sa.Column("meter_rollover_wh", sa.Double))
    op.add_column("devices", sa.Column("meter_resolution_wh", sa.Double))
