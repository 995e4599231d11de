#!/usr/bin/env bash
# The study, in parts. Each part is a sweep: repeat its command and it goes on where it stopped.
#
#   export MODEL=... MNLI_DIR=... HANS_DIR=... OUT=...            # a checkpoint, GLUE's layout, HANS, an empty folder
#   study/run.sh tune 0.1                                         # learning rates at 10 %, random choices, on a tenth of train
#   export LEARNING_RATE=...                                      # the best of them
#   study/run.sh main 0 1 2                                       # every arm at 10 %, these seeds; then 3 4 5, ...
#   ARMS="random ccs rs2" SHARES=0.3 study/run.sh main 18 19      # these arms and seeds at another share
#   study/run.sh curve 0.05 0 1 2 3 4                             # random at another share, at its learning rate
#   study/run.sh pool 0 1 2                                       # dfr, where 3,160 pairs are everything
#   study/run.sh scratch 0 1 2                                    # most arms on generated pairs, a tiny ALBERT from scratch
#   study/run.sh collect                                          # adds the finished runs to study/results.csv and docs/study.md
#
# The inputs of the arms (proxy run, embeddings, clusters) are made once for each folder, with the first of its seeds.
# DEVICE holds flags of the device, for example DEVICE=--bf16; JOBS is the number of runs at a time; ARMS are other arms of main or
# scratch; SHARES are other shares of main; RATES are other learning rates of tune.
set -euo pipefail
case ${1:-} in
  tune | main | curve | pool | scratch | collect) part=$1 && shift ;;
  *) echo "study/run.sh: the parts are tune, main, curve, pool, scratch and collect, not '${1:-}'" >&2 && exit 2 ;;
esac
OUT=$(realpath -m "${OUT:?name an empty folder}") MNLI_DIR=$(realpath "$MNLI_DIR") HANS_DIR=$(realpath "$HANS_DIR")
[ -e "$MODEL" ] && MODEL=$(realpath "$MODEL")
cd "$(dirname "$0")/.."
split=$OUT/split
source=$(sha256sum < "$MNLI_DIR/train.tsv")

# Premises get the numbers 0 to TURNS - 1 in turn, so pairs that share a premise stay together. Prints the header of FILE,
# and the pairs whose premise has one of the WANTED numbers.
by_premise() { # FILE TURNS "WANTED ..."
  awk -F '\t' -v turns="$2" -v wanted=" $3 " \
    'NR == 1 { print; next } !($9 in number) { number[$9] = n++ % turns } index(wanted, " " number[$9] " ")' "$1"
}

if [ -e "$split/done" ] && [ "$(cat "$split/done")" != "$source" ]; then
  echo "study/run.sh: $split was made from another train.tsv; give another OUT" >&2 && exit 2
fi
if [ ! -e "$split/done" ]; then
  # One half of the dev pairs is evaluated on; 1,000 of the other half are what rds looks for. A tenth of train is for tuning.
  mkdir -p "$split/study" "$split/target" "$split/tune"
  cp "$MNLI_DIR/train.tsv" "$split/study/train.tsv"
  for dev in dev_matched dev_mismatched; do
    by_premise "$MNLI_DIR/$dev.tsv" 2 "0" > "$split/study/$dev.tsv"
    by_premise "$MNLI_DIR/$dev.tsv" 2 "1" | awk 'NR <= 1001' > "$split/target/$dev.tsv"
  done
  by_premise "$MNLI_DIR/train.tsv" 20 "1 2 3 4 5 6 7 8 9 11 12 13 14 15 16 17 18 19" > "$split/tune/train.tsv"
  by_premise "$MNLI_DIR/train.tsv" 20 "0" > "$split/tune/dev_matched.tsv"
  by_premise "$MNLI_DIR/train.tsv" 20 "10" > "$split/tune/dev_mismatched.tsv"
  echo "$source" > "$split/done"
fi

common="--model_name_or_path $MODEL --task_name MNLI --max_seq_length 128 --per_device_train_batch_size 32
  --warmup_ratio 0.1 --num_train_epochs 3 --logging_steps 500 --save_steps 100000 ${DEVICE:-} ${JOBS:+--jobs $JOBS}"
measured="--data_dir $split/study --hans_dir $HANS_DIR --hans_per_subcase 100"
arms="random stratified diverse prototypes_easy ambiguous_mixed el2n ccs facility_location rds jtt_random counter_heuristic rare
  importance rs2 poe learned_mixin conf_reg group_dro hard_balanced"

case $part in
  tune)
    for rate in ${RATES:-5e-5 1e-4 2e-4 4e-4}; do
      python sweep.py --strategies random --data_pcts "$@" --seeds 100 101 $common --data_dir "$split/tune" \
        --learning_rate "$rate" --output_dir "$OUT/tune-$rate" || echo "learning rate $rate: no usable run"
    done
    ;;
  main)
    folder=$OUT/main-$1
    sweep="--data_pcts ${SHARES:-0.1} --seeds $* $common $measured --learning_rate $LEARNING_RATE --plugin study/arms.py
      --target_path $folder/target --output_dir $folder"
    if [[ " ${ARMS:-$arms} " == *" rds "* ]]; then
      # rds compares vectors of one model: that of the proxy run, which ccs needs as well.
      python sweep.py --strategies ccs --inputs_only $sweep
      python get_embeddings.py --model_name_or_path "$folder/selector/proxy_run" --task_name MNLI --data_dir "$split/target" \
        --split dev_matched --max_seq_length 128 ${DEVICE:-} --output_dir "$folder/target"
    fi
    python sweep.py --strategies ${ARMS:-$arms} $sweep
    ;;
  curve)
    share=$1 && shift
    python sweep.py --strategies random --data_pcts "$share" --seeds "$@" $common $measured \
      --learning_rate "$LEARNING_RATE" --output_dir "$OUT/curve-$share-$1"
    ;;
  pool)
    python sweep.py --strategies random dfr --data_pcts 1.0 --pool_size 3160 --seeds "$@" $common $measured \
      --learning_rate "$LEARNING_RATE" --output_dir "$OUT/pool"
    python report.py "$OUT/pool" --against all
    ;;
  scratch)
    python -m demo.generate --output_dir "$OUT/corpus" --num_train 12000 --num_dev 1000
    python -m hans.generate --output_dir "$OUT/challenge" --per_subcase 100
    few="random stratified diverse prototypes_easy ambiguous_mixed el2n ccs facility_location jtt_random counter_heuristic rare
      importance rs2 poe"
    python sweep.py --strategies ${ARMS:-$few} --data_pcts 0.1 --budget steps --seeds "$@" --plugin study/arms.py \
      --config_name demo/albert-tiny --tokenizer_name demo/albert-tiny --task_name MNLI --data_dir "$OUT/corpus" \
      --max_seq_length 64 --per_device_train_batch_size 32 --learning_rate 1e-3 --warmup_ratio 0.1 --num_train_epochs 3 \
      --logging_steps 1000 --save_steps 100000 --hans_dir "$OUT/challenge" ${JOBS:+--jobs $JOBS} --output_dir "$OUT/scratch"
    ;;
  collect)
    python -m study.collect "$OUT"/main-* "$OUT"/curve-*
    python report.py study/results.csv --brief
    if [ -e "$OUT/scratch" ]; then
      python -m study.collect "$OUT/scratch" --output_dir study/scratch
      python report.py study/scratch/results.csv --brief
    fi
    python -m docs.make_study
    ;;
esac
