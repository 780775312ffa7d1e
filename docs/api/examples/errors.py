from qortex_db import OutcomeUnknownError, QortexDbError


async def work(uow):
    await uow.factors.adjust({"node": "accepted"})


# qortex_db.errors.QortexDbError
try:
    await db.vectors.search([1.0, 2.0])  # of another length than the column's
except QortexDbError as error:
    print(type(error).__name__, error.sqlstate, error)

# qortex_db.errors.OutcomeUnknownError
# qortex_db.errors.OutcomeUnknownError.resolve
try:
    async with db.unit_of_work() as uow:
        await work(uow)
except OutcomeUnknownError as error:  # the connection was lost as COMMIT was under way
    if not await error.resolve(db):
        await db.run(work)
