#!/usr/bin/env bash
# Run what needs an NVIDIA GPU, from a source checkout, without network:
#   bench/gpu.sh train [VAE_MINUTES] [IMAGE_MINUTES] [MOTION_MINUTES]   train mini at 256x256; a second call continues
#   bench/gpu.sh first     run all checks and times that need a GPU, in at most 590 seconds, and write lines of JSON to
#                          $OUT/results.jsonl; further arguments go to fye_bench.first
#   bench/gpu.sh kernels   test every kernel on the GPU, then time it against PyTorch's; further arguments go to
#                          fye_bench.speed.kernels
#   bench/gpu.sh model     compare the full-size model with random weights in the torch backend with float32, then time
#                          it against the reference implementation; further arguments go to fye_bench.speed.gpu
#   bench/gpu.sh dry-run   try `first` on a CPU, with small shapes and a small model
# Results go to $OUT (default build/gpu/out), checkpoints to build/gpu/run. Python packages that the machine lacks come
# from .whl/ (diffusers and importlib_metadata, if it has PyTorch, transformers and OpenCV).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT=${OUT:-build/gpu/out}
RUN=build/gpu/run
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT" "$RUN"
export PYTHONPATH=.:export:kernels:engines:bench:training PYTHONUNBUFFERED=1
if compgen -G '.whl/*.whl' >/dev/null; then
    site=build/gpu/site
    [[ -d $site ]] || "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$site" .whl/*.whl
    PYTHONPATH+=:$site
fi

train() {
    local minutes=("${1:-2}" "${2:-5}" "${3:-1.5}") stages=(vae image motion) preset=${PRESET:-mini-256}
    for i in 0 1 2; do
        [[ ${minutes[i]} == 0 ]] && continue
        "$PYTHON" -m fye_training.train --preset "$preset" --run "$RUN" --stage "${stages[i]}" --minutes "${minutes[i]}" \
            --workers "$(($(nproc) > 2 ? $(nproc) - 2 : 1))" --quiet
        tail -n 2 "$RUN/${stages[i]}.jsonl"
    done
    rm -rf "$RUN/checkpoint"
    "$PYTHON" -m fye_training.train --preset "$preset" --run "$RUN" --release
    # parts of 15 MB; unpack them with: cat checkpoint.tar.* | tar x
    tar -C "$RUN" -cf - checkpoint | split -b 15000000 - "$OUT/checkpoint.tar."
    for stage in "${stages[@]}"; do
        cp "$(ls "$RUN/$stage"-*.png | tail -n 1)" "$OUT/$stage.png"
    done
    cat "$RUN"/{vae,image,motion}.jsonl >"$OUT/log.jsonl"
}

kernels() {
    local status=0
    "$PYTHON" -m pytest -q -p no:cacheprovider -m "not full" tests/fye_torch/test_modules.py tests/fye_kernels || status=1
    "$PYTHON" -m fye_bench.speed.kernels --json "$OUT/kernels.json" "$@" || status=1
    return "$status"
}

model() {
    "$PYTHON" -m fye_bench.speed.gpu --json "$OUT/gpu.json" "$@"
}

first() {
    "$PYTHON" -m fye_bench.first --out "$OUT" --seconds "$((590 - SECONDS))" "$@"
}

dry_run() {
    CUDA_VISIBLE_DEVICES='' TRITON_INTERPRET=1 OMP_NUM_THREADS=1 \
        "$PYTHON" -m fye_bench.first --out "$OUT" --small --seconds 3600 "$@"
}

case ${1:-} in
train) train "${@:2}" ;;
first) first "${@:2}" ;;
kernels) kernels "${@:2}" ;;
model) model "${@:2}" ;;
dry-run) dry_run "${@:2}" ;;
*)
    sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
