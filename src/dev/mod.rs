//! What only `token-broker dev`, `token-broker simulator` and the tests need; unused by the service.

pub mod postgres;
pub mod simulator;
