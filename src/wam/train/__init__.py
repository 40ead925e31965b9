"""Training loops: of the world action model and of the nano tokenizer."""
