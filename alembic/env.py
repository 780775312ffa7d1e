"""Alembic's entry into the schema; what it does is in `qortex_db.migrations.environment`."""

from logging.config import fileConfig

from alembic import context

from qortex_db.migrations import environment

file = context.config.config_file_name
if file is not None and context.config.file_config.has_section("loggers"):
    fileConfig(file, disable_existing_loggers=False)

environment.run()
