"""Runs the migrations on the connection that :func:`plugin.historian.migrate.migrate` hands over."""

from alembic import context

from plugin.historian.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
