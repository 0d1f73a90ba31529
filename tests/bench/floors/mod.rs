//! What nothing can be faster than.

mod hello;
mod pgbench;

pub use hello::{Hello, serve_if_asked};
pub use pgbench::{Script, TEAM};
