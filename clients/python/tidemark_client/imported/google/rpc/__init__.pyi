try:
    from google.rpc import error_details_pb2 as error_details_pb2, status_pb2 as status_pb2
except ImportError:
    from tidemark_client.carried.google.rpc import error_details_pb2 as error_details_pb2, status_pb2 as status_pb2
