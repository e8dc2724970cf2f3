# What is done to this repository, by name. https://just.systems

# Lists the recipes.
default:
    @just --list

# Formats, lints, docs: everything but the tests.
check:
    cargo fmt --check
    cargo clippy --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked

# Each feature by itself. Needs cargo-hack.
features:
    cargo hack clippy --locked --each-feature --exclude-features default --exclude-all-features --lib -- -D warnings

# All tests, as the README says.
test *ARGS:
    cargo test --locked {{ARGS}}

# Ratios with peers: all, or `just bench rpc -- --quick`.
bench *ARGS:
    cargo bench --locked {{ if ARGS == "" { "" } else { "--bench " + ARGS } }}

# At length: random operations against a plain map, and resident memory under churn.
soak OPS="200000" SECONDS="300":
    LARDER_MODEL_OPS={{OPS}} cargo test --release --locked --lib model -- --nocapture
    LARDER_SOAK_SECONDS={{SECONDS}} cargo test --release --locked --test memory -- --nocapture
    LARDER_KILLS={{SECONDS}} cargo test --release --locked --test suite durability -- --nocapture
    LARDER_KILLS={{SECONDS}} cargo test --release --locked --test suite blob_kills -- --nocapture
    LARDER_INCREMENTS=100000 cargo test --release --locked --test suite increments -- --nocapture
    LARDER_RULES_STEPS={{SECONDS}}0000000 cargo test --release --locked --test suite rules -- --nocapture
    LARDER_STORE_STEPS={{OPS}} cargo test --release --locked --test suite store -- --nocapture

# Fuzz targets, the named or all. Needs nightly and cargo-fuzz.
fuzz SECONDS="60" *TARGETS:
    for target in {{ if TARGETS == "" { "$(cargo +nightly fuzz list)" } else { TARGETS } }}; do \
        cargo +nightly fuzz run "$target" -- -max_total_time={{SECONDS}} || exit 1; \
    done

# Writes the table of settings into the book.
book:
    UPDATE_BOOK=1 cargo test --locked --lib book

# The API's pages and the book.
doc:
    cargo doc --no-deps --locked
    mdbook build docs

# What CI runs.
ci:
    .ci/run
