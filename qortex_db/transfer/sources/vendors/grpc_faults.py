"""What an error of gRPC says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qortex_db.transfer.sources.vendors.asking import Fault

_FAULTS: Final[Mapping[grpc.StatusCode, Fault]] = {
    grpc.StatusCode.UNAVAILABLE: "away",
    grpc.StatusCode.DEADLINE_EXCEEDED: "away",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "busy",
    grpc.StatusCode.ABORTED: "busy",
    grpc.StatusCode.UNAUTHENTICATED: "denied",
    grpc.StatusCode.PERMISSION_DENIED: "denied",
    grpc.StatusCode.NOT_FOUND: "missing",
    grpc.StatusCode.UNIMPLEMENTED: "invalid",
}


def fault_of_grpc(error: BaseException | None) -> Fault | None:
    """What the error says, or the one that it was raised for."""
    while error is not None:
        if isinstance(error, grpc.RpcError) and hasattr(error, "code"):
            return _FAULTS.get(error.code())
        error = error.__cause__ or error.__context__
    return None
