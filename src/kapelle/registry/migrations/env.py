"""Run by Alembic. The connection, and its transaction, come from `registry.schema`."""

from alembic import context

from kapelle.registry.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most things in place.
    render_as_batch=True,
)
context.run_migrations()
