"""What a robot's pictures and numbers mean: observations, the embodiment file, the canvas of views, normalisation."""
