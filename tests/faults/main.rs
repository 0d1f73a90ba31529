//! What happens when things go wrong: killed processes, lost answers, a stampede.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

#[path = "../api/app/mod.rs"]
mod app;
mod stampede;
