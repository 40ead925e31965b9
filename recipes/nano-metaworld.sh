#!/usr/bin/env bash
# The whole road from nothing to a robot that dreams and acts: MT10 of Meta-World on two CPU cores.
# Every step continues where it was stopped when the script is run again. Usage: recipes/nano-metaworld.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/nano-metaworld}
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

# Demonstrations: many distinct initial states for the four tasks that need precision, fewer for the six easy ones; then
# some in which the arm is led astray and recovers.
step collect "$wam" collect --out "$out/data" --tasks mt10 --episodes-per-task 110 \
  --more reach 400 push 400 pick-place 400 peg-insert-side 400 \
  --detours reach 100 push 200 pick-place 200 peg-insert-side 200 button-press-topdown 40 window-open 40 \
  --workers 2 --seed 0

# The video tokenizer starts from the principal components of the pictures and then learns.
[ -f "$out/tokenizer/report.json" ] ||
  step train-tokenizer "$wam" train-tokenizer --data "$out/data" --out "$out/tokenizer" --minutes 30 --batch 8 --threads 1

# The joint model, and its control: the same network without video tokens to denoise, for the same time, on the other core.
train() {
  "$wam" train --data "$out/data" --tokenizer "$out/tokenizer" --minutes 85 --threads 1 --compile --noise.mode coupled --out "$@"
}
"$wam" train --data "$out/data" --tokenizer "$out/tokenizer" --out "$out/encode" --steps 1 --threads 2
both() {
  train "$out/joint" --noise.video-at-noise 0.4 --see-previous &
  local joint=$!
  train "$out/bc" --no-dream
  wait "$joint"
}
step train both

# The checkpoint rule: the averaged weights at the end of the budget. One denoising step was chosen on the validation
# split; nothing is chosen on the test split.
evaluate() { step "eval-$1" "$wam" eval --tasks mt10 --split test --episodes 50 --label "$1" --out "$out/eval/$1" "${@:2}"; }
evaluate joint "$out/joint/model" --steps 1 --film-failures 1
evaluate bc "$out/bc/model" --steps 1
evaluate joint-4-steps "$out/joint/model" --steps 4
evaluate pinned-4-steps "$out/joint/model" --steps 4 --video-final 1
evaluate hold --policy constant-hold
"$wam" compare "$out/eval/joint" "$out/eval/bc"
"$wam" compare "$out/eval/joint-4-steps" "$out/eval/pinned-4-steps"
echo "== times"
cat "$out/times.tsv"
