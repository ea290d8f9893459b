"""What Alembic runs: our migrations on the connection that `Database.migrate` gives."""

from __future__ import annotations

from alembic import context

from fieldtune.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
