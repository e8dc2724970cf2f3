# What is done to this repository, by name. https://just.systems

# Lists the recipes.
default:
    @just --list

# Formats, lints, docs: everything but the tests.
check:
    cargo fmt --check
    cargo clippy --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked

# All tests, as the README says.
test *ARGS:
    cargo test --locked {{ARGS}}

# Ratios with peers: all, or `just bench rpc -- --quick`.
bench *ARGS:
    cargo bench --locked {{ if ARGS == "" { "" } else { "--bench " + ARGS } }}

# The model test at length: random operations against a plain map.
soak OPS="200000":
    LARDER_MODEL_OPS={{OPS}} cargo test --release --locked --lib model -- --nocapture

# Fuzz targets, the named or all. Needs nightly and cargo-fuzz.
fuzz SECONDS="60" *TARGETS:
    for target in {{ if TARGETS == "" { "$(cargo +nightly fuzz list)" } else { TARGETS } }}; do \
        cargo +nightly fuzz run "$target" -- -max_total_time={{SECONDS}} || exit 1; \
    done

# The API's pages and the book.
doc:
    cargo doc --no-deps --locked
    mdbook build docs

# What CI runs.
ci:
    .ci/run
