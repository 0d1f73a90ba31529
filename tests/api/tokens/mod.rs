//! `/tokens`.

mod create;
mod create_refused;
mod delete;
mod import;
mod list;
mod read;
mod recreate;
mod refresh;
mod refresh_troubled;
mod rejected;
mod update;
