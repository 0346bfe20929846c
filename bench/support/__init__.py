"""Load, clients and process stacks that the benchmarks share."""
