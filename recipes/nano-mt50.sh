#!/usr/bin/env bash
# One small World Action Model for all 50 tasks of Meta-World, from nothing, on two CPU cores; in variants:
#   fair    as published evaluations have it: 50 demonstrations per task, one camera from the corner, a 4-d state and action
#   helped  what helps: two cameras that suit the tasks, more demonstrations where precision counts, and some in which the
#           arm is led astray and recovers
# and, from the finished model of either,
#   dagger-fair, dagger-helped   the same model trained on, with demonstrations that it began and the expert finished,
#                                most of the tasks at which it failed in validation, beside all old ones
# The script stops after MINUTES with code 75; the same command goes on where it was.
# Usage: recipes/nano-mt50.sh [FOLDER] [SHARE] [MINUTES] [VARIANTS]
#   SHARE of the episodes and steps, 1 by default; 0.02 tries the whole road and learns nothing.  MINUTES: 110.
#   VARIANTS: "fair helped"; then "dagger-fair dagger-helped".
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/nano-mt50}
share=${2:-1}
deadline=$((SECONDS + 60 * ${3:-110}))
[ -x .venv/bin/wam ] || make setup
mkdir -p "$out"
export OMP_NUM_THREADS=1  # two processes on two cores, everywhere

# Fixed before anything was trained, and not to be chosen by test results: seeds, budgets, and the checkpoint, which is
# the averaged weights at the end of the budget. How the model acts is chosen on validation episodes (step "modes").
data_seed=0 train_seed=0
declare -A tokenizer_steps=([fair]=8000 [helped]=5000)
declare -A train_steps=([fair]=9500 [helped]=8500)  # of 32 windows for every process
declare -A processes=([fair]=1 [helped]=2)
declare -A at_noise=([fair]=0.25 [helped]=0.5)  # share of the actions at pure noise, from which a policy of one step acts
dagger_steps=3000
variants=${4:-fair helped}
declare -A embodiment=([fair]=metaworld-corner2 [helped]=metaworld-sawyer)

count() { awk -v n="$1" -v s="$share" -v least="${2:-2}" 'BEGIN { n = int(n * s + 0.999); print (n < least ? least : n) }'; }

in_time() {  # command...: until the deadline; code 124 says that it was reached
  local left=$((deadline - SECONDS))
  [ "$left" -gt 30 ] || return 124
  timeout --foreground --signal TERM "$left" "$@"
}

wam() { in_time .venv/bin/wam "$@"; }

step() {  # name, command...: run it once, say how long it took
  local name=$1 began=$SECONDS code=0
  shift
  [ -f "$out/done/$name" ] && return
  echo "== $name: $*"
  "$@" || code=$?
  printf '%s\t%d s\tcode %d\n' "$name" $((SECONDS - began)) "$code" | tee -a "$out/times.tsv"
  case $code in
    0) mkdir -p "$out/done" && touch "$out/done/$name" ;;
    124) echo "== $name goes on when the same command is given again" && exit 75 ;;
    *) exit "$code" ;;
  esac
}

side_by_side() {  # function, variants...: run it for each of them, one core each
  local work=$1 code=0 running=() variant process
  shift
  for variant in "$@"; do (step "$work-$variant" "$work" "$variant") & running+=($!); done
  for process in "${running[@]}"; do wait "$process" || code=$?; done
  [ "$code" = 0 ] || exit "$code"
}

collect_fair() {
  wam collect --out "$out/data-fair" --tasks mt50 --embodiment metaworld-corner2 --episodes-per-task "$(count 50)" \
    --workers 2 --seed "$data_seed"
}

# 60 demonstrations of most tasks, 200 of those that need precision, 30 more with detours of those that grasp or push.
collect_helped() {
  local precise="push pick-place reach reach-wall peg-insert-side assembly basketball bin-picking box-close coffee-pull
    coffee-push disassemble hammer hand-insert pick-out-of-hole pick-place-wall push-back push-wall shelf-place soccer
    stick-pull stick-push sweep sweep-into peg-unplug-side lever-pull"
  local astray="push pick-place push-back push-wall coffee-pull coffee-push soccer sweep sweep-into hand-insert bin-picking
    pick-place-wall basketball peg-insert-side"
  local many=() detours=() task
  for task in $precise; do many+=("$task" "$(count 200)"); done
  for task in $astray; do detours+=("$task" "$(count 30 1)"); done
  wam collect --out "$out/data-helped" --tasks mt50 --episodes-per-task "$(count 60)" --more "${many[@]}" \
    --detours "${detours[@]}" --workers 2 --seed "$data_seed"
}

# From initial states that no demonstration starts from: more interventions for tasks that failed in validation.
collect_dagger() {  # variant whose model begins
  wam collect --out "$out/data-dagger-$1" --tasks mt50 --embodiment "${embodiment[$1]}" --episodes-per-task 0 --skip 300 \
    --learner "$out/$1/model" --interventions $(interventions "$1") --workers 2 --seed "$data_seed"
}
interventions() {
  .venv/bin/python -c 'import json, sys
for task in json.load(open(sys.argv[1]))["tasks"]:
    rate = task["rate"]["value"]
    print(task["task"], sys.argv[2 if rate < 0.6 else 3 if rate < 1 else 4])' \
    "$out/modes/$1-$(better "$1")/summary.json" "$(count 40)" "$(count 20)" "$(count 8)"
}

tokenizer() {  # a tokenizer that was cut off goes on from its checkpoint
  local resume=()
  [ -f "$out/tokenizer-$1/checkpoint.safetensors" ] && resume=(--resume)
  wam train-tokenizer --data "$out/data-$1" --out "$out/tokenizer-$1" --embodiment "${embodiment[$1]}" \
    --minutes None --steps "$(count "${tokenizer_steps[$1]}" 20)" --batch 8 --threads 1 \
    --max-episodes 2000 "${resume[@]}"
}

encode() {  # variant; of dagger-*, by the tokenizer of the model that began
  wam data encode "$out/data-$1" --tokenizer "$out/tokenizer-${1#dagger-}" --embodiment "${embodiment[${1#dagger-}]}"
}

train() {  # on one core or on two
  in_time .venv/bin/torchrun --nproc-per-node "${processes[$1]}" -m wam.cli.main train --out "$out/$1" \
    --data "$out/data-$1" --tokenizer "$out/tokenizer-$1" --embodiment "${embodiment[$1]}" \
    --steps "$(count "${train_steps[$1]}" 20)" --models-every "$(count 2000 10)" --seed "$train_seed" --threads 1 \
    --compile --noise.mode coupled --noise.video-at-noise 0.4 --noise.action-at-noise "${at_noise[$1]}" --see-previous
}

train_dagger() {  # dagger-*: on from the finished model, half of every batch old; a few new ones instead make it forget
  local base=${1#dagger-}
  printf -- '- {data: %s, embodiment: %s}\n' "$out/data-$base" "${embodiment[$base]}" "$out/data-$1" "${embodiment[$base]}" \
    >"$out/$1.yaml"
  in_time .venv/bin/torchrun --nproc-per-node "${processes[$base]}" -m wam.cli.main train --data "$out/$1.yaml" \
    --init "$out/$base/model" --out "$out/$1" --steps "$(count "$dagger_steps" 20)" --seed "$train_seed" --threads 1 \
    --compile --optimizer.learning-rate 4e-4 --optimizer.warmup-steps 100 --optimizer.ema 0.99 --noise.mode coupled \
    --noise.video-at-noise 0.4 --noise.action-at-noise "${at_noise[$base]}"
}

# Ways to act, on validation episodes: whole chunks with memory, half or a quarter of a chunk from the present frame
# alone, and whole chunks whose actions begin at zero instead of noise. The one that solves most is tested; the first one
# of those that solve as many.
declare -A mode=([memory]="--steps 1" [replan]="--steps 1 --memory none --execute 4"
  [replan2]="--steps 1 --memory none --execute 2" [noiseless]="--steps 1 --temperature 0")
ways="memory replan replan2 noiseless"
modes() {
  local name
  for name in $ways; do
    wam eval "$out/$1/model" --tasks mt50 --split val --episodes "$(count 4 1)" --label "$1-$name" ${mode[$name]} \
      --out "$out/modes/$1-$name" || return
  done
}
better() {
  .venv/bin/python -c 'import json, sys
solved = {name: json.load(open(f"{sys.argv[1]}-{name}/summary.json"))["successes"] for name in sys.argv[2:]}
print(max(solved, key=solved.get))' "$out/modes/$1" $ways
}

curve() {  # success on validation episodes against minutes of training
  .venv/bin/python -m recipes.curve --training "$out/$1" --out "$out/curve-$1" --tasks mt50 --episodes "$(count 4 1)" \
    --minutes "$(((deadline - SECONDS) / 60))" "--options=${mode[$(better "$1")]}"
}

# The published protocol has 10 episodes per task; 50 give the interval. The first 10 of the 50 are the 10.
evaluate() {  # variant, episodes
  wam eval "$out/$1/model" --tasks mt50 --split test --episodes "$(count "$2" 1)" --label "$1" ${mode[$(better "$1")]} \
    --out "$out/eval/$1-$2" --film-failures 3 --film-successes 3 --films-per group
}
expert() {
  wam eval --policy expert --tasks mt50 --split test --episodes "$(count 10 1)" --out "$out/eval/expert"
}

bases=() daggers=()
for variant in $variants; do
  case $variant in dagger-*) daggers+=("$variant") ;; *) bases+=("$variant") ;; esac
done
for variant in "${bases[@]}"; do step "collect-$variant" "collect_$variant"; done
side_by_side tokenizer "${bases[@]}"
side_by_side encode "${bases[@]}"
for variant in "${bases[@]}"; do step "train-$variant" train "$variant"; done
for variant in "${bases[@]}"; do step "modes-$variant" modes "$variant"; done
for variant in "${daggers[@]}"; do
  step "collect-$variant" collect_dagger "${variant#dagger-}"
  step "encode-$variant" encode "$variant"
  step "train-$variant" train_dagger "$variant"
  step "modes-$variant" modes "$variant"
done
for variant in $variants; do step "eval-$variant-10" evaluate "$variant" 10; done
for variant in $variants; do step "curve-$variant" curve "$variant"; done
step expert expert
for variant in $variants; do step "eval-$variant-50" evaluate "$variant" 50; done
echo "== times"
cat "$out/times.tsv"
