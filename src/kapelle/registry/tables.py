"""The tables of the registry. `migrations/` builds them step by step; a test holds both equal."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

plant = Table(
    "plant",
    metadata,
    Column("id", SmallInteger, CheckConstraint("id = 1", name="one_row"), primary_key=True),
    # Numbers of devices follow from it, so it is fixed when the plant is made.
    Column("partitions", Integer, nullable=False),
    # Number of the last change. Whoever changes anything locks this row first, so that changes
    # become visible in the order of their numbers.
    Column("revision", BigInteger, nullable=False),
)

partitions = Table(
    "partitions",
    metadata,
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_row", Integer, nullable=False),
)

sites = Table(
    "sites",
    metadata,
    Column("site", String(128), primary_key=True),
    Column("partition", Integer, ForeignKey("partitions.partition"), nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("device_no", Integer, primary_key=True, autoincrement=False),
    Column("device_id", String(64), nullable=False, unique=True),
    Column("active", SmallInteger, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("site", String(128), ForeignKey("sites.site"), nullable=False, index=True),
    Column("vendor", String(128), nullable=False),
    Column("model", String(128), nullable=False),
    Column("zone", String(128), nullable=False),
    Column("feeder", String(128), nullable=False),
    Column("provider", String(128), nullable=False),
    Column("adapter", String(128), nullable=False),
    Column("address", String(128), nullable=False),
    # NULL is NaN: SQLite cannot store NaN.
    Column("nameplate_up_w", Double, nullable=False),
    Column("nameplate_down_w", Double, nullable=False),
    Column("energy_wh", Double),
    Column("reserve_soc", Double, nullable=False),
    Column("ramp_w_per_s", Double),
    Column("revert_s", Double),
    Column("report_every_s", Double),
    Column("meter_rollover_wh", Double),
    Column("meter_resolution_wh", Double),
    # NULL is what is usual: tier 0, priority 1, steps of its kind, no least times, no must-run.
    Column("tier", SmallInteger),
    Column("priority", Double),
    Column("steps", SmallInteger),
    Column("min_on_s", Double),
    Column("min_off_s", Double),
    Column("must_run", SmallInteger),
    # The owner's word: a file that does not mention it leaves it as it is.
    Column("opted_out_until_ns", BigInteger),
    # Salt and hash; NULL once the device is removed, so that nothing opens the door again.
    Column("credential", LargeBinary),
    Column("credential_at_ns", BigInteger),
    Column("created_at_ns", BigInteger, nullable=False),
    Column("updated_at_ns", BigInteger, nullable=False),
    # `plant.revision` of the change that wrote the row last.
    Column("revision", BigInteger, nullable=False),
    Index("ix_devices_revision", "revision", "device_no"),
)

resources = Table(
    "resources",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("selection", String, nullable=False),
    Column("created_at_ns", BigInteger, nullable=False),
    Column("updated_at_ns", BigInteger, nullable=False),
)

resource_members = Table(
    "resource_members",
    metadata,
    Column("resource", String(64), ForeignKey("resources.name"), primary_key=True),
    Column("device_no", Integer, ForeignKey("devices.device_no"), primary_key=True, index=True),
)

persons = Table(
    "persons",
    metadata,
    Column("name", String(64), primary_key=True),
    # The part of the token that may be shown, and by which it is found.
    Column("prefix", String(16), nullable=False, unique=True),
    # Salt and hash; NULL once the token is revoked.
    Column("credential", LargeBinary),
    Column("created_at_ns", BigInteger, nullable=False),
    Column("revoked_at_ns", BigInteger),
)

# What the journal has yet to hear: *that* something changed. What it is now is read when it is
# sent: entries replace what was said before as a whole, so newer is never wrong.
outbox = Table(
    "outbox",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    # `model.entries.Kind`: ENROLLED (devices of this revision) or MEMBERS (of one resource).
    Column("kind", SmallInteger, primary_key=True, autoincrement=False),
    Column("resource", String(64), primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
)
