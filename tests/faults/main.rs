//! What happens when things go wrong: killed processes, lost answers, a stampede.

#[path = "../api/app/mod.rs"]
mod app;
mod away;
mod children;
mod connections;
mod copies;
mod crash_points;
mod journal;
mod keep_alive;
mod key_service;
mod killed;
mod lost_answers;
mod old_token;
mod orphans;
mod outage;
mod postgres;
mod races;
mod resealing;
mod retired;
mod running_jobs;
mod scoreboard;
mod secrecy;
mod settle;
mod stalled;
mod stampede;
mod start_up;
mod user_rejected;

/// Held by tests that need the machine for themselves: a process that gets no processor for a second or two looks like one that
/// died, which is another test's subject.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
