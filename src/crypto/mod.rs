//! All primitives, and the only bridge between open secrets and sealed bytes.

#[cfg(test)]
mod attacks;
mod hash;
mod master;
mod seal;

pub use hash::{constant_time_eq, fingerprint, hmac_sha256, random_bytes, sha256};
pub use master::{AwsKms, Credential, KeyServices, MasterKeyError, MasterKeys, SERVICE_ACCOUNT_TOKEN, TransitLogin};
pub use seal::{Key, OpenError, Place};
