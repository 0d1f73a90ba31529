//! The broker from outside, over HTTP. Folders and files mirror `src/api`.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod app;
mod tokens;
