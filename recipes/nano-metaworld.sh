#!/usr/bin/env bash
# The whole road from nothing to a robot that dreams and acts: MT10 of Meta-World on two CPU cores.
# Every step continues where it was stopped when the script is run again.
# Usage: recipes/nano-metaworld.sh [FOLDER] [SHARE]
#   SHARE of the episodes and minutes, 1 by default; 0.02 tries the whole road in a quarter of an hour and learns little.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/nano-metaworld}
share=${2:-1}
wam=.venv/bin/wam
[ -x "$wam" ] || make setup
mkdir -p "$out"

step() {  # name, command...: run it and say how long it took
  local name=$1 began=$SECONDS
  shift
  echo "== $name: $*"
  "$@"
  printf '%s\t%d s\n' "$name" $((SECONDS - began)) | tee -a "$out/times.tsv"
}

episodes() { awk -v n="$1" -v s="$share" 'BEGIN { n = int(n * s + 0.999); print (n < 2 ? 2 : n) }'; }
minutes() { awk -v n="$1" -v s="$share" 'BEGIN { print n * s }'; }

# Demonstrations: many distinct initial states for the four tasks that need precision, fewer for the six easy ones; then
# some in which the arm is led astray and recovers.
many=$(episodes 400) astray=$(episodes 200) some=$(episodes 100) few=$(episodes 40)
step collect "$wam" collect --out "$out/data" --tasks mt10 --episodes-per-task "$(episodes 110)" \
  --more reach "$many" push "$many" pick-place "$many" peg-insert-side "$many" \
  --detours reach "$some" push "$astray" pick-place "$astray" peg-insert-side "$astray" \
  button-press-topdown "$few" window-open "$few" --workers 2 --seed 0

# The video tokenizer starts from the principal components of the pictures and then learns.
resume=()
[ -f "$out/tokenizer/checkpoint.safetensors" ] && resume=(--resume)
[ -f "$out/tokenizer/report.json" ] ||
  step train-tokenizer "$wam" train-tokenizer --data "$out/data" --out "$out/tokenizer" --minutes "$(minutes 30)" \
    --batch 8 --threads 1 ${resume[@]+"${resume[@]}"}  # bash 3 knows no empty array
step encode "$wam" data encode "$out/data" --tokenizer "$out/tokenizer" --embodiment metaworld-sawyer

# The joint model, and its control: the same network without video tokens to denoise, for the same time, on the other core.
train() {
  "$wam" train --data "$out/data" --tokenizer "$out/tokenizer" --minutes "$(minutes 85)" --threads 1 --compile \
    --noise.mode coupled --out "$@"
}
both() {
  train "$out/joint" --noise.video-at-noise 0.4 --see-previous &
  local joint=$!
  train "$out/bc" --no-dream
  wait "$joint"
}
step train both

# The Flash stage: an adapter on the joint model that learns to act while the video is still noise.
step flash "$wam" train --data "$out/data" --init "$out/joint/model" --adapt.what lora --noise.mode flash \
  --noise.action-at-noise 0.5 --noise.video-at-noise 0.5 --optimizer.learning-rate 5e-4 --optimizer.warmup-steps 50 \
  --minutes "$(minutes 18)" --threads 1 --compile --out "$out/flash"

# The checkpoint rule: the averaged weights at the end of the budget. One denoising step was chosen on the validation
# split; nothing is chosen on the test split.
evaluate() {
  step "eval-$1" "$wam" eval --tasks mt10 --split test --episodes "$(episodes 50)" --label "$1" --out "$out/eval/$1" "${@:2}"
}
evaluate joint "$out/joint/model" --steps 1 --film-failures 1
evaluate bc "$out/bc/model" --steps 1
evaluate flash "$out/flash/model" --steps 1
evaluate joint-4-steps "$out/joint/model" --steps 4
evaluate pinned-4-steps "$out/joint/model" --steps 4 --video-final 1
evaluate hold --policy constant-hold
step compare "$wam" compare "$out/eval/joint" "$out/eval/bc"
step compare-flash "$wam" compare "$out/eval/joint-4-steps" "$out/eval/flash"
step compare-pinned "$wam" compare "$out/eval/joint-4-steps" "$out/eval/pinned-4-steps"
step demo "$wam" demo "$out/joint/model" --out "$out/demo"
echo "== times"
cat "$out/times.tsv"
