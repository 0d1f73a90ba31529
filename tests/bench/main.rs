//! The benchmark: `cargo bench --bench broker [-- [--short] [R1 R2 …]]`. Starts everything it needs, measures each thing against another
//! in turn, prints a table, writes `target/bench/broker.json` and `.md`, and stops everything.

#![expect(unreachable_pub, reason = "a program has nobody outside")]

mod connection;
mod floors;
mod issuer;
mod load;
mod measure;
mod peers;
mod process;
mod rows;
mod service;
mod table;
mod world;

use std::{path::Path, process::ExitCode};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use token_broker::cli::serve::asked_to_stop;

use rows::Asked;
use world::World;

fn main() -> anyhow::Result<ExitCode> {
    if floors::serve_if_asked()? {
        return Ok(ExitCode::SUCCESS);
    }
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` starts benchmarks as well, without this word.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run it by: cargo bench --bench broker");
        return Ok(ExitCode::SUCCESS);
    }
    let short = arguments.iter().any(|argument| argument == "--short");
    arguments.retain(|argument| !argument.starts_with("--"));
    // Thousands of callers are as many sockets, here and, inherited, in the service.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(short, Asked(arguments)))
}

async fn run(short: bool, asked: Asked) -> anyhow::Result<ExitCode> {
    // From the start: Ctrl-C stops what was started.
    let stop = asked_to_stop();
    let world = World::start(short).await?;
    let table = tokio::select! {
        table = rows::measure(&world, &asked) => Some(table),
        () = stop => None,
    };
    world.stop().await?;
    let Some(table) = table else { return Ok(ExitCode::FAILURE) };
    table.print();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench").join("broker.json");
    table.save(&path, short, &machine())?;
    println!("\n{}; {}", machine(), path.display());
    Ok(if table.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was measured on.
fn machine() -> String {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |(_, name)| name);
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("{processors} × {model}, load at the end {}", load.split(' ').next().unwrap_or_default())
}
