"""Weaviate's REST and gRPC, with the messages that come with its client."""

from __future__ import annotations

import bisect
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc
import numpy as np
from weaviate.proto.v1 import (
    aggregate_pb2,
    base_pb2,
    properties_pb2,
    search_get_pb2,
    tenants_pb2,
    weaviate_pb2_grpc,
)

from support.sources.http import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from support.sources.http import Request, Served

Objects = dict[UUID, tuple[dict[str, Any], dict[str, Any]]]
"""Vectors by their names, and properties with their types: `("int", 5)`."""


def value_of(kind: str, value: Any) -> properties_pb2.Value:
    """A property on the wire."""
    lists = properties_pb2.ListValue
    match kind:
        case "object":
            return properties_pb2.Value(object_value=properties_of(value))
        case "object[]":
            values = [properties_of(each) for each in value]
            of = lists(object_values=properties_pb2.ObjectValues(values=values))
        case "int[]":
            sent = np.asarray(value, "<i8").tobytes()
            of = lists(int_values=properties_pb2.IntValues(values=sent))
        case "text[]":
            of = lists(text_values=properties_pb2.TextValues(values=value))
        case "geo":
            geo = properties_pb2.GeoCoordinate(latitude=value[0], longitude=value[1])
            return properties_pb2.Value(geo_value=geo)
        case "phone":
            return properties_pb2.Value(phone_value=properties_pb2.PhoneNumber(**value))
        case "null":
            return properties_pb2.Value(null_value=0)
        case _:
            return properties_pb2.Value(**{f"{kind}_value": value})
    return properties_pb2.Value(list_value=of)


def properties_of(typed: Mapping[str, tuple[str, Any]]) -> properties_pb2.Properties:
    return properties_pb2.Properties(fields={name: value_of(*each) for name, each in typed.items()})


class Servicer(weaviate_pb2_grpc.WeaviateServicer):
    """Searches in dictionaries of objects.

    Attributes:
        failures: Codes of the next answers.
    """

    def __init__(self, collections: Mapping[tuple[str, str], Objects]) -> None:
        self.collections = collections
        self.failures: list[grpc.StatusCode] = []

    def Search(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        if self.failures:
            context.abort(self.failures.pop(0), "as the test has it")
        objects = self.collections[request.collection, request.tenant]
        if request.HasField("near_vector"):
            ids = self._nearest(objects, request.near_vector)[: request.limit]
        elif request.HasField("filters"):
            wanted = request.filters.value_text_array.values
            ids = [UUID(each) for each in wanted if UUID(each) in objects]
        else:
            ids = sorted(objects)
            start = bisect.bisect_right(ids, UUID(request.after)) if request.after else 0
            ids = ids[start : start + request.limit]
        return search_get_pb2.SearchReply(
            results=[self._result(request, each, objects[each]) for each in ids]
        )

    def _result(self, request: Any, key: UUID, stored: Any) -> Any:
        vectors, properties = stored
        metadata = search_get_pb2.MetadataResult(id=str(key), id_as_bytes=key.bytes)
        asked = request.metadata
        if asked.vector and "" in vectors:
            metadata.vector_bytes = np.asarray(vectors[""], "<f4").tobytes()
        for name in asked.vectors or (vectors if asked.vector else ()):
            if name and name in vectors:
                metadata.vectors.append(
                    base_pb2.Vectors(
                        name=name,
                        vector_bytes=np.asarray(vectors[name], "<f4").tobytes(),
                        type=base_pb2.Vectors.VECTOR_TYPE_SINGLE_FP32,
                    )
                )
        names = {*request.properties.non_ref_properties} | {
            each.prop_name for each in request.properties.object_properties
        }
        shown = {name: each for name, each in properties.items() if name in names}
        return search_get_pb2.SearchResult(
            metadata=metadata,
            properties=search_get_pb2.PropertiesResult(non_ref_props=properties_of(shown)),
        )

    def _nearest(self, objects: Objects, near: Any) -> list[UUID]:
        name = near.targets.target_vectors[0] if near.targets.target_vectors else ""
        sent = near.vector_bytes
        if near.vector_for_targets:
            sent = near.vector_for_targets[0].vectors[0].vector_bytes
        elif near.vectors:
            sent = near.vectors[0].vector_bytes
        query = np.frombuffer(sent, "<f4")
        ids = [key for key, (vectors, _) in objects.items() if name in vectors]
        scores = np.array([objects[key][0][name] for key in ids]) @ query
        return [ids[each] for each in np.argsort(-scores)]

    def Aggregate(self, request: Any, _: object) -> Any:  # noqa: N802
        count = len(self.collections[request.collection, request.tenant])
        single = aggregate_pb2.AggregateReply.Single(objects_count=count)
        return aggregate_pb2.AggregateReply(single_result=single)

    def TenantsGet(self, request: Any, _: object) -> Any:  # noqa: N802
        names = [tenant for name, tenant in self.collections if name == request.collection]
        active = tenants_pb2.TENANT_ACTIVITY_STATUS_ACTIVE
        return tenants_pb2.TenantsGetReply(
            tenants=[tenants_pb2.Tenant(name=each, activity_status=active) for each in names]
        )


@contextmanager
def serving_collections(
    schemas: list[dict[str, Any]], collections: Mapping[tuple[str, str], Objects]
) -> Iterator[tuple[Served, str, Servicer]]:
    """A server; the REST part, the address of its gRPC, and what answers that."""

    def answer(request: Request) -> tuple[int, Any]:
        match request.path.strip("/").split("/"):
            case ["v1", "meta"]:
                return 200, {"version": "1.32.0", "hostname": "test", "modules": {}}
            case ["v1", "schema"]:
                return 200, {"classes": schemas}
            case ["v1", "schema", name]:
                found = [each for each in schemas if each["class"] == name]
                return (200, found[0]) if found else (404, {})
        return 404, {}

    servicer = Servicer(collections)
    server = grpc.server(ThreadPoolExecutor(2))
    weaviate_pb2_grpc.add_WeaviateServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with serving(answer) as served:
            yield served, f"127.0.0.1:{port}", servicer
    finally:
        server.stop(None).wait(5)
