"""`tidemark trigger`: test events on demand."""
