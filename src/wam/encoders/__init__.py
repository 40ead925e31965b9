"""Frozen networks that turn pictures and sentences into what the transformer reads: video latents and text features."""

FRAMES_PER_LATENT = 4
"""Raw frames per latent frame, after the first: the temporal compression of every video tokenizer here."""
