"""What a robot's pictures and numbers mean.

one robot   `embodiment` (its file), `embodiment_checks`, `observation` (one look), `released` (robots of DreamZero)
pictures    `canvas`, `chroma`, `preprocess`
numbers     `units`, `normalization`
first file  `draft`, `draft_parts`, `draft_views`, `draft_yaml`; `fill_yaml` puts statistics in
"""
