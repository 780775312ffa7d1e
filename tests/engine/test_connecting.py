"""What can't be connected to is named, with its cause; passwords that are fetched anew."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from qortex_db import (
    Database,
    InvalidInputError,
    PermissionDeniedError,
    PgVectorIndex,
    Settings,
    UnavailableError,
    migrations,
    unit_of_work,
)
from qortex_db import engine as engines
from qortex_db.settings import parse_dsn
from support.catalogue import execute, rows
from support.commands import program
from support.proxies import Proxy
from support.severing import severed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SECRET = "s3cr3t"  # noqa: S105 - what nobody may see
REFUSED = r"127\.0\.0\.1:1, database 'd': it was refused"


async def _opened(settings: Settings) -> None:
    async with Database.connect(settings):
        pass


async def _hosted(settings: Settings) -> None:
    """A call by itself, on a host's engine."""
    engine = _engine_of(settings)
    try:
        await Database.from_engine(engine).arms.get("l", "a")
    finally:
        await engine.dispose()


async def _together(settings: Settings) -> None:
    engine = _engine_of(settings)
    try:
        async with AsyncSession(engine) as session, unit_of_work(session) as uow:
            await uow.arms.get("l", "a")
    finally:
        await engine.dispose()


def _engine_of(settings: Settings) -> Any:
    target = settings.target()
    assert target is not None
    arguments = {"timeout": settings.connect_timeout_seconds, **target.connect_args}
    return create_async_engine(target.url, connect_args=arguments)


WAYS: dict[str, Callable[[Settings], Awaitable[Any]]] = {
    "open": _opened,
    "a host's engine": _hosted,
    "a host's session": _together,
    "upgrade": migrations.upgrade,
    "check": migrations.check,
    "adopt": migrations.adopt,
}


@contextlib.asynccontextmanager
async def _answering(
    answer: bytes, then: bytes = b"", tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """The port of what is asked for TLS."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(8)
            writer.write(answer)
            if tls is not None:
                await writer.start_tls(tls)
            await reader.read(8)
            writer.write(then)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        yield f"postgresql://u:{SECRET}@127.0.0.1:{server.sockets[0].getsockname()[1]}/d"


def _certificate(folder: Path, name: str) -> Path:
    """A key and a certificate that it signed, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    file = folder / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(pem)
    )
    return file


@pytest.mark.parametrize("way", WAYS)
async def test_what_can_not_be_connected_to_is_named_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, dsn: str, way: str
) -> None:
    monkeypatch.setattr(engines, "RETRY_SECONDS", 0.2)  # of a host's
    folder = dsn.partition("host=")[2]
    database = dsn.partition("?")[0].rpartition("/")[2]
    async with (
        severed(dsn) as cut,
        Proxy(dsn) as silent,
        _answering(b"N") as without_tls,
        _answering(b"S", b"no TLS" * 20) as odd_tls,
    ):
        cut.refuse = True
        silent.silent.set()
        port = make_url(silent.dsn).port
        said = {
            f"postgresql://u:{SECRET}@127.0.0.1:1/d": REFUSED,
            f"postgresql://u:{SECRET}@nowhere.invalid:6543/d": (
                r"nowhere\.invalid:6543, database 'd': the host's name is unknown"
            ),
            f"postgresql://u:{SECRET}@/d?host=/nowhere&port=5433": (
                r"/nowhere/\.s\.PGSQL\.5433, database 'd': no such socket"
            ),
            silent.dsn: (
                rf"127\.0\.0\.1:{port}, database '{database}': no answer (within 0\.3 s|in time)"
            ),
            cut.dsn: rf"database '{database}': the connection was ended before it was ready",
            f"{without_tls}?sslmode=require": "database 'd': it offers no TLS",
            f"{odd_tls}?sslmode=require": "database 'd': TLS failed",
            f"postgresql://postgres:{SECRET}@/none?host={folder}": (
                rf"{folder}/\.s\.PGSQL\.5432, database 'none': the server says: database \"none\""
            ),
            f"postgresql://nobody:{SECRET}@/{database}?host={folder}": 'role "nobody" does not',
            f"{dsn}&options=-c%20nosuch=1": "unrecognized configuration parameter",
            f"{dsn}&target_session_attrs=standby": "target_session_attrs",
            f"postgresql://u:{SECRET}@127.0.0.1:1,127.0.0.1:2/d": (
                r"127\.0\.0\.1:1, 127\.0\.0\.1:2, database 'd': it was refused"
            ),
        }
        for each, says in said.items():
            if way.startswith("a host's") and "127.0.0.1:2" in each:
                continue  # its URL names no host then
            settings = Settings(dsn=each, retry_seconds=0, connect_timeout_seconds=0.3)
            with pytest.raises(UnavailableError, match=says) as caught:
                await WAYS[way](settings)
            assert str(caught.value).startswith("Could not connect to ")
            assert SECRET not in str(caught.value)
            assert caught.value.__cause__ is None


async def test_a_certificate_that_is_not_accepted_is_said(tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(_certificate(tmp_path, "server"))
    trusted = _certificate(tmp_path, "trusted")
    async with _answering(b"S", tls=tls) as dsn:
        for way in ("open", "a host's engine", "check"):
            settings = Settings(
                dsn=f"{dsn}?sslmode=verify-ca&sslrootcert={trusted}", retry_seconds=0
            )
            with pytest.raises(
                UnavailableError, match=r"its TLS certificate is not accepted \(self.signed"
            ):
                await WAYS[way](settings)


async def test_a_role_that_may_not_connect_is_told(dsn: str) -> None:
    database = dsn.partition("?")[0].rpartition("/")[2]
    await execute(
        dsn,
        "DROP ROLE IF EXISTS unconnected",
        "CREATE ROLE unconnected LOGIN",
        f'REVOKE CONNECT ON DATABASE "{database}" FROM PUBLIC',
    )
    with pytest.raises(PermissionDeniedError, match="GRANT CONNECT") as caught:
        await _opened(Settings(dsn=dsn.replace("postgres:@", "unconnected:@")))
    assert caught.value.sqlstate == "42501"


@pytest.mark.parametrize(
    "target", [f"mysql://u:{SECRET}@h/d", f"postgresql://u:{SECRET}@h:x/d", "nothing"]
)
def test_a_dsn_that_is_none_is_our_error(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    def by_variable() -> Database:
        monkeypatch.setenv("DATABASE_URL", target)
        return Database.connect()

    calls: list[Callable[[], object]] = [
        lambda: Database.connect(target),
        lambda: PgVectorIndex(target),
        by_variable,
    ]
    for call in calls:
        with pytest.raises(InvalidInputError, match=r"scheme|port") as caught:
            call()
        assert SECRET not in str(caught.value)
        assert caught.value.__context__ is None


async def test_a_url_of_sqlalchemy_is_connected_to(dsn: str) -> None:
    for url in (make_url(dsn), parse_dsn(dsn).url):
        async with Database.connect(url) as db:
            assert await db.vectors.count() == 0
    with pytest.raises(InvalidInputError, match="mysql"):
        Database.connect(make_url("mysql://u@h/d"))


# Passwords that are fetched anew


def _ask_for_passwords(hba: str) -> None:
    if not Path(hba).exists():
        pytest.skip("the server's pg_hba.conf is not on this machine")
    line, before = "local all rotating scram-sha-256\n", Path(hba).read_text()
    if line not in before:
        Path(hba).write_text(line + before)


@pytest.fixture
async def rotating(dsn: str) -> str:
    """The database by a role that has to give a password."""
    [hba] = await rows(dsn, "SHOW hba_file")
    await asyncio.to_thread(_ask_for_passwords, hba)
    await execute(
        dsn,
        "DROP ROLE IF EXISTS rotating",
        "CREATE ROLE rotating SUPERUSER LOGIN PASSWORD 'first'",
        "SELECT pg_reload_conf()",
    )
    return dsn.replace("postgres:@", f"rotating:{SECRET}@")


@pytest.mark.parametrize("kind", ["plain", "async", "an object"])
async def test_a_password_is_fetched_at_each_connect(dsn: str, rotating: str, kind: str) -> None:
    asked = []
    current = "first"

    def plain() -> str:
        asked.append(current)
        return current

    async def awaited() -> str:
        await asyncio.sleep(0)
        return plain()

    class Vault:
        async def __call__(self) -> str:
            return plain()

    provider = {"plain": plain, "async": awaited, "an object": Vault()}[kind]
    settings = Settings(
        dsn=rotating, password_provider=provider, pool_min_size=2, pool_max_size=4, retry_seconds=0
    )
    assert SECRET not in f"{settings!r} {settings.model_dump()}"
    async with Database.connect(settings) as db:
        assert asked == ["first"] * 2
        current = "second"
        await execute(dsn, "ALTER ROLE rotating PASSWORD 'second'")
        async with db.unit_of_work() as one, db.unit_of_work() as two, db.unit_of_work() as three:
            for uow in (one, two, three):
                await uow.arms.get("l", "a")
            assert asked == ["first", "first", "second"]
            current = "wrong"
            with pytest.raises(UnavailableError, match="password authentication failed") as caught:
                await db.arms.get("l", "a")
            assert "wrong" not in str(caught.value)
            current = "second"
            assert await db.arms.get_all("l") == {}
    asked.clear()
    assert (await migrations.upgrade(settings)).is_current
    assert set(asked) == {"second"}


async def test_what_a_provider_gets_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch, rotating: str
) -> None:
    def fails() -> str:
        raise LookupError(SECRET)

    async def hangs() -> str:
        await asyncio.sleep(60)
        return ""

    said: dict[Any, tuple[type[Exception], str]] = {
        fails: (UnavailableError, "password_provider raised LookupError"),
        hangs: (UnavailableError, "no answer within 0.2 s"),
        (lambda: b"first"): (InvalidInputError, "gave a bytes; it has to give a str"),
    }
    for provider, (kind, says) in said.items():
        settings = Settings(
            dsn=rotating, password_provider=provider, retry_seconds=0, connect_timeout_seconds=0.2
        )
        for way in ("open", "check"):
            with pytest.raises(kind, match=says) as caught:
                await WAYS[way](settings)
            assert SECRET not in str(caught.value)
    with pytest.raises(ValidationError, match="callable"):
        Settings(dsn=rotating, password_provider=7)
    monkeypatch.setenv("QORTEX_DB_PASSWORD_PROVIDER", "no.such:thing")
    with pytest.raises(InvalidInputError, match=r"QORTEX_DB_PASSWORD_PROVIDER: .*No module"):
        Database.connect(rotating)


async def test_the_command_line_asks_the_function_that_a_variable_names(
    rotating: str, tmp_path: Path
) -> None:
    (tmp_path / "vault.py").write_text("async def password():\n    return 'first'\n")
    environment = {
        "PGVECTOR_DSN": rotating,
        "QORTEX_DB_PASSWORD_PROVIDER": "vault:password",
        "PYTHONPATH": str(tmp_path),
    }
    for command in (("-m", "qortex_db", "check"), ("-m", "alembic", "current")):
        done = await program(sys.executable, *command, **environment)
        assert done.code == 0, done
    del environment["QORTEX_DB_PASSWORD_PROVIDER"]
    done = await program(sys.executable, "-m", "qortex_db", "check", **environment)
    assert done.code == 1
    assert "password authentication failed" in done.err
    assert "Traceback" not in done.err
