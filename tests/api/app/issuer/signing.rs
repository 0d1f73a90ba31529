//! Keys made at start, and compact JWTs signed with them: honest ones, and any bytes at all.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
        RsaKeyPair, RsaPublicKeyComponents,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A key pair with a name.
pub struct SigningKey {
    pub kid: String,
    /// As a header names it: RS256, PS256, ES256, ES384 or EdDSA.
    pub algorithm: &'static str,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl SigningKey {
    /// A new one.
    pub fn generate(algorithm: &'static str) -> Self {
        let pair = match algorithm {
            "RS256" | "PS256" => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")),
            "ES256" => Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key")),
            "ES384" => Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key")),
            "EdDSA" => Pair::Ed(Ed25519KeyPair::generate().expect("a key")),
            other => panic!("no key for {other}"),
        };
        Self { kid: format!("{algorithm}-{}", uuid::Uuid::new_v4()), algorithm, pair }
    }

    /// The signature over these bytes.
    pub fn sign_bytes(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let padding: &dyn signature::RsaEncoding =
                    if self.algorithm == "PS256" { &signature::RSA_PSS_SHA256 } else { &signature::RSA_PKCS1_SHA256 };
                pair.sign(padding, &random, message, &mut signature).expect("signed");
                signature
            }
            Pair::Ec(pair) => pair.sign(&random, message).expect("signed").as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// An honest token.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with_header(&json!({"alg": self.algorithm, "typ": "JWT", "kid": self.kid}), claims)
    }

    /// A token with any header, its signature right.
    pub fn sign_with_header(&self, header: &Value, claims: &Value) -> String {
        self.sign_raw(header.to_string().as_bytes(), claims.to_string().as_bytes())
    }

    /// A token of any bytes, its signature right.
    pub fn sign_raw(&self, header: &[u8], payload: &[u8]) -> String {
        self.sign_parts(&encode(header), &encode(payload))
    }

    /// The same over parts that are encoded already.
    pub fn sign_parts(&self, header: &str, payload: &str) -> String {
        let message = format!("{header}.{payload}");
        let signature = self.sign_bytes(message.as_bytes());
        format!("{message}.{}", encode(&signature))
    }

    /// As a JWKS lists it.
    pub fn jwk(&self) -> Value {
        match &self.pair {
            Pair::Rsa(_) => {
                let (n, e) = self.rsa_components();
                json!({"kty": "RSA", "use": "sig", "kid": self.kid, "alg": self.algorithm, "n": encode(&n), "e": encode(&e)})
            }
            Pair::Ec(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = point[1..].split_at((point.len() - 1) / 2);
                let crv = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "use": "sig", "kid": self.kid, "alg": self.algorithm, "crv": crv, "x": encode(x), "y": encode(y)})
            }
            Pair::Ed(pair) => {
                let x = encode(pair.public_key().as_ref());
                json!({"kty": "OKP", "use": "sig", "kid": self.kid, "alg": self.algorithm, "crv": "Ed25519", "x": x})
            }
        }
    }

    /// The public key in the form that its library gives it: DER for RSA, the point for the others.
    pub fn public_bytes(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// Modulus and exponent of an RSA key.
    pub fn rsa_components(&self) -> (Vec<u8>, Vec<u8>) {
        let Pair::Rsa(pair) = &self.pair else { panic!("{} is no RSA key", self.kid) };
        let components = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        (components.n, components.e)
    }
}

/// base64url without padding.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
