"""`tidemark listen`: a webhook receiver for developers."""
