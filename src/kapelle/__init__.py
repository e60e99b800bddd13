"""Kapelle: thousands of unreliable devices as one dependable power plant.

Data comes in at the top, becomes state in the middle and leaves as commands at the bottom:

    cli app config   start here: `app` is the only file that joins the rooms
    ports            every door to the outside: Clock, Directory, Link, Intake, Journal
    errors words     the few exceptions; how numbers read to people
    model/           what we talk about: ids, blocks, orders, entries. No logic, no I/O
    adapters/        one folder per protocol: mqtt/ http/, all one shape
    ingest/          telemetry: resolve the device, check, stamp, batch, append to the journal
    journal/         the durable log: sqlite, memory, codec, snapshots
    registry/        sites, devices, resources: SQL, migrations
    fleet/           the live picture: one numpy column per field; how entries change it
    dispatch/        target -> shares -> commands -> acks, verification
    safety/          the independent last hop before any command leaves
    edge/            the agent beside devices: store and forward, commands down to Modbus
    api/             REST; what operators and the command line talk to
    sim/             simulated devices, links and time; drives `app` unchanged
    runtime/         system clock, supervision, logging set-up
"""

__version__ = "0.1.0"
