"""What OpenTelemetry measured, as numbers that tests compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader


class Measured:
    """All metrics at one moment, by their names and labels."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._points: dict[tuple[str, frozenset[tuple[str, Any]]], Any] = {}
        data = reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        key = metric.name, frozenset((point.attributes or {}).items())
                        self._points[key] = point
        self._before: Measured | None = None

    def __sub__(self, before: Measured) -> Measured:
        """What came between two moments."""
        self._before = before
        return self

    def _found(self, name: str, labels: dict[str, Any]) -> list[tuple[Any, Any]]:
        earlier = {} if self._before is None else self._before._points
        return [
            (point, earlier.get(key))
            for key, point in self._points.items()
            if key[0] == name and labels.items() <= dict(key[1]).items()
        ]

    def value(self, name: str, **labels: Any) -> Any:
        """Of a counter or gauge, over all labels besides."""
        found = self._found(name, labels)
        assert found, f"{name} was not measured"
        return sum(now.value - (before.value if before else 0) for now, before in found)

    def count(self, name: str, **labels: Any) -> int:
        """How many a histogram has."""
        found = self._found(name, labels)
        return sum(now.count - (before.count if before else 0) for now, before in found)

    def sum(self, name: str, **labels: Any) -> float:
        """What they come to."""
        found = self._found(name, labels)
        return sum(now.sum - (before.sum if before else 0) for now, before in found)

    def labels(self, name: str) -> list[dict[str, Any]]:
        """Of what was measured, in order."""
        changed = [
            dict(key[1])
            for key, point in self._points.items()
            if key[0] == name
            and not (self._before is not None and _same(point, self._before._points.get(key)))
        ]
        return sorted(changed, key=lambda labels: sorted(map(str, labels.items())))

    def names(self) -> set[str]:
        return {name for name, _ in self._points}

    def bounds(self, name: str) -> tuple[float, ...] | None:
        """Of a histogram's buckets; None where it has none yet."""
        found = self._found(name, {})
        return tuple(found[0][0].explicit_bounds) if found else None

    def bucket(self, name: str, share: float, **labels: Any) -> tuple[float, float]:
        """The bounds of the bucket that a percentile is in."""
        ((point, _),) = self._found(name, labels)
        wanted = share * point.count
        edges = (0.0, *point.explicit_bounds, float("inf"))
        seen = 0
        for index, count in enumerate(point.bucket_counts):
            seen += count
            if seen >= wanted:
                return edges[index], edges[index + 1]
        raise AssertionError


def _same(now: Any, before: Any) -> bool:
    return all(getattr(now, part, 0) == getattr(before, part, 0) for part in ("count", "value"))
