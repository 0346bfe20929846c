"""What organizations share in one process, and how much of it each of them may take."""
