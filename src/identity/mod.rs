//! Who is calling, and what that caller may do.

mod api_keys;
mod authenticate;
mod caller;
mod grant;
mod issuer_kind;

pub use api_keys::ApiKey;
pub use authenticate::{Authentication, Unauthenticated};
pub use caller::{Caller, Refusal, Team};
pub use grant::{Action, Grant, Role};
pub use issuer_kind::IssuerKind;
