#!/usr/bin/env bash
# The study, in parts. Each part is a sweep: repeat its command and it goes on where it stopped.
#
#   export MODEL=... MNLI_DIR=... HANS_DIR=... OUT=...            # a checkpoint, GLUE's layout, HANS, an empty folder
#   study/run.sh tune                                             # learning rates, random choices, on a tenth of train
#   export LEARNING_RATE=...                                      # the best of them
#   study/run.sh main 0 1 2                                       # every arm at 10 %, these seeds; then 3 4 5 and so on
#   study/run.sh curve 0 1 2 3 4                                  # random at 5 to 100 %
#   study/run.sh thirty 0 1 2 3 4                                 # six arms at 30 %
#   python report.py $OUT/main-0                                  # and so on; rows are collected in study/results.csv
#
# The inputs of the arms (proxy run, embeddings, clusters) are made once for each folder, with the first of its seeds.
# MORE holds further flags, for example MORE="--bf16 --jobs 2".
set -euo pipefail
cd "$(dirname "$0")/.."
part=$1
shift
split=${OUT:?name an empty folder}/split

if [ ! -e "$split/done" ]; then
  # Dev pairs by turns: one half is evaluated on, the other half is what rds looks for. A tenth of train for tuning.
  mkdir -p "$split/study" "$split/target" "$split/tune"
  cp "$MNLI_DIR/train.tsv" "$split/study/train.tsv"
  for dev in dev_matched dev_mismatched; do
    awk 'NR == 1 || NR % 2 == 0' "$MNLI_DIR/$dev.tsv" > "$split/study/$dev.tsv"
    awk 'NR == 1 || (NR % 2 == 1 && n++ < 1000)' "$MNLI_DIR/$dev.tsv" > "$split/target/$dev.tsv"
  done
  awk 'NR == 1 || NR % 10 != 0' "$MNLI_DIR/train.tsv" > "$split/tune/train.tsv"
  # The tuning folder's dev files are two halves of the held-out tenth, in the columns of a dev file.
  for half in 0 1; do
    name=$([ "$half" = 0 ] && echo dev_matched || echo dev_mismatched)
    awk -F '\t' -v OFS='\t' -v half="$half" 'NR == 1 || (NR % 10 == 0 && NR % 20 == 10 * half)' "$MNLI_DIR/train.tsv" \
      > "$split/tune/$name.tsv"
  done
  touch "$split/done"
fi

common="--model_name_or_path $MODEL --task_name MNLI --max_seq_length 128 --per_device_train_batch_size 32
  --warmup_ratio 0.1 --num_train_epochs 3 --logging_steps 500 --save_steps 100000 ${MORE:-}"
measured="--data_dir $split/study --max_eval_samples 2000 --hans_dir $HANS_DIR --hans_per_subcase 100"
arms="random stratified diverse prototypes_easy ambiguous_mixed el2n ccs facility_location rds jtt counter_heuristic rare
  importance rs2 poe hard_balanced"

case $part in
  tune)
    for rate in 5e-5 1e-4 2e-4 4e-4; do
      python sweep.py --strategies random --data_pcts 0.05 0.1 0.3 --seeds 100 $common --data_dir "$split/tune" \
        --learning_rate "$rate" --output_dir "$OUT/tune-$rate"
    done
    ;;
  main)
    folder=$OUT/main-$1
    sweep="--data_pcts 0.1 --seeds $* $common $measured --learning_rate $LEARNING_RATE --plugin study/arms.py
      --output_dir $folder"
    python sweep.py --strategies ${arms/rds /} --inputs_only $sweep
    if [ ! -e "$folder/target" ]; then # rds compares vectors of one model: that of the proxy run
      python get_embeddings.py --model_name_or_path "$folder/selector/proxy_run" --task_name MNLI \
        --data_dir "$split/target" --split dev_matched --max_seq_length 128 --output_dir "$folder/target"
    fi
    python sweep.py --strategies $arms --target_path "$folder/target" $sweep
    ;;
  curve)
    python sweep.py --strategies random --data_pcts 0.05 0.1 0.3 0.5 1.0 --seeds "$@" $common $measured \
      --learning_rate "$LEARNING_RATE" --output_dir "$OUT/curve"
    ;;
  thirty)
    python sweep.py --strategies random diverse facility_location el2n ccs rare --data_pcts 0.3 --seeds "$@" $common \
      $measured --learning_rate "$LEARNING_RATE" --output_dir "$OUT/thirty"
    ;;
  *)
    echo "study/run.sh: no part called $part" >&2
    exit 2
    ;;
esac
