"""What evaluates usage and facts, without gRPC."""
