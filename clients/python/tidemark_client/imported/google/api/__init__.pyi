try:
    from google.api import annotations_pb2 as annotations_pb2, field_behavior_pb2 as field_behavior_pb2, http_pb2 as http_pb2
except ImportError:
    from tidemark_client.carried.google.api import annotations_pb2 as annotations_pb2, field_behavior_pb2 as field_behavior_pb2, http_pb2 as http_pb2
