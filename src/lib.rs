//! The token broker: holds JFrog refresh tokens so that no pipeline has to. The README is the manual.

pub mod actor;
pub mod api;
pub mod audit;
pub mod broker;
pub mod cli;
pub mod config;
pub mod crypto;
pub mod dev;
pub mod fault;
pub mod identity;
pub mod jfrog;
pub mod journal;
pub mod names;
pub mod outbound;
pub mod secret;
pub mod store;
pub mod telemetry;
