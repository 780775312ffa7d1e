"""A database that qortex filled, brought under Alembic: looked at, changed, told."""
