"""Weights of other projects: names, sizes and proof that they mean the same here."""
