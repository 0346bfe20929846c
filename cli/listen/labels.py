"""The labels of endpoints of `tidemark listen`, which are there only as long as it runs."""

LISTEN_LABEL = "tidemark.listen"  # its value stands for the machine
PROCESS_LABEL = "tidemark.listen.process"
