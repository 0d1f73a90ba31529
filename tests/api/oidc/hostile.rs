//! Tokens that must be refused, by class, each for the reason it was made for.

mod claims;
mod headers;
mod signatures;
mod structure;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use token_broker::identity::JwtError;

use super::{issuers, verify};
use crate::app::issuer::{
    Issuer,
    signing::{SigningKey, encode},
};

/// A hostile token, and the refusals that are right for it, separated by `|`.
#[derive(Clone)]
struct Case {
    class: &'static str,
    token: String,
    expected: &'static str,
}

/// A trusted issuer with a key of each kind, and whom its tokens are confused with.
struct Stage {
    issuer: Issuer,
    rsa: Arc<SigningKey>,
    /// Of the same issuer, for the same algorithm.
    rsa_too: Arc<SigningKey>,
    ec: Arc<SigningKey>,
    ec384: Arc<SigningKey>,
    ed: Arc<SigningKey>,
    /// Trusted as well.
    other: Issuer,
    /// Of nobody.
    attacker: SigningKey,
}

impl Stage {
    async fn set() -> Self {
        let issuer = Issuer::start().await;
        let rsa = issuer.key();
        let add = |algorithm| {
            issuer.add_key(SigningKey::generate(algorithm));
            issuer.key()
        };
        let (rsa_too, ec, ec384, ed) = (add("RS256"), add("ES256"), add("ES384"), add("EdDSA"));
        let mut small = rsa.jwk();
        small["kid"] = json!("rsa-1024");
        small["n"] = json!(encode(&rsa.rsa_components().0[..128]));
        let mut published: Vec<Value> = [&rsa, &rsa_too, &ec, &ec384, &ed].map(|key| key.jwk()).to_vec();
        published.push(small);
        issuer.publish(published);
        Self { rsa, rsa_too, ec, ec384, ed, other: Issuer::start().await, attacker: SigningKey::generate("RS256"), issuer }
    }

    fn keys(&self) -> [&SigningKey; 4] {
        [&self.rsa, &self.ec, &self.ec384, &self.ed]
    }

    /// Good claims, changed. `null` would be a value: what is to be absent is removed by the caller.
    fn claims(&self, changes: Value) -> Value {
        let mut claims = self.issuer.claims();
        for (name, value) in changes.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        claims
    }

    /// The honest header of the RSA key, changed.
    fn header(&self, changes: Value) -> Value {
        let mut header = json!({"alg": "RS256", "typ": "JWT", "kid": self.rsa.kid});
        for (name, value) in changes.as_object().expect("an object") {
            header[name] = value.clone();
        }
        header
    }
}

/// The variant and what it names, without the texts from outside.
fn label(error: &JwtError) -> String {
    match error {
        JwtError::Malformed { part, flaw } => format!("Malformed {part} {flaw:?}"),
        JwtError::Header(member) => format!("Header {member}"),
        JwtError::Claim { claim, flaw } => format!("Claim {claim} {flaw:?}"),
        JwtError::NotYet(claim) => format!("NotYet {claim}"),
        other => format!("{other:?}").split([' ', '(']).next().expect("a word").to_owned(),
    }
}

#[tokio::test]
async fn every_hostile_token_is_refused_for_what_is_wrong_with_it() {
    let stage = Stage::set().await;
    let trusted = issuers(&[stage.issuer.url(), stage.other.url()]);
    for key in stage.keys() {
        let token = key.sign(&stage.issuer.claims());
        let identity = verify(&trusted, &token).await.unwrap_or_else(|error| panic!("{}: {error}", key.algorithm));
        assert_eq!((identity.issuer.as_str(), identity.subject.as_str()), (stage.issuer.url(), "job:1"));
    }
    // What lies just inside the limits is good, so that what follows is refused for lying outside.
    for token in structure::harmless(&stage).into_iter().chain(headers::harmless(&stage)).chain(claims::harmless(&stage)) {
        verify(&trusted, &token).await.expect("harmless");
    }

    let cases = [structure::cases(&stage), headers::cases(&stage), claims::cases(&stage), signatures::cases(&stage)].concat();
    let (mut count, mut wrong) = (BTreeMap::<&str, usize>::new(), Vec::new());
    for Case { class, token, expected } in &cases {
        *count.entry(class).or_default() += 1;
        let got = match verify(&trusted, token).await {
            Ok(_) => "BELIEVED".to_owned(),
            Err(error) => {
                let text = format!("{error} {error:?}");
                assert!(token.len() < 40 || !text.contains(token.as_str()), "{class}: the token is not repeated");
                assert!(text.len() < 1500 && !text.contains(['\n', '\0']), "{class}: {text}");
                label(&error)
            }
        };
        if !expected.split('|').any(|expected| got.starts_with(expected)) {
            wrong.push(format!("{class}: {got} instead of {expected}: {:.300}", token));
        }
    }
    println!("{} hostile tokens in {} classes: {count:#?}", cases.len(), count.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(cases.len() >= 300, "{}", cases.len());
    assert!(stage.issuer.fetches() <= 2, "the corpus caused {} fetches", stage.issuer.fetches());
}
