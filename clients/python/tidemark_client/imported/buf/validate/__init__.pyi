try:
    from buf.validate import validate_pb2 as validate_pb2
except ImportError:
    from tidemark_client.carried.buf.validate import validate_pb2 as validate_pb2
