//! Trust rules: what one asks of a CI identity's verified claims, and whether they fulfil it. Pure: no clock, no I/O.

mod check;
mod claim;
mod github;
mod gitlab;
mod identifying;
mod judge;
mod kubernetes;
mod pattern;
mod pins;
mod rule;
mod tokens;

#[cfg(test)]
mod tests;

pub use check::Mismatch;
pub use identifying::identifying;
pub use rule::Conditions;
