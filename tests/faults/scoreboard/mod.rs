//! The same faults, played against four plain ways to keep a refresh token and against the broker: who loses how many.

mod broker;
mod plain;
mod schedule;
mod strategies;

use std::fmt::Write;

use futures_util::future::join_all;
use token_broker::dev::simulator::OldAccessToken;
use tokio::sync::Semaphore;

use schedule::Round;

/// The schedule is played once for each thing that JFrog may do to an old access token: nobody outside knows which it is.
const OLD_ACCESS_TOKENS: [OldAccessToken; 3] =
    [OldAccessToken::Revoked, OldAccessToken::CachedSeconds(60), OldAccessToken::Valid];
const PLAYERS: [&str; 5] = ["cron + file", "file lock, 3 retries", "mutex, save after", "10 s lock", "broker"];
/// Each is two processes and a database.
const BROKERS_AT_ONCE: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn under_the_same_faults_every_plain_strategy_loses_tokens_and_the_broker_loses_none() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let rounds = schedule::rounds();
    // curl and a command line are a new process each time: no connection is used twice.
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client");
    let room = Semaphore::new(BROKERS_AT_ONCE);
    let games = join_all(OLD_ACCESS_TOKENS.map(|old| game(&rounds, old, &http, &room))).await;
    // By round and player: of how many games the token was lost.
    let lost: Vec<[usize; 5]> = (0..rounds.len())
        .map(|round| std::array::from_fn(|player| games.iter().filter(|game| game[player][round]).count()))
        .collect();
    let totals: [usize; 5] = std::array::from_fn(|player| lost.iter().map(|round| round[player]).sum());
    println!("{}", table(&rounds, &lost, &totals));
    assert_eq!(totals[4], 0, "the broker lost a token");
    assert!(totals[..4].iter().all(|lost| *lost > 0), "the schedule bites: {totals:?}");
    assert_eq!(lost[0], [0; 5], "without a fault nobody loses anything");
    let readme = include_str!("../../../README.md");
    assert!(readme.contains(&total(rounds.len(), &totals)), "README.md shows other totals");
}

/// One schedule with all players, by player and round.
async fn game(rounds: &[Round], old: OldAccessToken, http: &reqwest::Client, room: &Semaphore) -> [Vec<bool>; 5] {
    tokio::join!(
        plain::play::<strategies::Cron>(rounds, old, http),
        plain::play::<strategies::FileLock>(rounds, old, http),
        plain::play::<strategies::InProcess>(rounds, old, http),
        plain::play::<strategies::Expiring>(rounds, old, http),
        broker::play(rounds, old, room),
    )
    .into()
}

fn table(rounds: &[Round], lost: &[[usize; 5]], totals: &[usize; 5]) -> String {
    let mut table = format!("\n| fault | {} |\n|---|{}\n", PLAYERS.join(" | "), "---|".repeat(PLAYERS.len()));
    for (round, lost) in rounds.iter().zip(lost) {
        writeln!(table, "| {} | {} |", round.name, lost.map(|lost| lost.to_string()).join(" | ")).expect("writes into memory");
    }
    table + &total(rounds.len(), totals)
}

fn total(rounds: usize, totals: &[usize; 5]) -> String {
    let tokens = rounds * OLD_ACCESS_TOKENS.len();
    format!("| tokens lost of {tokens} | {} |", totals.map(|lost| lost.to_string()).join(" | "))
}
