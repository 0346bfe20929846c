from tidemark_client.carried.google.rpc import error_details_pb2 as error_details_pb2
from tidemark_client.carried.google.rpc import status_pb2 as status_pb2
