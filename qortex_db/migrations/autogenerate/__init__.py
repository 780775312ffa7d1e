"""What Alembic's autogenerate learns of us: comparisons, operations, and how an index is built."""
