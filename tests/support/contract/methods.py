"""The methods of the contract by what they do."""

from google.protobuf.descriptor import MethodDescriptor

from proto.documents.contract import METHODS

UNARY: list[MethodDescriptor] = [
    method for method in METHODS if not method.client_streaming and not method.server_streaming
]
MUTATING = [method for method in UNARY if not method.name.startswith(("Explain", "Get", "List", "Summarize"))]
LISTS = [method for method in UNARY if method.name.startswith("List")]

NOT_VALIDATED = {
    "EvaluateUsageBatch": "it is the unary twin of the stream, and each event in it is refused or counted for itself",
}
