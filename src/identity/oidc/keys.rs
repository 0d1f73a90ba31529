//! The public keys of an issuer, as its JWKS lists them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::refusal::quoted;

/// More keys than this are no key set.
const MOST_KEYS: usize = 64;

/// The keys that can verify a signature, and why the others cannot.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    pub(super) skipped: Vec<String>,
}

#[derive(Clone, Debug)]
struct Key {
    kid: Option<String>,
    /// What the key's type and its own `alg` leave: a signature of any other algorithm is not one of this key.
    algorithms: Vec<Algorithm>,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ec { point: Vec<u8> },
    Ed { point: Vec<u8> },
}

/// Why a set has no key for a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// None of that name.
    Unknown,
    /// Several that could be meant.
    Ambiguous,
    /// One of that name, for other algorithms.
    OtherAlgorithm,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Map<String, Value>>,
}

impl KeySet {
    /// Reads a JWKS. Keys that are no use are skipped: an issuer may add a kind we do not know.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(bytes).map_err(|error| format!("no JWKS: {error}"))?;
        if document.keys.len() > MOST_KEYS {
            return Err(format!("the JWKS has {} keys, more than {MOST_KEYS}", document.keys.len()));
        }
        let mut set = Self::default();
        for jwk in &document.keys {
            match Key::parse(jwk) {
                Ok(key) => set.add(key),
                Err(why) => set.skipped.push(quoted(&format!("{why}: {:?}", jwk.get("kid").and_then(Value::as_str)))),
            }
        }
        Ok(set)
    }

    /// The same key listed twice, perhaps for other algorithms, is still one key.
    fn add(&mut self, key: Key) {
        match self.keys.iter_mut().find(|known| known.kid == key.kid && known.material == key.material) {
            Some(known) => known.algorithms.extend(key.algorithms),
            None => self.keys.push(key),
        }
    }

    /// The one key that a token with this header must be signed with. Without a `kid` it is clear only where one key fits.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey, NoKey> {
        let named = || self.keys.iter().filter(|key| kid.is_none() || key.kid.as_deref() == kid);
        let mut fitting = named().filter(|key| key.algorithms.contains(&algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key.decoding()),
            (Some(_), Some(_)) => Err(NoKey::Ambiguous),
            (None, _) if kid.is_some() && named().next().is_some() => Err(NoKey::OtherAlgorithm),
            (None, _) => Err(NoKey::Unknown),
        }
    }
}

impl Key {
    fn parse(jwk: &Map<String, Value>) -> Result<Self, String> {
        let text = |member: &str| jwk.get(member).and_then(Value::as_str);
        let bytes = |member: &str| {
            let text = text(member).ok_or_else(|| format!("{member} is missing"))?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("{member} is not base64url"))
        };
        if let Some(secret) = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].into_iter().find(|m| jwk.contains_key(*m)) {
            return Err(format!("a private or symmetric key was published (`{secret}`)"));
        }
        if jwk.get("kid").is_some_and(|kid| !kid.is_string()) {
            return Err("kid is not a string".to_owned());
        }
        if jwk.get("use").is_some_and(|usage| usage != "sig") {
            return Err("not for signatures".to_owned());
        }
        let verifies = |operations: &Value| operations.as_array().is_some_and(|all| all.iter().any(|one| one == "verify"));
        if jwk.get("key_ops").is_some_and(|operations| !verifies(operations)) {
            return Err("not for verifying".to_owned());
        }
        let (material, mut algorithms) = match (text("kty"), text("crv")) {
            (Some("RSA"), _) => (rsa(bytes("n")?, bytes("e")?)?, AlgorithmFamily::Rsa.algorithms().to_vec()),
            (Some("EC"), Some("P-256")) => (ec(&bytes("x")?, &bytes("y")?, 32)?, vec![Algorithm::ES256]),
            (Some("EC"), Some("P-384")) => (ec(&bytes("x")?, &bytes("y")?, 48)?, vec![Algorithm::ES384]),
            (Some("OKP"), Some("Ed25519")) => (ed(bytes("x")?)?, vec![Algorithm::EdDSA]),
            (kty, crv) => return Err(format!("kind {kty:?} {crv:?} is not known")),
        };
        if let Some(own) = jwk.get("alg") {
            // RFC 9864 gave EdDSA over this curve a name of its own.
            algorithms.retain(|one| own == format!("{one:?}").as_str() || (*one == Algorithm::EdDSA && own == "Ed25519"));
        }
        if algorithms.is_empty() {
            return Err("its `alg` does not go with its kind".to_owned());
        }
        Ok(Self { kid: text("kid").map(str::to_owned), algorithms, material })
    }

    fn decoding(&self) -> DecodingKey {
        match &self.material {
            Material::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            Material::Ec { point } => DecodingKey::from_ec_der(point),
            Material::Ed { point } => DecodingKey::from_ed_der(point),
        }
    }
}

fn rsa(n: Vec<u8>, e: Vec<u8>) -> Result<Material, String> {
    // Some libraries write a leading zero.
    let trimmed = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
    let (n, e) = (trimmed(n), trimmed(e));
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) {
        return Err(format!("RSA with {bits} bits (2048 to 8192 are acceptable)"));
    }
    // With the exponent 1, anybody can sign.
    if e.len() > 4 || e == [1] || e.last().is_none_or(|last| last % 2 == 0) {
        return Err("RSA with an unacceptable exponent".to_owned());
    }
    Ok(Material::Rsa { n, e })
}

fn ec(x: &[u8], y: &[u8], size: usize) -> Result<Material, String> {
    if x.len() != size || y.len() != size {
        return Err("a coordinate has the wrong length".to_owned());
    }
    Ok(Material::Ec { point: [&[4], x, y].concat() })
}

fn ed(point: Vec<u8>) -> Result<Material, String> {
    if point.len() == 32 { Ok(Material::Ed { point }) } else { Err("the point has the wrong length".to_owned()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes(first: u8, len: usize) -> String {
        URL_SAFE_NO_PAD.encode([&[first][..], &vec![7; len - 1]].concat())
    }

    fn rsa_jwk(kid: &str, changes: Value) -> Value {
        let mut jwk = json!({"kty": "RSA", "kid": kid, "n": bytes(0x80, 256), "e": "AQAB"});
        for (name, value) in changes.as_object().expect("an object") {
            jwk[name] = value.clone();
        }
        jwk
    }

    fn set(keys: Value) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).expect("a set")
    }

    #[test]
    fn each_kind_of_key_is_for_its_own_algorithms() {
        let coordinates = |crv: &str, len| json!({"kty": "EC", "kid": crv, "crv": crv, "x": bytes(1, len), "y": bytes(2, len)});
        let set = set(json!([
            rsa_jwk("any", json!({})),
            rsa_jwk("own", json!({"alg": "PS256", "use": "sig", "key_ops": ["verify"], "x5c": ["ignored"]})),
            rsa_jwk("zero", json!({"n": URL_SAFE_NO_PAD.encode([&[0, 0x80][..], &[3; 255]].concat())})),
            coordinates("P-256", 32),
            coordinates("P-384", 48),
            {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": bytes(1, 32), "alg": "EdDSA"},
            {"kty": "OKP", "kid": "ed9864", "crv": "Ed25519", "x": bytes(2, 32), "alg": "Ed25519"},
        ]));
        assert!(set.skipped.is_empty(), "{:?}", set.skipped);
        for (kid, good, bad) in [
            ("any", Algorithm::RS256, Algorithm::ES256),
            ("any", Algorithm::PS512, Algorithm::EdDSA),
            ("own", Algorithm::PS256, Algorithm::RS256),
            ("zero", Algorithm::RS256, Algorithm::HS256),
            ("P-256", Algorithm::ES256, Algorithm::ES384),
            ("P-384", Algorithm::ES384, Algorithm::ES256),
            ("ed", Algorithm::EdDSA, Algorithm::ES256),
            ("ed9864", Algorithm::EdDSA, Algorithm::RS256),
        ] {
            assert!(set.find(Some(kid), good).is_ok(), "{kid}");
            assert_eq!(set.find(Some(kid), bad).err(), Some(NoKey::OtherAlgorithm), "{kid}");
        }
        assert_eq!(set.find(Some("other"), Algorithm::RS256).err(), Some(NoKey::Unknown));
    }

    #[test]
    fn keys_that_are_no_use_are_skipped() {
        let bad = json!([
            rsa_jwk("1024", json!({"n": bytes(0x80, 128)})),
            rsa_jwk("2047", json!({"n": bytes(0x7f, 256)})),
            rsa_jwk("padded", json!({"n": URL_SAFE_NO_PAD.encode([&[0; 128][..], &[0xff; 128]].concat())})),
            rsa_jwk("huge", json!({"n": bytes(0x80, 1025)})),
            rsa_jwk("e1", json!({"e": "AQ"})),
            rsa_jwk("even", json!({"e": "AQAA"})),
            rsa_jwk("e0", json!({"e": ""})),
            rsa_jwk("private", json!({"d": "AQAB"})),
            rsa_jwk("primes", json!({"p": "AQAB"})),
            rsa_jwk("enc", json!({"use": "enc"})),
            rsa_jwk("ops", json!({"key_ops": ["encrypt"]})),
            rsa_jwk("hmac", json!({"alg": "HS256"})),
            rsa_jwk("alg", json!({"alg": "ES256"})),
            rsa_jwk("null", json!({"alg": null})),
            rsa_jwk("n", json!({"n": "+/=="})),
            rsa_jwk("kid", json!({"kid": 7})),
            {"kty": "oct", "kid": "oct", "k": "AAAA"},
            {"kty": "oct", "kid": "empty"},
            {"kty": "EC", "crv": "P-256", "x": bytes(1, 31), "y": bytes(1, 33)},
            {"kty": "EC", "crv": "P-521", "x": bytes(1, 66), "y": bytes(1, 66)},
            {"kty": "EC", "crv": "secp256k1", "x": bytes(1, 32), "y": bytes(1, 32)},
            {"kty": "OKP", "crv": "Ed25519", "x": bytes(1, 31)},
            {"kty": "OKP", "crv": "X25519", "x": bytes(1, 32)},
            {"kty": "AKP", "alg": "ML-DSA-65", "pub": "AAAA"},
            {},
        ]);
        let (count, set) = (bad.as_array().expect("a list").len(), set(bad));
        assert_eq!((set.keys.len(), set.skipped.len()), (0, count), "{:?}", set.keys);
    }

    #[test]
    fn two_keys_of_one_name_are_not_guessed_at() {
        let other = json!({"n": bytes(0x81, 256)});
        let twice = set(json!([rsa_jwk("k", json!({})), rsa_jwk("k", other.clone())]));
        assert_eq!(twice.find(Some("k"), Algorithm::RS256).err(), Some(NoKey::Ambiguous));
        assert_eq!(twice.find(None, Algorithm::RS256).err(), Some(NoKey::Ambiguous));
        assert_eq!(twice.find(None, Algorithm::ES256).err(), Some(NoKey::Unknown));
        let same = set(json!([rsa_jwk("k", json!({"alg": "RS256"})), rsa_jwk("k", json!({"alg": "PS256"}))]));
        assert!(same.find(Some("k"), Algorithm::RS256).is_ok() && same.find(Some("k"), Algorithm::PS256).is_ok());
        let parted = set(json!([rsa_jwk("k", json!({"alg": "RS256"})), rsa_jwk("k", json!({"alg": "PS256", "n": other["n"]}))]));
        assert!(parted.find(None, Algorithm::RS256).is_ok(), "only one is for this algorithm");
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let keys = |count: usize| json!({"keys": vec![rsa_jwk("k", json!({})); count]}).to_string();
        assert!(KeySet::parse(keys(64).as_bytes()).is_ok());
        assert!(KeySet::parse(keys(65).as_bytes()).is_err());
        for bad in ["", "<html>", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[1]}"#, r#"{"keys":[],"keys":[]}"#] {
            assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
