"""Robot data in and out: LeRobot data sets, statistics, latent cache, windows.

read        `hub` -> `lerobot_meta` (`lerobot_v2`, `lerobot_v3`, `tables`, `schema`) -> `dataset_meta` ->
            `lerobot_reader`, which takes rows from parquet and frames from `video`, `video_pool`, `pictures`;
            `recent` keeps what was read last, `errors` are what can be wrong
write       `lerobot_writer`, `export_gear`; `files` makes every write atomic;
            `interrupts` keeps Ctrl-C from processes that we start
check       `lint/`
prepare     `latent_cache`, `text_cache`, `stats`: computed once
            `picture_rows` stands in for latents that depend on their window
learn from  `windows` (cut by `filters`, told by `instructions`, columns by `vectors`) -> `window_sampler` ->
            `mixture` (several data sets in a batch) -> `ahead` (a step ahead of the training)
"""
