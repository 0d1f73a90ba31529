//! All primitives, and the only bridge between open secrets and sealed bytes.

mod hash;
mod master;
mod seal;

pub use hash::{constant_time_eq, fingerprint, hmac_sha256, random_bytes, sha256};
pub use master::{MasterKeyError, MasterKeys};
pub use seal::{Key, OpenError, Place};
