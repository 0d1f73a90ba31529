//! CI identities: from a presented JWT to a verified identity.

mod claims;
mod fetch;
mod issuer;
mod json;
mod keys;
mod refusal;
mod schedule;
mod settings;
mod token;
mod verify;

pub use json::Flaw;
pub use refusal::{ClaimFlaw, JwtError};
pub use settings::{InvalidIssuer, IssuerSettings};
pub use verify::{Identity, Issuers};
