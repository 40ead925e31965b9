"""Weights of other projects: what they call things, and what sizes they have."""
