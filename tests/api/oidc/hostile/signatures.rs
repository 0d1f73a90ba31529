//! Signatures that are not the issuer's over these very bytes.

use serde_json::{Value, json};

use super::{Case, Stage};
use crate::app::issuer::signing::{SigningKey, encode};

/// The order of P-256, and that of Ed25519 (the latter from its lowest byte).
const P256_ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
const ED25519_ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

pub(super) fn cases(stage: &Stage) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |class, token: String, expected| cases.push(Case { class, token, expected });
    let claims = stage.claims(json!({"filler": "aaaaaaaaaaaaaaaa"}));

    for key in stage.keys() {
        let (message, good) = taken_apart(key, &claims);
        let with = |signature: &[u8]| format!("{message}.{}", encode(signature));
        let len = good.len();
        for signature in [
            vec![],
            vec![0],
            vec![0; len],
            vec![0xff; len],
            vec![1; len],
            good[..1].to_vec(),
            good[..len / 2].to_vec(),
            good[..len - 1].to_vec(),
            good[1..].to_vec(),
            [&good[..], &[0]].concat(),
            [&[0], &good[..]].concat(),
            [&good[..], &good[..]].concat(),
            good.iter().rev().copied().collect(),
            key.sign_bytes(b""),
            key.sign_bytes(message.replace('.', "").as_bytes()),
            key.sign_bytes(format!("{message}.").as_bytes()),
            key.sign_bytes(&good),
            taken_apart(key, &stage.claims(json!({"sub": "another job"}))).1,
        ] {
            add("another signature", with(&signature), "Signature");
        }
        for at in (0..len).step_by(if len > 96 { 16 } else { 1 }) {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << (at % 8);
            add("a bit of the signature flipped", with(&flipped), "Signature");
        }
        // The key of another, under the name of this one.
        for stranger in [SigningKey::generate(key.algorithm), SigningKey::generate(key.algorithm)] {
            let header = json!({"alg": key.algorithm, "kid": key.kid});
            add("forged", stranger.sign_with_header(&header, &claims), "Signature");
            add("forged under its own name", stranger.sign(&claims), "UnknownKey|UnaskedKey");
        }
    }
    let header = json!({"alg": "RS256", "kid": stage.rsa.kid});
    add("signed by another issuer", stage.other.key().sign_with_header(&header, &claims), "Signature");
    add("signed by another issuer, under its name", stage.other.sign(&claims), "UnknownKey|UnaskedKey");

    tampered(stage, &claims, &mut add);
    of_curves(stage, &claims, &mut add);
    cases
}

/// What is signed, and the signature.
fn taken_apart(key: &SigningKey, claims: &Value) -> (String, Vec<u8>) {
    let token = key.sign(claims);
    let (message, _) = token.rsplit_once('.').expect("three parts");
    (message.to_owned(), key.sign_bytes(message.as_bytes()))
}

/// The signature stays, what was signed does not.
fn tampered(stage: &Stage, claims: &Value, add: &mut impl FnMut(&'static str, String, &'static str)) {
    for key in stage.keys() {
        let good = key.sign(claims);
        let parts: Vec<&str> = good.split('.').collect();
        let changed = |name: &str, value: Value| {
            let mut claims = claims.clone();
            claims[name] = value;
            format!("{}.{}.{}", parts[0], encode(claims.to_string().as_bytes()), parts[2])
        };
        add("a claim changed", changed("sub", json!("job:2")), "Signature");
        add("a claim changed", changed("jti", json!("again")), "Signature");
        add("a claim changed", changed("repository", json!("acme/other")), "Signature");
        add("a claim changed", changed("exp", json!(claims["exp"].as_i64().expect("a time") + 60)), "Signature");
        // No reason is given beyond the signature: what a forger wrote is not judged.
        add("a claim changed", changed("aud", json!("elsewhere")), "Signature");
        add("a claim changed", changed("exp", json!(1)), "Signature");
        let header = json!({"alg": key.algorithm, "kid": key.kid, "typ": "JWT", "x": 1}).to_string();
        add("the header changed", format!("{}.{}.{}", encode(header.as_bytes()), parts[1], parts[2]), "Signature");
        for at in 0..16 {
            for bit in [0, 1] {
                let payload = claims.to_string();
                let filler = payload.find("aaaa").expect("the filler");
                let mut bytes = payload.into_bytes();
                bytes[filler + at] ^= 2 << bit;
                add("a bit of the payload flipped", format!("{}.{}.{}", parts[0], encode(&bytes), parts[2]), "Signature");
            }
        }
    }
    // Any character of the token itself: where it falls decides why, never whether.
    let good = stage.ec.sign(claims);
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] ^= 1 << (at % 7);
        let Ok(token) = String::from_utf8(bytes) else { continue };
        let expected = "Malformed|NotThreeParts|Header|Algorithm|UnknownIssuer|UnknownKey|UnaskedKey|Signature|Claim iss";
        add("a bit of the text flipped", token, expected);
    }
}

/// What is wrong only with signatures over curves.
fn of_curves(stage: &Stage, claims: &Value, add: &mut impl FnMut(&'static str, String, &'static str)) {
    let (message, good) = taken_apart(&stage.ec, claims);
    let (r, s) = good.split_at(32);
    let order = hex::decode(P256_ORDER).expect("hex");
    let der = |number: &[u8]| {
        let sign: &[u8] = if number[0] & 0x80 == 0 { &[] } else { &[0] };
        [&[2, (number.len() + sign.len()) as u8], sign, number].concat()
    };
    let inner = [der(r), der(s)].concat();
    let mut s_and_order = s.to_vec();
    let mut carry = 0;
    for (digit, add) in s_and_order.iter_mut().rev().zip(order.iter().rev()) {
        let sum = u16::from(*digit) + u16::from(*add) + carry;
        (*digit, carry) = (sum as u8, sum >> 8);
    }
    for signature in [
        [&[0; 32], s].concat(),
        [r, &[0; 32]].concat(),
        [s, r].concat(),
        [&order[..], s].concat(),
        [r, &order[..]].concat(),
        [&order[..], &order[..]].concat(),
        [r, &s_and_order[..]].concat(),
        [&[0x30, inner.len() as u8], &inner[..]].concat(),
        [&[0; 16], r, &[0; 16], s].concat(),
        [&[0; 31][..], &[1], &[0; 31], &[1]].concat(),
    ] {
        add("numbers that are no ES256 signature", format!("{message}.{}", encode(&signature)), "Signature");
    }

    let (message, mut good) = taken_apart(&stage.ed, claims);
    let mut carry = 0;
    for (digit, add) in good[32..].iter_mut().zip(hex::decode(ED25519_ORDER).expect("hex")) {
        let sum = u16::from(*digit) + u16::from(add) + carry;
        (*digit, carry) = (sum as u8, sum >> 8);
    }
    add("a second spelling of an EdDSA signature", format!("{message}.{}", encode(&good)), "Signature");
}
