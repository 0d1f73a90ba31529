//! What happens when things go wrong: killed processes, lost answers, a stampede.

#[path = "../api/app/mod.rs"]
mod app;
mod away;
mod connections;
mod copies;
mod crash_points;
mod journal;
mod keep_alive;
mod killed;
mod lost_answers;
mod old_token;
mod orphans;
mod postgres;
mod races;
mod running_jobs;
mod scoreboard;
mod secrecy;
mod settle;
mod stalled;
mod stampede;
mod start_up;
mod user_rejected;
