"""What a model costs before it runs: arithmetic, memory, and what a GPU can do with them."""
