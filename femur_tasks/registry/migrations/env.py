"""How Alembic reaches the registry: through the engine that `database.migrate` hands over."""

from alembic import context

from femur_tasks.registry.tables import Base

with context.config.attributes["engine"].execution_options(femur_writes=True).connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        transactional_ddl=True,  # on SQLite too: Alembic would commit each migration, and read before it locks
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":  # of two that start at once the second waits and finds it done
            connection.exec_driver_sql("select pg_advisory_xact_lock(hashtext('femur_registry'))")
        context.run_migrations()
