from qortex_db import Settings, migrations

settings = Settings()  # by the environment; what is left out means the same

# qortex_db.migrations.upgrade
# qortex_db.migrations.SchemaState
state = await migrations.upgrade(settings)
assert state.is_current

# qortex_db.migrations.check
state = await migrations.check()
assert state.current == state.head

# qortex_db.migrations.head_revision
assert migrations.head_revision().startswith("qortex_db_")

# qortex_db.migrations.downgrade
await migrations.downgrade(settings, "-1")  # by one revision
await migrations.upgrade(settings)

# qortex_db.migrations.locate
assert (migrations.locate() / "env.py").exists()

# qortex_db.migrations.upgrade_sql
assert "CREATE TABLE" in migrations.upgrade_sql(settings)

# qortex_db.migrations.drift
# qortex_db.migrations.Drift
for difference in await migrations.drift(settings):
    print(difference.table, difference.object, difference.expected, difference.found)

# qortex_db.migrations.adopt
adoption = await migrations.adopt(settings, dry_run=True)
assert not adoption.steps  # it is ours already

# qortex_db.migrations.Adoption
print(adoption.schema, *adoption.steps, *adoption.warnings, sep="\n")

# qortex_db.migrations.AdoptedTable
for table in adoption.tables:
    print(table.name, table.form, table.rows)

# qortex_db.migrations.AdoptionRefusedError
try:
    await migrations.adopt(settings)
except migrations.AdoptionRefusedError as error:
    print(error.differences)


# qortex_db.migrations.rebuild_index
# qortex_db.migrations.RebuiltIndex
async def load():  # while the index is away
    await db.vectors.ingest({"id": str(n), "embedding": [n + 1.0] * 384} for n in range(100))


(built,) = await migrations.rebuild_index(settings, load=load)
assert built.name == "ix_qortex_vectors_vec"

# qortex_db.migrations.IndexProgress
await migrations.rebuild_index(settings, on_progress=lambda done: print(done.phase, done.fraction))

# qortex_db.migrations.pending_indexes
assert await migrations.pending_indexes(settings) == []

# qortex_db.migrations.add_embedding_column
await migrations.add_embedding_column("v2", 768)

# qortex_db.migrations.drop_embedding_column
await migrations.drop_embedding_column("v2")

# qortex_db.migrations.grant_roles
from qortex_db import NotFoundError

try:
    await migrations.grant_roles(settings, writer="memory_app", reader="memory_reports")
except NotFoundError as error:
    assert "CREATE ROLE" in str(error)  # they have to be there

# qortex_db.migrations.roles_sql
assert "GRANT SELECT" in migrations.roles_sql(settings, reader="memory_reports")

# qortex_db.migrations.distribution_sql
assert "create_distributed_table" in migrations.distribution_sql(settings, by="key")

# qortex_db.migrations.distribute
# qortex_db.migrations.By
from qortex_db import InvalidInputError

try:
    await migrations.distribute(settings, by="key")
except InvalidInputError as error:
    assert "no Citus" in str(error)

# qortex_db.migrations.include_name
from sqlalchemy import MetaData


def run_migrations(context, connection):  # in a host's env.py
    context.configure(
        connection=connection,
        target_metadata=MetaData(),
        include_name=migrations.include_name,
        include_object=migrations.include_object,
    )


# qortex_db.migrations.include_object
from qortex_db import QortexVector

ours = QortexVector.__table__
assert not migrations.include_object(ours, "qortex_vectors", "table", False, None)
