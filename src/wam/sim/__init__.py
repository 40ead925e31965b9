"""Simulators: Meta-World environments, a fast software renderer, scripted experts, tasks and their sentences."""
