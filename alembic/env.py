"""Alembic's entry into the schema; what it does is in `qortex_db.migrations.environment`."""

from logging.config import fileConfig

from alembic import context

from qortex_db.migrations import environment

if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)

environment.run()
