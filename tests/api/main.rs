//! The broker from outside, over HTTP. Folders and files mirror `src/api`.

mod app;
mod audit;
mod audit_chain;
mod audit_list;
mod authentication;
mod authorization;
mod counters;
mod encryption_keys;
mod health;
mod identities;
mod isolation;
mod limits;
mod oidc;
mod openapi;
mod platform_keys;
mod problems;
mod round_trips;
mod row_level_security;
mod teams;
mod together;
mod tokens;
mod whoami;
