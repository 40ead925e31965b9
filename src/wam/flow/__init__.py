"""Noise levels, objectives and solvers of flow matching, in one convention: sigma 0 is clean, 1 is noise."""
