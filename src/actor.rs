//! Who is behind a change, as the audit writes it.

use serde::Serialize;

/// Who did something: a caller as it was recognised, or the service itself.
#[derive(Clone, Debug, Serialize)]
pub struct Actor {
    /// `key:<team>/<name>`, `platform-key:<name>`, `system` or `nobody`.
    pub name: String,
    /// How the caller was recognised; never a secret.
    pub recognised_by: serde_json::Value,
    /// The answer's `x-request-id`.
    pub request_id: Option<String>,
    /// The caller's address.
    pub address: Option<String>,
}

const SYSTEM: &str = "system";

impl Actor {
    /// The service acting for itself: recovery, healing, keeping alive.
    pub fn system() -> Self {
        Self { name: SYSTEM.to_owned(), recognised_by: serde_json::json!({}), request_id: None, address: None }
    }

    /// Whether it is that.
    pub fn is_system(&self) -> bool {
        self.name == SYSTEM
    }
}
