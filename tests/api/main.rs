//! The broker from outside, over HTTP. Folders and files mirror `src/api`.

mod app;
mod tokens;
