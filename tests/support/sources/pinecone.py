"""Pinecone's data plane, in its documented REST."""

from __future__ import annotations

import base64
import bisect
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from support.sources.http import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from support.sources.http import Request, Served


@contextmanager
def serving_index(
    namespaces: Mapping[str, dict[str, dict[str, Any]]], **stats: Any
) -> Iterator[Served]:
    """An index with these vectors in its namespaces, as JSON; ids are listed in their order."""

    def answer(request: Request) -> tuple[int, Any]:
        name = (request.query.get("namespace") or [""])[0]
        if request.body:
            name = request.body.get("namespace", "")
        vectors = namespaces.get(name or "__default__", {})
        match request.method, request.path:
            case "POST", "/describe_index_stats":
                counts = {each: {"vectorCount": len(of)} for each, of in namespaces.items()}
                total = sum(map(len, namespaces.values()))
                return 200, {"namespaces": counts, "totalVectorCount": total} | stats
            case "GET", "/vectors/list":
                limit = int(request.query.get("limit", ["100"])[0])
                assert limit <= 100
                ids = sorted(vectors)
                start = 0
                if "paginationToken" in request.query:
                    token = json.loads(base64.b64decode(request.query["paginationToken"][0]))
                    start = bisect.bisect_right(ids, token["skip_past"])
                listed = ids[start : start + limit]
                answer = {"vectors": [{"id": each} for each in listed], "namespace": name}
                if start + limit < len(ids):
                    token = json.dumps({"skip_past": listed[-1]}).encode()
                    answer["pagination"] = {"next": base64.b64encode(token).decode()}
                return 200, answer
            case "GET", "/vectors/fetch":
                found = {each: vectors[each] for each in request.query["ids"] if each in vectors}
                return 200, {"vectors": found, "namespace": name}
            case "POST", "/query":
                query = np.array(request.body["vector"])
                scores = {
                    key: float(query @ each["values"])
                    for key, each in vectors.items()
                    if each.get("values")
                }
                best = sorted(scores, key=scores.__getitem__, reverse=True)
                matches = [
                    {"id": key, "score": scores[key]} for key in best[: request.body["topK"]]
                ]
                return 200, {"matches": matches, "namespace": name}
        return 404, {"error": {"code": "NOT_FOUND", "message": request.path}, "status": 404}

    with serving(answer) as served:
        yield served
