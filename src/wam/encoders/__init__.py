"""Frozen networks that turn pictures and sentences into what the transformer reads: video latents and text features."""
