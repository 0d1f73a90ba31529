//! What a broken or hostile issuer may answer: the keys are not taken, and nobody waits long or reads much.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use token_broker::identity::{Identity, JwtError};

use super::{trusting, verify};
use crate::app::issuer::{Answering, Issuer, signing::SigningKey};

/// What a token is answered whose issuer answers so.
async fn with(prepare: impl FnOnce(&Issuer)) -> Result<Identity, JwtError> {
    // Its keys are made in no time: the tests below measure time.
    with_key("ES256", prepare).await
}

async fn with_key(algorithm: &'static str, prepare: impl FnOnce(&Issuer)) -> Result<Identity, JwtError> {
    let issuer = Issuer::start_with(SigningKey::generate(algorithm)).await;
    prepare(&issuer);
    verify(&trusting(&issuer), &issuer.sign(&issuer.claims())).await
}

fn why(outcome: Result<Identity, JwtError>) -> String {
    match outcome {
        Err(JwtError::KeysUnavailable { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

/// What is wrong with either of the two answers, and what the refusal says.
fn wrong_answers() -> Vec<(Answering, &'static str)> {
    let text = |text: &str| Answering::Text(text.to_owned());
    vec![
        (Answering::Status(500), "answered 500"),
        (Answering::Status(404), "answered 404"),
        (Answering::Status(204), "answered 204"),
        (text(""), "no "),
        (text("<!doctype html><title>Sign in</title>"), "no "),
        (text("{\"issuer\":"), "no "),
        (text("[]"), "no "),
        (text("null"), "no "),
        (text(&format!("\"{}\"", "x".repeat(90_000))), "no "),
        (text(&"[".repeat(50_000)), "no "),
        (text(&"x".repeat(200 * 1024)), "more than 102400 bytes"),
        (Answering::Endlessly, "more than 102400 bytes"),
        (Answering::Dripping, "no answer within 5 s|timed out"),
        (Answering::Late(Duration::from_secs(60)), "no answer within 5 s|timed out"),
    ]
}

#[tokio::test]
async fn wrong_answers_give_no_keys_within_five_seconds() {
    // First all is made ready, which takes the machine a while, then time runs.
    let mut ready = Vec::new();
    for (at, (answering, expected)) in wrong_answers().into_iter().chain(wrong_answers()).enumerate() {
        let issuer = Issuer::start_with(SigningKey::generate("ES256")).await;
        let name = format!("{answering:?}");
        if at < wrong_answers().len() {
            issuer.discovery_answers(answering)
        } else {
            issuer.jwks_answers(answering)
        }
        ready.push((name, expected, trusting(&issuer), issuer.sign(&issuer.claims()), issuer));
    }
    let asked = ready.iter().map(|(_, _, trusted, token, _)| async move {
        let begun = Instant::now();
        (verify(trusted, token).await, begun.elapsed())
    });
    for ((name, expected, ..), (outcome, took)) in ready.iter().zip(join_all(asked).await) {
        let why = why(outcome);
        assert!(expected.split('|').any(|expected| why.contains(expected)), "{why} instead of {expected}: {name:.200}");
        assert!(why.len() < 500, "{why}");
        assert!(took < Duration::from_secs(20), "{name:.200} took {took:?}");
    }
}

#[tokio::test]
async fn five_seconds_are_for_both_answers_together() {
    let late = Answering::Late(Duration::from_secs(4));
    let outcome = with(|issuer| {
        issuer.discovery_answers(late.clone());
        issuer.jwks_answers(late);
    });
    // Each of them alone would have been in time.
    assert!(why(outcome.await).contains("no answer within 5 s"));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Issuer::start().await;
    for path in ["/.well-known/openid-configuration", "/keys"] {
        let target = format!("{}{path}", elsewhere.url());
        let outcome = match path {
            "/keys" => with(|issuer| issuer.jwks_answers(Answering::RedirectTo(target))).await,
            _ => with(|issuer| issuer.discovery_answers(Answering::RedirectTo(target))).await,
        };
        assert!(why(outcome).contains("answered 302"));
    }
    assert_eq!((elsewhere.discoveries(), elsewhere.fetches()), (0, 0));
}

#[tokio::test]
async fn discovery_that_names_another_issuer_is_refused() {
    let elsewhere = Issuer::start().await;
    let keys = format!("{}/keys", elsewhere.url());
    let issuer = Issuer::start().await;
    for (named, jwks_uri) in [
        (elsewhere.url().to_owned(), keys.clone()),
        (format!("{}/", issuer.url()), keys.clone()),
        (issuer.url().to_uppercase(), keys.clone()),
        (String::new(), keys.clone()),
        (issuer.url().to_owned(), "http://keys.invalid/".to_owned()),
        (issuer.url().to_owned(), "file:///etc/passwd".to_owned()),
        (issuer.url().to_owned(), "/keys".to_owned()),
    ] {
        issuer.discovery_answers(Answering::Text(json!({"issuer": named, "jwks_uri": jwks_uri}).to_string()));
        let reason = why(verify(&trusting(&issuer), &issuer.sign(&issuer.claims())).await);
        assert!(reason.contains("discovery document is of") || reason.contains("jwks_uri"), "{reason}");
    }
    assert_eq!(elsewhere.fetches(), 0);
    // The keys themselves may be kept anywhere.
    issuer.discovery_answers(Answering::Text(json!({"issuer": issuer.url(), "jwks_uri": keys}).to_string()));
    verify(&trusting(&issuer), &elsewhere.key().sign(&issuer.claims())).await.expect("with the keys of the other address");
    assert_eq!(elsewhere.fetches(), 1);
}

#[tokio::test]
async fn a_key_set_has_64_keys_and_100_kib_at_most() {
    let numbered = |jwk: &Value, count: usize| -> Vec<Value> {
        (0..count)
            .map(|at| {
                let mut jwk = jwk.clone();
                jwk["kid"] = json!(at.to_string());
                jwk
            })
            .collect()
    };
    let of = |count: usize, filler: usize| {
        with(move |issuer| {
            let mut all = numbered(&SigningKey::generate("ES256").jwk(), count - 1);
            let mut own = issuer.key().jwk();
            own["x5c"] = json!(["x".repeat(filler)]);
            all.push(own);
            issuer.publish(all);
        })
    };
    of(64, 0).await.expect("64 keys");
    assert!(why(of(65, 0).await).contains("65 keys"));
    assert!(why(of(100, 0).await).contains("100 keys"));
    of(1, 99 * 1024).await.expect("99 KiB");
    assert!(why(of(1, 100 * 1024).await).contains("more than 102400 bytes"));
    assert!(why(of(10_000, 0).await).contains("more than 102400 bytes"));
}

#[tokio::test]
async fn keys_that_must_not_be_used_are_skipped_and_the_others_serve() {
    let changed = |name: &'static str, value: Value| {
        with_key("RS256", move |issuer| {
            let mut jwk = issuer.key().jwk();
            jwk[name] = value;
            issuer.publish(vec![jwk, SigningKey::generate("ES256").jwk()]);
        })
    };
    for (name, value) in [
        ("d", json!("AQAB")),
        ("k", json!("AQAB")),
        ("kty", json!("oct")),
        ("kty", json!("XYZ")),
        ("use", json!("enc")),
        ("key_ops", json!(["sign"])),
        ("n", json!("AQAB")),
        ("e", json!("AQ")),
        ("kid", json!("another")),
        ("kid", json!(null)),
    ] {
        let refused = changed(name, value.clone()).await.expect_err("its key is not to be used");
        assert!(matches!(refused, JwtError::UnknownKey { .. }), "{name} {value}: {refused}");
    }
    let refused = changed("alg", json!("PS256")).await.expect_err("the key is for another algorithm");
    assert!(matches!(refused, JwtError::Algorithm(_)), "{refused}");
    let outcome = with(|issuer| {
        let mut private = SigningKey::generate("ES256").jwk();
        private["d"] = json!("AQAB");
        issuer.publish(vec![private, json!({"kty": "oct", "k": "AQAB"}), json!({"kty": "new"}), issuer.key().jwk()]);
    });
    outcome.await.expect("the good key among them");
    let twice = with(|issuer| {
        let mut twin = SigningKey::generate("ES256").jwk();
        twin["kid"] = issuer.key().jwk()["kid"].clone();
        issuer.publish(vec![twin, issuer.key().jwk()]);
    });
    let refused = twice.await.expect_err("two keys of one name");
    assert!(matches!(refused, JwtError::AmbiguousKey { .. }), "{refused}");
}
