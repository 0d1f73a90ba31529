//! The command: `token-broker --help` says what there is.

fn main() -> std::process::ExitCode {
    token_broker::cli::main()
}
