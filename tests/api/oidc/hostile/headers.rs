//! Headers that would choose the algorithm or the key themselves.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Case, Stage};
use crate::app::issuer::signing::{SigningKey, encode};

/// Headers that are unusual, and mean nothing.
pub(super) fn harmless(stage: &Stage) -> Vec<String> {
    let header = |changes| stage.rsa.sign_with_header(&stage.header(changes), &stage.issuer.claims());
    let without_kid = json!({"alg": "EdDSA"});
    vec![
        header(json!({"x5t": "ykNaY4qM_ta4k2TgZOCEYLkcYlA", "x5t#S256": "x", "typ": "at+jwt", "cty": "json"})),
        header(json!({"typ": "jwt", "extension": {"deep": [1]}})),
        // Only one of the issuer's keys is for EdDSA.
        stage.ed.sign_with_header(&without_kid, &stage.issuer.claims()),
    ]
}

pub(super) fn cases(stage: &Stage) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |class, token: String, expected| cases.push(Case { class, token, expected });
    let claims = stage.issuer.claims();
    let signed = |changes: Value| stage.rsa.sign_with_header(&stage.header(changes), &claims);
    let unsigned = |changes: Value| {
        let (header, payload) = (stage.header(changes).to_string(), claims.to_string());
        format!("{}.{}.", encode(header.as_bytes()), encode(payload.as_bytes()))
    };

    for alg in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        " ",
        "RS256 ",
        " RS256",
        "rs256",
        "Rs256",
        "RS-256",
        "RS1",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "HS256",
        "HS384",
        "HS512",
        "ES512",
        "ES256K",
        "es256",
        "EDDSA",
        "Ed25519",
        "dir",
        "A256GCM",
        "RSA1_5",
        "R\u{405}256",
        "RS256,none",
        "*",
    ] {
        add("algorithm of the header's own", signed(json!({"alg": alg})), "Algorithm");
        add("algorithm of the header's own, unsigned", unsigned(json!({"alg": alg})), "Algorithm");
    }
    for alg in [json!(null), json!(256), json!(true), json!(["RS256"]), json!({"RS256": 1})] {
        add("algorithm of the wrong type", signed(json!({"alg": alg})), "Header alg");
    }
    add("algorithm missing", stage.rsa.sign_with_header(&json!({"kid": stage.rsa.kid}), &claims), "Header alg");
    for key in stage.keys() {
        for other in stage.keys().into_iter().filter(|other| other.algorithm != key.algorithm) {
            let header = |kid: &str| json!({"alg": other.algorithm, "kid": kid});
            add("algorithm swapped", key.sign_with_header(&header(&key.kid), &claims), "Algorithm");
            add("key of another kind", key.sign_with_header(&header(&other.kid), &claims), "Signature");
        }
    }

    for (key, secret) in public_things(stage) {
        for (alg, hash) in [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)] {
            let with = |alg: &str| {
                let header = json!({"alg": alg, "kid": key.kid, "typ": "JWT"}).to_string();
                let message = format!("{}.{}", encode(header.as_bytes()), encode(claims.to_string().as_bytes()));
                let tag = hmac::sign(&hmac::Key::new(hash, &secret), message.as_bytes());
                format!("{message}.{}", encode(tag.as_ref()))
            };
            add("HMAC with what is public", with(alg), "Algorithm");
            add("HMAC in the place of a signature", with(key.algorithm), "Signature");
        }
    }

    let own_key = stage.attacker.jwk();
    for (member, values) in [
        ("jku", vec![json!("https://evil.example/jwks"), json!(format!("{}/keys", stage.issuer.url()))]),
        ("x5u", vec![json!("https://evil.example/cert.pem"), json!("file:///etc/passwd")]),
        ("jwk", vec![own_key.clone(), json!({})]),
        ("x5c", vec![json!(["MIIB"]), json!([])]),
        ("crit", vec![json!(["exp"]), json!([]), json!(["b64"])]),
        ("zip", vec![json!("DEF"), json!("")]),
        ("b64", vec![json!(false), json!(true)]),
    ] {
        let expected: &'static str = match member {
            "jku" => "Header jku",
            "x5u" => "Header x5u",
            "jwk" => "Header jwk",
            "x5c" => "Header x5c",
            "crit" => "Header crit",
            "zip" => "Header zip",
            _ => "Header b64",
        };
        for value in values.into_iter().chain([json!(null), json!(1)]) {
            add("key in the header", signed(json!({member: value})), expected);
            let forged = stage.attacker.sign_with_header(&stage.header(json!({member: value})), &claims);
            add("key in the header, forged", forged, expected);
        }
    }

    for typ in [
        json!("JWE"),
        json!("secevent+jwt"),
        json!("logout+jwt"),
        json!(""),
        json!("JWT "),
        json!(null),
        json!(1),
        json!(["JWT"]),
    ] {
        add("other type of token", signed(json!({"typ": typ})), "Header typ");
    }
    for kid in [json!(null), json!(1), json!(true), json!([stage.rsa.kid]), json!({}), json!("k".repeat(257))] {
        add("kid that is no short text", signed(json!({"kid": kid})), "Header kid");
    }
    let kid = &stage.rsa.kid;
    for stranger in [
        String::new(),
        "../../../../dev/null".to_owned(),
        "/etc/passwd".to_owned(),
        "' or '1'='1".to_owned(),
        "x'; drop table teams; --".to_owned(),
        "%".to_owned(),
        "*".to_owned(),
        "__proto__".to_owned(),
        "http://127.0.0.1/".to_owned(),
        "\r\nX-Evil: 1".to_owned(),
        "\u{202e}dik".to_owned(),
        "{{7*7}}".to_owned(),
        "k".repeat(256),
        kid.to_lowercase(),
        format!("{kid} "),
        format!(" {kid}"),
        kid[..kid.len() - 1].to_owned(),
        format!("{kid}{kid}"),
        stage.other.key().kid.clone(),
        stage.attacker.kid.clone(),
    ] {
        add("kid of no key", signed(json!({"kid": stranger})), "UnknownKey|UnaskedKey");
    }
    add("kid of another key", signed(json!({"kid": stage.rsa_too.kid})), "Signature");
    add("kid of a small key", signed(json!({"kid": "rsa-1024"})), "UnknownKey|UnaskedKey");
    add("no kid where two keys fit", stage.rsa.sign_with_header(&json!({"alg": "RS256"}), &claims), "AmbiguousKey");
    cases
}

/// What anybody can know of each key, as a secret for HMAC.
fn public_things(stage: &Stage) -> Vec<(&SigningKey, Vec<u8>)> {
    let mut things = Vec::new();
    for key in stage.keys() {
        let pem = |kind: &str| format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(key.public_bytes()));
        things.extend([
            (key, key.public_bytes()),
            (key, pem("PUBLIC KEY").into_bytes()),
            (key, pem("RSA PUBLIC KEY").into_bytes()),
            (key, key.jwk().to_string().into_bytes()),
            (key, key.kid.clone().into_bytes()),
            (key, Vec::new()),
        ]);
    }
    let (n, e) = stage.rsa.rsa_components();
    things.extend([(&*stage.rsa, encode(&n).into_bytes()), (&*stage.rsa, n), (&*stage.rsa, e)]);
    things
}
