//! The key that signs access tokens.

use anyhow::Context;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

const PRIVATE: &str = "PRIVATE KEY";
const PUBLIC: &str = "RSA PUBLIC KEY";

/// An RSA-2048 key with its id; stored as PKCS#8 PEM.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Signer {
    pair: Arc<KeyPair>,
    pem: String,
    key_id: String,
}

/// Why a bearer is not a token of this signer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unverified {
    Parse,
    Signature,
}

impl Signer {
    /// A new key. Takes tens of milliseconds: call it outside locks.
    pub(super) fn generate() -> anyhow::Result<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048).context("generating an RSA key")?;
        let der = AsDer::as_der(&pair).context("encoding the RSA key")?;
        Self::try_from(pem(PRIVATE, der.as_ref()))
    }

    pub(super) fn sign(&self, claims: &impl Serialize) -> String {
        let signed = self.to_be_signed(claims);
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .expect("a whole RSA-2048 key signs SHA-256 into a buffer of its modulus' length");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The same in form and length, with zeros for a signature.
    pub(super) fn leave_unsigned(&self, claims: &impl Serialize) -> String {
        let zeros = URL_SAFE_NO_PAD.encode(vec![0; self.pair.public_modulus_len()]);
        format!("{}.{zeros}", self.to_be_signed(claims))
    }

    fn to_be_signed(&self, claims: &impl Serialize) -> String {
        let header = json!({ "typ": "JWT", "alg": "RS256", "kid": self.key_id });
        format!("{}.{}", part(&header), part(claims))
    }

    /// The claims, when this key signed them. Says nothing about time or revocation.
    pub(super) fn verify<C: DeserializeOwned>(&self, unverified: &str) -> Result<C, Unverified> {
        let claims = unverified_claims(unverified).ok_or(Unverified::Parse)?;
        let (signed, signature) = unverified.rsplit_once('.').ok_or(Unverified::Parse)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Unverified::Parse)?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| Unverified::Signature)?;
        Ok(claims)
    }

    pub(super) fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public half as PKCS#1 PEM.
    pub(super) fn public_pem(&self) -> String {
        pem(PUBLIC, self.pair.public_key().as_ref())
    }
}

/// The claims of anything shaped like a JWT, unchecked.
pub(super) fn unverified_claims<C: DeserializeOwned>(unverified: &str) -> Option<C> {
    let mut parts = unverified.split('.');
    let (_header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

impl TryFrom<String> for Signer {
    type Error = anyhow::Error;

    fn try_from(pem: String) -> anyhow::Result<Self> {
        let text: String = pem.lines().filter(|l| !l.starts_with("-----")).collect();
        let der = STANDARD.decode(text).context("the signing key is no PEM")?;
        let pair = KeyPair::from_pkcs8(&der).context("the signing key is no RSA key in PKCS#8")?;
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, pair.public_key().as_ref());
        Ok(Self { key_id: URL_SAFE_NO_PAD.encode(hash), pair: Arc::new(pair), pem })
    }
}

impl From<Signer> for String {
    fn from(signer: Signer) -> String {
        signer.pem
    }
}

fn part(json: &impl Serialize) -> String {
    let json = serde_json::to_vec(json).expect("claims are strings and numbers");
    URL_SAFE_NO_PAD.encode(json)
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|&b| char::from(b)));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}
