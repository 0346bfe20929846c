"""`make demo`: everything live on this machine, compared with a computation of its own."""
