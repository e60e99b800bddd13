"""Make the first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "plant",
        sa.Column("id", sa.SmallInteger, nullable=False),
        sa.Column("partitions", sa.Integer, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_plant"),
        sa.CheckConstraint("id = 1", name=op.f("ck_plant_one_row")),
    )
    op.create_table(
        "partitions",
        sa.Column("partition", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("next_row", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("partition", name="pk_partitions"),
    )
    op.create_table(
        "sites",
        sa.Column("site", sa.String(128), nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("site", name="pk_sites"),
        sa.ForeignKeyConstraint(["partition"], ["partitions.partition"], name="fk_sites_partition"),
    )
    op.create_table(
        "devices",
        sa.Column("device_no", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("active", sa.SmallInteger, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("site", sa.String(128), nullable=False),
        sa.Column("vendor", sa.String(128), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("zone", sa.String(128), nullable=False),
        sa.Column("feeder", sa.String(128), nullable=False),
        sa.Column("provider", sa.String(128), nullable=False),
        sa.Column("adapter", sa.String(128), nullable=False),
        sa.Column("address", sa.String(128), nullable=False),
        sa.Column("nameplate_up_w", sa.Double, nullable=False),
        sa.Column("nameplate_down_w", sa.Double, nullable=False),
        sa.Column("energy_wh", sa.Double),
        sa.Column("reserve_soc", sa.Double, nullable=False),
        sa.Column("ramp_w_per_s", sa.Double),
        sa.Column("revert_s", sa.Double),
        sa.Column("report_every_s", sa.Double),
        sa.Column("credential", sa.LargeBinary),
        sa.Column("credential_at_ns", sa.BigInteger),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ns", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("device_no", name="pk_devices"),
        sa.UniqueConstraint("device_id", name="uq_devices_device_id"),
        sa.ForeignKeyConstraint(["site"], ["sites.site"], name="fk_devices_site"),
    )
    op.create_index("ix_devices_site", "devices", ["site"])
    op.create_index("ix_devices_revision", "devices", ["revision", "device_no"])
    op.create_table(
        "resources",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("selection", sa.String, nullable=False),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ns", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_resources"),
    )
    op.create_table(
        "resource_members",
        sa.Column("resource", sa.String(64), nullable=False),
        sa.Column("device_no", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("resource", "device_no", name="pk_resource_members"),
        sa.ForeignKeyConstraint(
            ["resource"], ["resources.name"], name="fk_resource_members_resource"
        ),
        sa.ForeignKeyConstraint(
            ["device_no"], ["devices.device_no"], name="fk_resource_members_device_no"
        ),
    )
    op.create_index("ix_resource_members_device_no", "resource_members", ["device_no"])
    op.create_table(
        "outbox",
        sa.Column("revision", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("kind", sa.SmallInteger, nullable=False, autoincrement=False),
        sa.Column("resource", sa.String(64), nullable=False),
        sa.Column("partition", sa.Integer, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("revision", "kind", "resource", "partition", name="pk_outbox"),
    )
