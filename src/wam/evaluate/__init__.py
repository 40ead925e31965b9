"""Rollouts, statistics, baselines, comparisons and reports: every success rate that wam publishes comes from here.

play        `sources` (what a worker builds) -> `workers` -> `runner` -> `rollout`, or `realtime_rollout`
policies    ours; `baselines` (nothing, the expert); `remote`, `gr00t_client`, `remote_keys` (somebody's server);
            `learner` (DAgger)
count       `results` (a folder) -> `statistics` -> `summary`, `compare`
show        `report`, `page`, `figures`, `video`, `strips`, `wall`, `rerun_log`
imagine     `scenes` -> `imagination` -> `dreams`
trust       `provenance` (where a number comes from), `parity/` (are ours those of the released code?)
"""
