//! How much may be asked, and that nobody is locked out by others' guessing.

use std::num::NonZeroU32;

use serde_json::json;
use token_broker::api::Rates;

use crate::app::TestApp;

async fn limited(per_credential: u32, per_address: u32, failures: u32) -> TestApp {
    let some = |rate| NonZeroU32::new(rate).expect("it is not zero");
    let rates = Rates { per_credential: some(per_credential), per_address: some(per_address), failures: some(failures) };
    TestApp::start_changed(move |settings| settings.rates = rates).await
}

#[tokio::test]
async fn a_credential_that_asks_too_much_is_told_when_to_ask_again_and_others_are_not() {
    let app = limited(10, 10_000, 10_000).await;
    for _ in 0..10 {
        app.ci.get("/whoami").await.expect(200);
    }
    let refused = app.ci.get("/whoami").await.refused(429, "rate-limited");
    assert!((1..=6).contains(&refused.retry_after()), "{}", refused.retry_after());
    app.ci.refresh("deploy", json!({})).await.refused(429, "rate-limited");
    app.viewer.get("/whoami").await.expect(200);
}

#[tokio::test]
async fn an_address_that_asks_too_much_is_refused_before_anything_is_looked_at_but_health_is_answered() {
    let app = limited(10_000, 30, 10_000).await;
    let mut refused = 0;
    for _ in 0..40 {
        refused += usize::from(app.ci.nobody().get("/openapi.json").await.status == 429);
    }
    assert!(refused >= 10, "{refused}");
    app.ci.get("/whoami").await.refused(429, "rate-limited");
    app.ci.nobody().get("/health/live").await.expect(200);
    app.ci.nobody().get("/health/ready").await.expect(200);
}

#[tokio::test]
async fn who_guesses_is_slowed_down_and_the_rightful_owner_is_let_in_all_the_while() {
    let app = limited(10_000, 10_000, 20).await;
    let good = app.ci.key();
    let wrong = app.ci.with_key(crate::authentication::with_another_secret(good));
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(wrong.get("/whoami").await.status);
        app.ci.get("/whoami").await.expect(200);
    }
    assert_eq!(statuses[..20], [401; 20]);
    assert_eq!(statuses[20..], [429; 10]);
    assert!(wrong.get("/whoami").await.refused(429, "rate-limited").retry_after() >= 1);
    app.admin.get("/whoami").await.expect(200);
}

#[tokio::test]
async fn a_flood_of_strangers_does_not_fill_the_audit() {
    let app = TestApp::start().await;
    let nobody = app.ci.with_key("no.such.token".to_owned());
    for _ in 0..200 {
        nobody.get("/whoami").await.refused(401, "unauthenticated");
    }
    let rows = app.database.count("select count(*) from audit_events where outcome = 'refused'").await;
    assert!((1..=61).contains(&rows), "{rows}");
}
