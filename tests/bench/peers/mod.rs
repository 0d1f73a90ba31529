//! What others use for this job today.

mod openbao;

pub use openbao::{OpenBao, Storage};
