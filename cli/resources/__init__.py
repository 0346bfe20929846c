"""The commands of the resources of the API: `tidemark alerts list` and others, made from one table (`catalog`)."""
