"""Weights on disk, ours and other projects': what they are, what they call things, and networks made of them.

find        `source` (a name -> files here) -> `recognise` (which project's layout) -> `licence`, `statistics`
open        `files`, `lazy`, `weights` (tensors without loading them), `inspection` (what headers tell)
translate   `names`, `component_names` (two-way and strict), `component_sizes`, `presets`
load        `checked` (held against the network first) -> `load`;  `identity` (which weights are these?)
write       `targets` (how a layout looks) -> `shards`, `save`, `convert`, `card`
adapters    `lora`, `lora_files`, `merge_files`
our own     `model_folder`: what `wam train` writes and everything else reads;  `errors`: what can be wrong
"""
