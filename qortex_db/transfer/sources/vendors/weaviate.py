"""Weaviate: a collection of a server, by its REST and gRPC interfaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import weaviate
from weaviate.auth import AuthApiKey
from weaviate.classes.init import AdditionalConfig, Timeout
from weaviate.classes.query import Filter, QueryNested
from weaviate.collections.classes.types import GeoCoordinate, PhoneNumber
from weaviate.exceptions import (
    AuthenticationFailedError,
    InsufficientPermissionsError,
    UnexpectedStatusCodeError,
    WeaviateConnectionError,
    WeaviateGRPCUnavailableError,
    WeaviateQueryError,
    WeaviateRetryError,
    WeaviateStartUpError,
    WeaviateTimeoutError,
)

from qortex_db.errors import InvalidInputError
from qortex_db.messages import shown
from qortex_db.transfer.source import UNNAMED, Page, SourceRow
from qortex_db.transfer.sources.vendors.asking import (
    TIMEOUT_SECONDS,
    Asker,
    Fault,
    as_seconds,
    chosen,
    fault_of_status,
    host_of,
    is_url,
)
from qortex_db.transfer.sources.vendors.grpc_faults import fault_of_grpc
from qortex_db.transfer.sources.vendors.weaviate_config import described, vectors_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from qortex_db.transfer.source import Position, SourceDescription, SourceId

_DEFAULT: Final = "default"
"""What Weaviate calls a vector that has no name."""
_MOST: Final = 1_000
"""How many objects are asked for at once, for the sake of the size of a message."""
_SAMPLE: Final = 100
"""How many objects are looked at for the dimensions, which no schema tells."""


async def open_source(
    location: str,
    collection: str | None = None,
    *,
    api_key: str | None = None,
    grpc: str | None = None,
    tenant: str | None = None,
    timeout_seconds: float | str = TIMEOUT_SECONDS,
) -> WeaviateSource:
    """Open a collection.

    Args:
        location: The URL of its REST interface.
        collection: Its name; None for the only one.
        grpc: Host and port of its gRPC interface; by default port 50051 of the same host, or of
            Weaviate's cloud `grpc-` before the host, port 443.
        tenant: Of a collection that has tenants; each is an import of its own.

    Raises:
        NotFoundError: There is no such collection or tenant.
        UnavailableError: The server does not answer.
    """
    if not is_url(location):
        raise InvalidInputError("Pass a URL of Weaviate's: it begins with http:// or https://.")
    at = host_of(location)
    seconds = as_seconds(timeout_seconds)
    ask = Asker(f"Weaviate at {at}", _fault_of)
    client: Any = None
    try:
        client = await ask.once(_opened, location, api_key, grpc, seconds)
        names = await ask(client.collections.list_all)
        name = chosen(_capital(collection), names, ask.what, "collection")
        found = client.collections.get(name)
        config = await ask(found.config.get)
        if config.multi_tenancy_config.enabled:
            tenants = list(await ask(found.tenants.get))
            tenant = chosen(tenant, tenants, f"{shown(name)} of {ask.what}", "tenant")
            found = found.with_tenant(tenant)
        elif tenant is not None:
            raise InvalidInputError(f"{shown(name)} has no tenants: leave tenant out.")  # noqa: TRY301
    except BaseException:
        await ask.close(client.close if client else None)
        raise
    label = f"weaviate {at} {name}" + (f"/{tenant}" if tenant is not None else "")
    return WeaviateSource(client, ask, found, config, label)


class WeaviateSource:
    """A collection of Weaviate's. Its objects are read in the order of their ids."""

    def __init__(self, client: Any, ask: Asker, collection: Any, config: Any, label: str) -> None:
        self.label = label
        self._client = client
        self._ask = ask
        self._collection = collection
        self._config = config
        self._vectors = vectors_of(config)
        self._named = set(self._vectors) != {UNNAMED}
        self._parts: dict[str, Any] = {
            "include_vector": list(self._vectors) if self._named else bool(self._vectors),
            # By their names, since blobs come by them alone.
            "return_properties": [_asked(each) for each in config.properties],
        }

    async def describe(self) -> SourceDescription:
        """What the collection's schema says, and its first objects of the dimensions."""
        counted = await self._ask(self._collection.aggregate.over_all, total_count=True)
        found = await self._ask(self._collection.query.fetch_objects, limit=_SAMPLE, **self._parts)
        dimensions: dict[str, int] = {}
        for each in found.objects:
            for name, vector in self._row(each).vectors.items():
                dimensions.setdefault(name, len(vector))
        return described(self._config, counted.total_count, dimensions)

    async def pages(self, after: Position, size: int) -> AsyncIterator[Page]:
        """All objects behind a position, which is an id."""
        size = min(size, _MOST)
        while True:
            found = await self._ask(
                self._collection.query.fetch_objects,
                limit=size,
                after=None if after is None else UUID(after),
                **self._parts,
            )
            rows = [self._row(each) for each in found.objects]
            after = str(rows[-1].id) if len(rows) == size else None
            yield Page(rows, after)
            if after is None:
                return

    async def get(self, ids: Sequence[SourceId]) -> list[SourceRow]:
        """These objects."""
        rows: list[SourceRow] = []
        for start in range(0, len(ids), _MOST):
            some = [UUID(str(each)) for each in ids[start : start + _MOST]]
            found = await self._ask(
                self._collection.query.fetch_objects,
                filters=Filter.by_id().contains_any(some),
                limit=len(some),
                **self._parts,
            )
            rows += [self._row(each) for each in found.objects]
        return rows

    async def nearest(self, vector: str, query: Any, limit: int) -> list[SourceId]:
        """What its own search finds: how far that looks is the collection's alone."""
        found = await self._ask(
            self._collection.query.near_vector,
            [float(each) for each in query],
            target_vector=vector if self._named else None,
            limit=limit,
            return_properties=[],
        )
        return [UUID(str(each.uuid)) for each in found.objects]

    def _row(self, found: Any) -> SourceRow:
        given: Mapping[str, Any] = found.vector or {}
        if not self._named and _DEFAULT in given:
            given = {UNNAMED: given[_DEFAULT]}
        vectors = {name: given[name] for name in self._vectors if given.get(name)}
        return SourceRow(UUID(str(found.uuid)), vectors, _plain(found.properties))

    async def close(self) -> None:
        """Close the client."""
        await self._ask.close(self._client.close)


def _opened(location: str, api_key: str | None, grpc: str | None, timeout_seconds: float) -> Any:
    parts = urlsplit(location)
    secure = parts.scheme == "https"
    host = cast("str", parts.hostname)
    cloud = host.endswith((".weaviate.cloud", ".weaviate.network"))
    there = urlsplit(f"//{grpc or (f'grpc-{host}:443' if cloud else f'{host}:50051')}")
    return weaviate.connect_to_custom(
        http_host=host,
        http_port=parts.port or (443 if secure else 80),
        http_secure=secure,
        grpc_host=there.hostname or host,
        grpc_port=there.port or 50051,
        grpc_secure=secure,
        auth_credentials=AuthApiKey(api_key) if api_key is not None else None,
        # They ask for its own newest version, elsewhere.
        skip_init_checks=True,
        additional_config=AdditionalConfig(
            timeout=Timeout(init=timeout_seconds, query=timeout_seconds)
        ),
    )


def _capital(name: str | None) -> str | None:
    """As Weaviate writes a collection's name."""
    return name[:1].upper() + name[1:] if name else name


def _asked(property_: Any) -> Any:
    nested = getattr(property_, "nested_properties", None)
    if not nested:
        return property_.name
    return QueryNested(name=property_.name, properties=[_asked(each) for each in nested])


def _plain(value: Any) -> Any:
    """Without the client's own classes."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, GeoCoordinate):
        return {"lat": value.latitude, "lon": value.longitude}
    if isinstance(value, PhoneNumber) or type(value).__name__ == "_PhoneNumber":
        return dict(vars(value))
    return value


def _fault_of(error: Exception) -> Fault | None:
    if isinstance(error, AuthenticationFailedError | InsufficientPermissionsError):
        return "denied"
    if isinstance(error, UnexpectedStatusCodeError):
        return fault_of_status(error.status_code)
    if isinstance(error, WeaviateQueryError):
        return fault_of_grpc(error)
    away = (
        WeaviateConnectionError
        | WeaviateStartUpError
        | WeaviateTimeoutError
        | WeaviateGRPCUnavailableError
        | WeaviateRetryError
        | httpx.TransportError
    )
    return "away" if isinstance(error, away) else None
