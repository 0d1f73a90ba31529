//! The command: `token-broker --help` says what there is.

/// Where thousands of requests leave their pieces, glibc's holds up everybody for some ten milliseconds while it tidies up.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    token_broker::cli::main()
}
