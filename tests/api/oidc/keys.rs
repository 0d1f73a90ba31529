//! How keys come and go: fetched once for all, renewed, kept while the issuer is down, and not at the bidding of strangers.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, future::join_all, stream};
use serde_json::json;
use token_broker::identity::{Issuers, JwtError};
use tokio_util::sync::CancellationToken;

use super::{issuers, trusting, verify};
use crate::app::issuer::{Answering, Issuer, signing::SigningKey};

/// One renewal: the first comes at once.
async fn renew(trusted: &Issuers, issuer: &Issuer) {
    let (before, stop) = (issuer.discoveries(), CancellationToken::new());
    let renewing = tokio::spawn(trusted.clone().keep_fresh(stop.clone()));
    // The next token that needs a fetch joins this one, so that its end is known.
    until(|| issuer.discoveries() > before).await;
    let stranger = issuer.key().sign_with_header(&json!({"alg": "RS256", "kid": "nobody's"}), &issuer.claims());
    verify(trusted, &stranger).await.expect_err("nobody's key");
    stop.cancel();
    renewing.await.expect("it ends when told to");
}

async fn until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never came true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A token that names a key which nobody has.
fn of_a_stranger(issuer: &Issuer) -> String {
    let header = json!({"alg": "RS256", "kid": uuid::Uuid::new_v4().to_string()});
    // The signature is never looked at.
    let parts = [header, issuer.claims()].map(|part| crate::app::issuer::signing::encode(part.to_string().as_bytes()));
    format!("{}.{}.AAAA", parts[0], parts[1])
}

#[tokio::test]
async fn all_who_need_the_keys_first_share_one_fetch() {
    let issuer = Issuer::start().await;
    issuer.jwks_answers(Answering::Late(Duration::from_millis(200)));
    let trusted = trusting(&issuer);
    let tokens: Vec<String> = (0..200).map(|_| issuer.sign(&issuer.claims())).collect();
    for outcome in join_all(tokens.iter().map(|token| verify(&trusted, token))).await {
        outcome.expect("verified");
    }
    assert_eq!((issuer.discoveries(), issuer.fetches()), (1, 1));
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_cancel_the_fetch() {
    let issuer = Issuer::start().await;
    issuer.jwks_answers(Answering::Late(Duration::from_millis(300)));
    let (trusted, token) = (trusting(&issuer), issuer.sign(&issuer.claims()));
    tokio::select! {
        biased;
        _ = verify(&trusted, &token) => panic!("the keys are not there yet"),
        () = until(|| issuer.fetches() == 1) => {}
    }
    verify(&trusted, &token).await.expect("the fetch of the one who left");
    assert_eq!((issuer.discoveries(), issuer.fetches()), (1, 1));
}

#[tokio::test]
async fn a_new_key_is_found_and_an_old_one_forgotten() {
    let issuer = Issuer::start().await;
    let trusted = trusting(&issuer);
    let old = issuer.key();
    verify(&trusted, &issuer.sign(&issuer.claims())).await.expect("the first key");
    issuer.rotate_key();
    verify(&trusted, &issuer.sign(&issuer.claims())).await.expect("the new key, at once");
    verify(&trusted, &old.sign(&issuer.claims())).await.expect("the old key is still published");
    assert_eq!(issuer.fetches(), 2);

    issuer.publish(vec![issuer.key().jwk()]);
    renew(&trusted, &issuer).await;
    let refused = verify(&trusted, &old.sign(&issuer.claims())).await.expect_err("taken back");
    assert!(matches!(refused, JwtError::UnknownKey { .. }), "{refused}");
    verify(&trusted, &issuer.sign(&issuer.claims())).await.expect("the new key");
}

#[tokio::test]
async fn ten_thousand_unknown_keys_cause_two_fetches_at_most() {
    let issuer = Issuer::start().await;
    let trusted = trusting(&issuer);
    let strangers = stream::iter(0..10_000).map(|_| {
        let (trusted, token) = (trusted.clone(), of_a_stranger(&issuer));
        async move { verify(&trusted, &token).await.expect_err("nobody's key") }
    });
    let begun = Instant::now();
    let refusals: Vec<JwtError> = strangers.buffer_unordered(100).collect().await;
    println!("10,000 unknown keys: {} fetches, {:?}", issuer.fetches(), begun.elapsed());
    // Those that a fetch was made for are refused by what it brought; of the others it is said that nobody has looked yet.
    assert!(refusals.iter().all(|refusal| match refusal {
        JwtError::UnknownKey { .. } => true,
        JwtError::UnaskedKey { wait, .. } => *wait <= Duration::from_secs(30),
        _ => false,
    }));
    let looked_for = refusals.iter().filter(|refusal| matches!(refusal, JwtError::UnknownKey { .. })).count();
    assert!((1..10_000).contains(&looked_for), "{looked_for}");
    assert!((1..=2).contains(&issuer.fetches()) && issuer.discoveries() <= 2, "{} fetches", issuer.fetches());
    verify(&trusted, &issuer.sign(&issuer.claims())).await.expect("the rightful are served");
}

#[tokio::test]
async fn strangers_and_garbage_cause_no_fetch() {
    let (issuer, elsewhere) = (Issuer::start().await, Issuer::start().await);
    let trusted = trusting(&issuer);
    let mut claims = issuer.claims();
    let hs256 = issuer.key().sign_with_header(&json!({"alg": "HS256", "kid": "x"}), &claims);
    assert!(matches!(verify(&trusted, &hs256).await, Err(JwtError::Algorithm(_))));
    let not_allowed = SigningKey::generate("PS256").sign(&claims);
    assert!(matches!(verify(&trusted, &not_allowed).await, Err(JwtError::Algorithm(_))));
    for iss in [elsewhere.url().to_owned(), format!("{}/", issuer.url()), format!("{}/x", issuer.url())] {
        claims["iss"] = json!(iss);
        assert!(matches!(verify(&trusted, &elsewhere.sign(&claims)).await, Err(JwtError::UnknownIssuer(_))));
    }
    let nobody = issuers(&[]);
    assert!(matches!(verify(&nobody, &issuer.sign(&issuer.claims())).await, Err(JwtError::UnknownIssuer(_))));
    assert_eq!((issuer.discoveries(), elsewhere.discoveries()), (0, 0));
}

#[tokio::test]
async fn the_last_good_keys_serve_while_the_issuer_is_down() {
    let issuer = Issuer::start().await;
    let trusted = trusting(&issuer);
    verify(&trusted, &issuer.sign(&issuer.claims())).await.expect("the first");
    issuer.down();
    renew(&trusted, &issuer).await;
    verify(&trusted, &issuer.sign(&issuer.claims())).await.expect("with the last good keys");
    issuer.rotate_key();
    let refused = verify(&trusted, &issuer.sign(&issuer.claims())).await.expect_err("its key cannot be had");
    assert!(matches!(&refused, JwtError::KeysUnavailable { why, .. } if why.contains("503")), "{refused}");
    issuer.up();
    renew(&trusted, &issuer).await;
    verify(&trusted, &issuer.sign(&issuer.claims())).await.expect("its key is there again");
}

#[tokio::test]
async fn a_broker_started_before_its_issuer_soon_works() {
    let issuer = Issuer::start().await;
    issuer.down();
    let (trusted, token) = (trusting(&issuer), issuer.sign(&issuer.claims()));
    for _ in 0..100 {
        let refused = verify(&trusted, &token).await.expect_err("no keys yet");
        assert!(matches!(refused, JwtError::KeysUnavailable { .. }), "{refused}");
    }
    assert_eq!((issuer.discoveries(), issuer.fetches()), (1, 0), "a failing first fetch is not repeated for everybody");
    issuer.up();
    let begun = Instant::now();
    while verify(&trusted, &token).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(15), "it recovers without being told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((issuer.discoveries(), issuer.fetches()), (2, 1));
}

#[tokio::test]
async fn nobody_waits_for_a_fetch_that_another_needs() {
    let (slow, quick) = (Issuer::start().await, Issuer::start().await);
    let trusted = issuers(&[slow.url(), quick.url()]);
    verify(&trusted, &slow.sign(&slow.claims())).await.expect("the key is known");
    slow.jwks_answers(Answering::Late(Duration::from_millis(4500)));
    let (waiting_for, stranger) = (trusted.clone(), of_a_stranger(&slow));
    let waiting = tokio::spawn(async move { verify(&waiting_for, &stranger).await });
    until(|| slow.fetches() == 2).await;
    verify(&trusted, &quick.sign(&quick.claims())).await.expect("another issuer");
    verify(&trusted, &slow.sign(&slow.claims())).await.expect("the same issuer, a known key");
    assert!(!waiting.is_finished(), "both were served while the fetch went on");
    waiting.await.expect("no panic").expect_err("nobody's key");
}

#[tokio::test]
async fn issuers_are_listed_once_and_known_by_their_exact_url() {
    let issuer = Issuer::start().await;
    let entry = format!("gitlab={}", issuer.url());
    let trusted = issuers(&[&entry]);
    assert_eq!(trusted.kind_of(issuer.url()).map(|kind| kind.as_str()), Some("gitlab"));
    assert_eq!(trusted.kind_of(&format!("{}/", issuer.url())), None);
    let twice = vec![entry.parse().expect("an issuer"), issuer.url().parse().expect("an issuer")];
    assert!(Issuers::new(twice, "us".to_owned(), &token_broker::outbound::Route::default()).is_err());
    assert!(Issuers::new(Vec::new(), String::new(), &token_broker::outbound::Route::default()).is_err());
    let claims = json!({"iss": "anybody", "x": 1});
    let token = token_broker::secret::PresentedCredential::new(issuer.sign(&claims));
    let unverified = Issuers::unverified_claims(&token).expect("it can be read");
    assert_eq!(serde_json::Value::Object(unverified), claims);
}
