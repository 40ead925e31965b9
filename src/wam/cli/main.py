"""wam: one command, one file per verb. Each file holds a dataclass of options and `main(options)`."""

from __future__ import annotations

import importlib
import logging
import sys
from types import ModuleType
from typing import Any, NamedTuple

import tyro

from wam.data.errors import PLAIN


class Verb(NamedTuple):
    """A file of this folder, the name of its options, and a line for the overview."""

    options: str
    help: str


VERBS = {
    "demo": Verb("Demo", "watch a shipped nano model act from a sentence, beside what it dreams"),
    "play": Verb("Play", "a local page: choose a scene, say what to do, watch a model act and dream, interrupt it"),
    "collect": Verb("Collect", "record demonstrations of scripted experts as a LeRobot data set"),
    "data": Verb("Data", "check, measure, show and encode a data set"),
    "imagine": Verb("Imagine", "ask a model what will be seen, what it would do, or what was done"),
    "robot": Verb("Robot", "list the known robots, or draft the file of a new one from its data set"),
    "train-tokenizer": Verb("TrainTokenizer", "train the small video tokenizer on a data set's pictures"),
    "train": Verb("TrainConfig", "train a World Action Model on a LeRobot data set"),
    "finetune": Verb("FineTune", "adapt published weights to a robot, with adapters"),
    "eval": Verb("Eval", "measure success on unseen episodes, with intervals"),
    "compare": Verb("Compare", "compare evaluations on the same episodes, pair by pair"),
    "merge-lora": Verb("MergeLora", "merge an adapter into the weights that it was trained on"),
    "parity": Verb("Parity", "compare our numbers with those of the released code"),
    "serve": Verb("Serve", "serve a policy to robots: openpi, RoboArena and GR00T clients"),
    "bench": Verb("Bench", "time the engine rung by rung, stage by stage, and the loaders"),
    "inspect": Verb("Inspect", "say what a checkpoint is, and what is missing or does not fit"),
    "convert": Verb("Convert", "write a checkpoint in another layout or type"),
    "plan": Verb("PlanOptions", "memory, arithmetic and best possible speed of a model on a GPU"),
}


SAME = "the same command goes on where it was"
GOES_ON = {
    "collect": SAME,
    "convert": SAME,
    "data encode": SAME,
    "eval": SAME,
    "finetune": "the same command goes on from its last checkpoint",
    "train": "the same command goes on from its last checkpoint",
    "train-tokenizer": "with --resume the same command goes on from its last checkpoint, if it has one",
}
"""What a verb, or verb and sub-verb, leaves to go on from when it is stopped."""


def main(arguments: list[str] | None = None) -> None:
    """Run `wam VERB ...`.

    Exit code 2 for an unknown verb, 1 for an error that names its cause, 130 for Ctrl-C. Any other error is a fault of
    ours and keeps its traceback.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return
    verb, *rest = arguments
    if verb not in VERBS:
        print(f"wam: unknown verb {verb!r}\n\n{_usage()}", file=sys.stderr)
        sys.exit(2)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("torchao", "torch.utils._pytree"):  # where installed, torchao greets every import of diffusers
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        module, options = parsed(verb, rest)
        _check_device(options)
        module.main(options)
    except PLAIN as error:
        print(f"wam {verb}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        goes_on = GOES_ON.get(verb) or GOES_ON.get(" ".join(arguments[:2]))
        print(f"wam {verb}: stopped{f'; {goes_on}' if goes_on else ''}", file=sys.stderr)
        sys.exit(130)


def parsed(verb: str, arguments: list[str]) -> tuple[ModuleType, Any]:
    """The verb's file and its options; exits with code 2, as tyro does, for arguments that nobody understands."""
    module = importlib.import_module(f"wam.cli.{verb.replace('-', '_')}")
    if hasattr(module, "parse"):  # a verb whose options depend on each other
        return module, module.parse(arguments)
    kind = getattr(module, VERBS[verb].options)
    return module, tyro.cli(kind, args=arguments, prog=f"wam {verb}", description=module.__doc__)


def _check_device(options: Any) -> None:
    """Raises ValueError for a --device that torch does not know or this machine lacks, before any work."""
    device = getattr(getattr(options, "loop", options), "device", "cpu")
    if device == "cpu":
        return
    import torch  # takes seconds

    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"--device {device}: unknown to torch; expected cpu, cuda, cuda:1, ...") from error
    count = torch.cuda.device_count()
    if wanted.type == "cuda" and (wanted.index or 0) >= count:
        raise ValueError(f"--device {device}: torch finds {count} CUDA devices here; choose another, or cpu")


def _usage() -> str:
    width = max(map(len, VERBS)) + 2
    lines = [f"  {name:<{width}}{verb.help}" for name, verb in VERBS.items()]
    return "usage: wam VERB [options]    (wam VERB --help shows options and an example)\n\n" + "\n".join(lines)


if __name__ == "__main__":
    main()
