"""`tidemark demo`: everything live, and checked against a computation that knows nothing of the evaluator."""
