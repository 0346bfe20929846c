"""The methods of the contract by what they do."""

from google.protobuf.descriptor import MethodDescriptor

from proto.documents.contract import METHODS

READS = ("BatchCheck", "Check", "Explain", "Get", "List", "Preview", "Summarize")

UNARY: list[MethodDescriptor] = [
    method for method in METHODS if not method.client_streaming and not method.server_streaming
]
MUTATING = [method for method in UNARY if not method.name.startswith(READS)]
LISTS = [method for method in UNARY if method.name.startswith("List")]

NOT_VALIDATED = {
    "EvaluateUsageBatch": "it is the unary twin of the stream, and each event in it is refused or counted for itself",
    "ReserveUsage": "CheckUsage answers what it would decide",
    "SettleReservation": "what happened is counted, whatever the answer would be",
    "ReleaseReservation": "it can be refused only because of the state of a reservation, which GetReservation shows",
    "ExtendReservation": "it can be refused only because of the state of a reservation, which GetReservation shows",
}
