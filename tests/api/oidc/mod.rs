//! CI identities: `identity::Issuers` against issuers on real sockets.

mod answers;
mod hostile;
mod keys;

use token_broker::{
    identity::{Identity, Issuers, JwtError},
    outbound::Route,
    secret::PresentedCredential,
};

use crate::app::issuer::Issuer;

const AUDIENCE: &str = "token-broker";

/// The issuers of these entries, as the operator would write them.
fn issuers(entries: &[&str]) -> Issuers {
    let list = entries.iter().map(|entry| entry.parse().expect("an issuer")).collect();
    Issuers::new(list, AUDIENCE.to_owned(), &Route::default()).expect("issuers")
}

fn trusting(issuer: &Issuer) -> Issuers {
    issuers(&[issuer.url()])
}

async fn verify(issuers: &Issuers, token: &str) -> Result<Identity, JwtError> {
    issuers.verify(&PresentedCredential::new(token)).await
}
