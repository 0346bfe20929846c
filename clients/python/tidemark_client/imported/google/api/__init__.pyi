from tidemark_client.carried.google.api import annotations_pb2 as annotations_pb2
from tidemark_client.carried.google.api import field_behavior_pb2 as field_behavior_pb2
from tidemark_client.carried.google.api import http_pb2 as http_pb2
