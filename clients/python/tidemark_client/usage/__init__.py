"""Usage events on their way to the server: batches, streams that survive interruptions, and writers above them."""
