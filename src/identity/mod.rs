//! Who is calling, and what that caller may do.

mod authenticate;
mod by_identity;
mod by_key;
mod caller;
mod grant;
mod issuer_kind;
mod oidc;
mod opaque;
mod trust;
mod unauthenticated;

pub use authenticate::Authentication;
pub use by_identity::PlatformRule;
pub use caller::{Caller, Held, MatchedRule, Membership, Refusal, Team};
pub use grant::{Action, Grant, Grants, Role};
pub use issuer_kind::IssuerKind;
pub use oidc::{ClaimFlaw, Flaw, Identity, InvalidIssuer, IssuerSettings, Issuers, JwtError};
pub use opaque::{Opaque, OpaqueKind};
pub use trust::{Conditions, Mismatch, identifying};
pub use unauthenticated::{Concerned, NoRule, Tried, Unauthenticated};
