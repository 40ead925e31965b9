"""What a robot's pictures and numbers mean.

`embodiment` (one robot, one file), `observation` (one look) -> `canvas`, `chroma`, `preprocess` (pictures);
`units`, `normalization` (numbers).  `draft`, `draft_parts`, `draft_views`, `draft_yaml` write a first file;
`released`: robots of DreamZero.
"""
