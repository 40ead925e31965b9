"""One file per dialect: pure functions from a request to what it asks, and from an answer to its bytes. No sockets."""
