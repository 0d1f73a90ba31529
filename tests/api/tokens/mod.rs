//! `/tokens`.

mod children;
mod create;
mod create_refused;
mod delete;
mod import;
mod issue;
mod issue_refused;
mod list;
mod lockdown;
mod read;
mod recreate;
mod refresh;
mod refresh_troubled;
mod rejected;
mod revoke_handed_out;
mod update;
