# Every command a person or CI runs. `just` alone lists them.

set positional-arguments

# list the recipes
default:
    @{{ just_executable() }} --list --unsorted

# run a pipeline: just run pipelines/stl10.toml [--profile smoke …]
[group('run')]
run *args:
    cargo run --release --quiet -- run "$@"

# what would run, and why
[group('run')]
plan *args:
    cargo run --release --quiet -- plan "$@"

# why a stage would run: just explain pipelines/digits.toml cluster
[group('run')]
explain *args:
    cargo run --release --quiet -- explain "$@"

# format every tracked Rust file (cargo fmt does not follow modules that a macro declares)
[group('dev')]
fmt:
    git ls-files '*.rs' | xargs rustfmt --edition 2024

# format check, then clippy with warnings as errors; like `test` with the profile for work, which rebuilds little after an edit
[group('dev')]
lint:
    git ls-files '*.rs' | xargs rustfmt --edition 2024 --check
    cargo clippy --profile quick --all-targets --features remote,gpu -- -D warnings

# the smoke pipelines: cold, warm, one changed setting, kill -9
[group('dev')]
smoke:
    cargo build --release
    folder=$(mktemp -d) && python3 tests/smoke.py "${CARGO_TARGET_DIR:-target}/release/kinset" "$folder" && rm -r "$folder"

# the wheel for pip, with the program and the Python module, into target/wheels; needs maturin (pip install maturin)
[group('dev')]
wheel *args:
    cd src/python && maturin build --release --locked "$@"

# all tests
[group('dev')]
test *args:
    cargo test --profile quick "$@"

# what each kernel takes: just bench [NAME]
[group('dev')]
bench *args:
    cargo bench --bench kernels -- "$@"

# beside PyTorch, torchvision, FAISS and scikit-learn, on this machine: just bench-peers [--quick] [--only NAME …]
[group('dev')]
bench-peers *args:
    python3 tests/bench/peers.py "$@"

# training beside a transcription in PyTorch, ten seeds, half an hour (KINSET_TORCH: a Python that has it): just parity [--only digits]
[group('dev')]
parity *args:
    cargo build --release
    "${KINSET_TORCH:-python3}" tests/parity/parity.py --kinset "${CARGO_TARGET_DIR:-target}/release/kinset" "$@"

# the crate documentation, warnings as errors
[group('dev')]
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps

# the kernels' tests with each instruction set that this processor has (none named is the best)
[group('check')]
isa:
    for isa in portable avx2 ""; do KINSET_ISA=$isa cargo test --release -p kinset-kernel || exit 1; done

# ONNX encoders beside onnxruntime: just encoders my/photos a.onnx b.onnx=b.safetensors (KINSET_INTEROP: a Python that has it)
[group('check')]
encoders *args:
    cargo build --release
    KINSET="${CARGO_TARGET_DIR:-target}/release/kinset" "${KINSET_INTEROP:-python3}" tests/interop_encoders.py "$@"

# the kernels' unsafe code as far as Miri runs it: no foreign functions, no vector instructions
[group('check')]
miri:
    MIRIFLAGS="-Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-ignore-leaks" \
        cargo +nightly miri test -p kinset-kernel -- allocator buffers isa

# the kernels' tests under Valgrind: reads of memory that was never written, and out of bounds (it has AVX2, not AVX-512)
[group('check')]
memcheck:
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="valgrind -q --error-exitcode=9" \
        cargo test --release -p kinset-kernel -- --test-threads 1

# kills, signals, full disks, injected errors, damaged files: the long campaign, with a table (`strace` and mounting, where allowed)
[group('check')]
faults *args:
    KINSET_FAULTS=long cargo test --profile quick --test it faults:: -- --nocapture --test-threads 1 "$@"

# two machines over one store, as names and, where bindfs can mount, as two mounts: the tests, with 40 kills of runs and workers
[group('check')]
hosts *args:
    KINSET_FAULTS=long cargo test --profile quick --test it hosts:: -- --nocapture --test-threads 1 "$@"

# caches in object storage: the feature `remote` in a folder, behind a web server, on S3 (KINSET_MOTO: a Python that has moto)
[group('check')]
remote:
    cargo test --release -p kinset-remote --features object-store
    cargo build --release --features remote
    folder=$(mktemp -d) && "${KINSET_MOTO:-python3}" tests/remote.py "${CARGO_TARGET_DIR:-target}/release/kinset" "$folder" && rm -r "$folder"

# a real Slurm on this machine, and a pipeline on it: killed, preempted, cancelled, the same bytes (root; Debian's slurmctld slurmd slurm-client munge)
[group('check')]
cluster:
    cargo build --release
    bash tests/cluster.sh "${CARGO_TARGET_DIR:-target}/release/kinset"

# the machine code of the kernels for cards, by NVRTC from PyPI, without a card: just ptx, or just ptx --check
[group('check')]
ptx *args:
    folder=$(mktemp -d) && python3 -m venv "$folder" && "$folder/bin/pip" install -q --disable-pip-version-check nvidia-cuda-nvrtc-cu12==12.0.140 && \
        python3 src/gpu/kernels/ptx.py "$(find "$folder" -name 'libnvrtc.so.12')" "$@" && rm -r "$folder"

# every stage on the test double of a card, beside the processor (g++)
[group('check')]
gpu:
    cargo test --profile quick --features gpu --test it gpu::

# each fuzz target for so many seconds, two at a time: just fuzz 600 weights
[group('check')]
fuzz seconds="60" target="":
    KINSET_FUZZ_SECONDS="$1" cargo test --profile quick --test it "fuzz::${2:-}" -- --nocapture --test-threads 2

# what CI does, from the cheapest check to the dearest
[group('check')]
ci:
    bash .ci/run
