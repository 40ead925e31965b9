"""What a model costs: counted before it runs, and measured.

counted     `subject` -> `flops`, `memory`, `training` -> `planner`; `hardware` (data sheets)
acting      `rungs`, `ladder`, `naive`, `successes` (what every saving brings); `latency`, `limit`
released    `against_release`, `released_calls` (their algorithm, our weights), `published` (on a GPU)
training    `train_step`, `loader`, `lerobot_loader`;  inputs: `episodes`, `random_inputs`
"""
