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

# Demonstrations: many distinct initial states for the four tasks that need precision, fewer for the six easy ones.
step collect "$wam" collect --out "$out/data" --tasks mt10 --episodes-per-task 110 \
  --more reach 400 push 400 pick-place 400 peg-insert-side 400 --workers 2 --seed 0

# The video tokenizer starts from the principal components of the pictures and then learns for a few minutes.
[ -f "$out/tokenizer/report.json" ] ||
  step train-tokenizer "$wam" train-tokenizer --data "$out/data" --out "$out/tokenizer" --minutes 11 --batch 8 --threads 1

# The joint model, and its control: the same network without video tokens to denoise, for the same time, on the other core.
train() { "$wam" train --data "$out/data" --tokenizer "$out/tokenizer" --minutes 62 --threads 1 --compile --out "$@"; }
"$wam" train --data "$out/data" --tokenizer "$out/tokenizer" --out "$out/encode" --steps 1 --threads 2
both() { train "$out/joint" & local joint=$!; train "$out/bc" --no-dream; wait "$joint"; }
step train both

# The checkpoint rule: the averaged weights at the end of the budget. Nothing is chosen on the test split.
for name in joint bc; do
  step "eval-$name" "$wam" eval "$out/$name/model" --tasks mt10 --split test --episodes 50 --out "$out/eval/$name" --film-failures 1
done
step eval-pinned "$wam" eval "$out/joint/model" --video-final 1 --label pinned --out "$out/eval/pinned"
step eval-hold "$wam" eval --policy constant-hold --out "$out/eval/hold"
"$wam" compare "$out/eval/joint" "$out/eval/bc" "$out/eval/pinned" "$out/eval/hold"
echo "== times"
cat "$out/times.tsv"
