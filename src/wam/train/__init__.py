"""Training: of the World Action Model, and of the nano tokenizer that shows it pictures.

configure   `config`, `fields`, `stages` (several runs in a row)
build       `sources` (data sets -> windows), `start` (an initial model), `adapt` (what of it learns) -> `build`
run         `trainer`: windows -> noise -> loss -> step; `chance`, `schedule` and `parallel` say how
published   `finetune`: the same of weights that somebody else published; `window_encoder` sees for them
keep        `state` -> `checkpoint`; `provenance` refuses to continue something else
look        `validation`, `open_loop`, `samples`, `plot`, `trackers`
tokenizer   `tokenizer`, `tokenizer_frames`, `tokenizer_validation`
"""
