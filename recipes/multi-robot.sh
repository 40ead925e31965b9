#!/usr/bin/env bash
# One model for several robots: Meta-World's Sawyer, the Panda of LIBERO, two Pandas of robosuite, and videos of a UR5e
# whose actions nobody looks at. Records a few demonstrations of each, drafts the files of the new robots, checks the
# data against them, trains everything in one run, and prints the losses robot by robot.
# Steps that are done are not done again. The arguments FOLDER 4 0.5 took three minutes of one core; the model learns to
# be measured, not to succeed.
# Usage: recipes/multi-robot.sh [FOLDER] [EPISODES OF EACH ROBOT, at least 4] [MINUTES OF TRAINING]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/multi-robot}
episodes=${2:-8}
minutes=${3:-3}
half=$(((episodes + 1) / 2))
wam=.venv/bin/wam
[ -x "$wam" ] || make setup
.venv/bin/python -c "import importlib.util as u, sys; sys.exit(not u.find_spec('robosuite'))" ||
  .venv/bin/pip install --quiet -e ".[arms]" # robosuite and LIBERO
mkdir -p "$out"

collect() { # name, options...
  [ -f "$out/$1/meta/stats.json" ] || "$wam" collect --out "$out/$1" --workers 1 "${@:2}"
}
collect metaworld --tasks reach drawer-open --episodes-per-task "$half"
collect libero --env libero --tasks libero_object/0 libero_object/5 --episodes-per-task "$half"
collect two-arms --env robosuite --tasks TwoArmLift --episodes-per-task "$episodes"
collect ur5e --env robosuite --tasks Lift/UR5e --episodes-per-task "$episodes"

# Members of one mixture have the same canvas and the same chunk: two cells of 64 x 64, and 8 actions. What they do not
# share is the meaning of these 8 rows: 0.2 s of Meta-World, 0.4 s of the others.
draft() { # name, options...
  [ -f "$out/$1.yaml" ] || "$wam" robot new --from-dataset "$out/$1" --out "$out/$1.yaml" \
    --view 64 64 --video-stride 2 --frames-per-chunk 1 "${@:2}"
}
draft libero --name libero
draft two-arms --name two-arms
draft ur5e --name ur5e-video --video-only
"$wam" data lint "$out/metaworld" --embodiment metaworld-sawyer
for name in libero two-arms ur5e; do "$wam" data lint "$out/$name" --embodiment "$out/$name.yaml"; done

cat >"$out/mixture.yaml" <<END
- {data: $out/metaworld, embodiment: metaworld-sawyer}
- {data: $out/libero, embodiment: $out/libero.yaml}
- {data: $out/two-arms, embodiment: $out/two-arms.yaml}
- {data: $out/ur5e, embodiment: $out/ur5e.yaml, video_only: true, weight: 0.5}
END
"$wam" train --data "$out/mixture.yaml" --tokenizer src/wam/shipped/nano-metaworld/tokenizer --out "$out/run" \
  --size.dim 128 --size.layers 4 --batch 14 --windows.validation-share 0.3 --minutes "$minutes" \
  --validation.steps 1 --validation-minutes 1 --threads 1 --precision float32

.venv/bin/python - "$out/run/log.jsonl" <<'END'
import json, sys

lines = [json.loads(line) for line in open(sys.argv[1])]
for line in (line for line in lines if "validation" in line):
    print(f"step {line['step']}, episodes held out of training:")
    scores = line["validation"]
    for name, robot in scores["embodiments"].items():
        action = "video only"
        if "action" in robot:
            action = f"action loss {robot['action']:.3f}, error {robot['action_error']['1']:.3f}"
            action += f" (holding the mean {robot['hold_mean']:.3f})"
        print(f"  {name:<18} video loss {robot['video']:.3f}, {action}")
END
