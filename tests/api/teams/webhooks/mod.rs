//! `/teams/{team}/webhooks`: who may make them, and what they are told.

mod receiver;

use receiver::Receiver;
use serde_json::{Value, json};
use token_broker::dev::simulator::{Fault, Route, Rule};

use crate::app::TestApp;

/// What is still to be told, and the job for it, become as old as if it had been so long ago.
async fn age_notices(app: &TestApp, seconds: i64) {
    app.database
        .run(&format!(
            "update webhook_notices set at = at - interval '{seconds} s';
             update jobs set due_at = due_at - interval '{seconds} s' where kind = 'webhook'"
        ))
        .await;
}

async fn webhook(app: &TestApp, name: &str) -> Value {
    app.admin.get(&format!("/teams/payments/webhooks/{name}")).await.expect(200).json
}

/// Asks until the webhook is so.
async fn webhook_until(app: &TestApp, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut seen = Value::Null;
    for _ in 0..100 {
        seen = webhook(app, name).await;
        if wanted(&seen) {
            return seen;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("it never was: {seen:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_made_read_tested_and_deleted() {
    let (receiver, app) = Receiver::allowed_by_a_broker().await;
    let url = format!("{}/secret-path", receiver.url);
    let made = app.admin.post("/teams/payments/webhooks", json!({"name": "on-call", "url": url})).await.expect(201);
    let secret = made.json["secret"].as_str().expect("a secret").to_owned();
    let mut shown = made.shown();
    assert_eq!(shown["body"]["origin"], receiver.url);
    (shown["body"]["origin"], shown["body"]["secret"]) = (json!("[origin]"), json!("[secret]"));
    insta::assert_json_snapshot!(shown);
    let read = app.admin.get(made.header("location")).await.expect(200);
    let listed = app.admin.get("/teams/payments/webhooks").await.expect(200);
    assert_eq!(listed.json["items"], json!([read.json]));
    for answer in [&read, &listed] {
        assert!(!answer.text.contains("whsec_") && !answer.text.contains("secret-path"), "{}", answer.text);
    }
    assert!(!app.database.dump().await.contains("secret-path"), "a URL's path may be a secret");

    app.admin.post("/teams/payments/webhooks/on-call/test", json!({})).await.expect(202);
    let post = receiver.told("webhook.test").await;
    assert_eq!((post.path.as_str(), &post.json()["data"]), ("/secret-path", &json!({"team": "payments"})));
    assert!(post.is_signed_by(&secret), "{post:?}");
    let told = webhook_until(&app, "on-call", |webhook| webhook["waiting"] == 0).await;
    assert!(told["told_at"].is_string() && told["last_error"].is_null(), "{told}");

    app.admin.delete("/teams/payments/webhooks/on-call").await.expect(204);
    for answer in [
        app.admin.delete("/teams/payments/webhooks/on-call").await,
        app.admin.get("/teams/payments/webhooks/on-call").await,
        app.admin.post("/teams/payments/webhooks/on-call/test", json!({})).await,
    ] {
        answer.refused(404, "not-found");
    }
    let audited = "select count(*) from audit_events where action in ('webhook.create', 'webhook.test', 'webhook.delete')";
    assert_eq!(app.database.count(audited).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_that_a_token_is_uncertain_and_that_it_is_healed() {
    let (receiver, app) = Receiver::allowed_by_a_broker().await;
    let secret = receiver.subscribe(&app, "all", &["token.uncertain", "token.healed", "token.lost", "token.deadline"]).await;
    receiver.subscribe(&app, "lost-only", &["token.lost"]).await;
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    app.register("deploy").await;
    app.simulator.fault(Rule::once(Fault::DropResponseAfterCommit, Route::Refresh));
    app.admin.refresh("deploy", json!({"max_age": 0, "wait": 1})).await.expect(200);
    let uncertain = receiver.told("token.uncertain").await;
    let healed = receiver.told("token.healed").await;
    assert_eq!(uncertain.json()["data"]["chain"], healed.json()["data"]["chain"]);
    assert_eq!(uncertain.json()["data"]["token"], "deploy");
    assert!(uncertain.is_signed_by(&secret) && healed.is_signed_by(&secret));
    let posts = receiver.posts();
    assert!(posts.iter().all(|post| post.path == "/all"), "{posts:?}");
    assert_eq!(posts.len(), 2, "neither the registration nor a rotation is told: {posts:?}");
    for secret in app.simulator.secrets() {
        assert!(posts.iter().all(|post| !post.body.contains(&secret)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_that_a_token_is_lost_and_why() {
    let (receiver, app) = Receiver::allowed_by_a_broker().await;
    receiver.subscribe(&app, "all", &["token.lost"]).await;
    app.register_with("deploy", json!({"chains": 1})).await.expect(201);
    app.simulator.fault(Rule::once(Fault::DropResponseAfterCommit, Route::Refresh));
    app.admin.refresh("deploy", json!({"max_age": 0, "wait": 1})).await.refused(503, "refresh-uncertain");
    let lost = receiver.told("token.lost").await.json();
    assert_eq!(lost["data"], json!({"team": "payments", "token": "deploy", "generation": 1, "reason": "lost"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_once_that_a_token_is_close_to_its_deadline() {
    let (receiver, app) = Receiver::allowed_by_a_broker().await;
    receiver.subscribe(&app, "all", &["token.deadline"]).await;
    app.register_with("deploy", json!({"expires_in": 100_000})).await.expect(201);
    app.simulator.fault(Rule::always(Fault::Unavailable));
    app.let_pass(70_000).await;
    app.keep_alive_now().await;
    assert!(receiver.posts().is_empty(), "{:?}", receiver.posts());
    app.let_pass(15_000).await;
    app.keep_alive_now().await;
    let told = receiver.told("token.deadline").await.json();
    assert_eq!((&told["data"]["token"], told["data"]["expires_at"].is_string()), (&json!("deploy"), true), "{told}");
    app.let_pass(1_000).await;
    app.keep_alive_now().await;
    app.keep_alive_now().await;
    assert_eq!(receiver.posts().len(), 1, "{:?}", receiver.posts());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_does_not_take_is_told_again_with_the_same_id_and_given_up_after_a_day() {
    let (receiver, app) = Receiver::allowed_by_a_broker().await;
    receiver.subscribe(&app, "all", &["token.lost"]).await;
    receiver.answer(503);
    app.admin.post("/teams/payments/webhooks/all/test", json!({})).await.expect(202);
    let failed = webhook_until(&app, "all", |webhook| !webhook["last_error"].is_null()).await;
    assert_eq!((&failed["last_error"]["detail"], &failed["waiting"]), (&json!("it answered 503"), &json!(1)));
    let again = app.admin.post("/teams/payments/webhooks/all/test", json!({})).await.expect(202);
    assert_eq!(again.json["waiting"], 1, "one test waits for no other");
    // A redirect would carry it elsewhere.
    receiver.answer(307);
    age_notices(&app, 100).await;
    webhook_until(&app, "all", |webhook| webhook["last_error"]["detail"] == "it answered 307").await;
    receiver.answer(0);
    age_notices(&app, 200).await;
    webhook_until(&app, "all", |webhook| webhook["waiting"] == 0 && webhook["last_error"].is_null()).await;
    let posts = receiver.posts();
    assert_eq!(posts.len(), 3);
    assert!(posts.iter().all(|post| post.id == posts[0].id && post.path == "/all"), "{posts:?}");

    receiver.answer(500);
    app.admin.post("/teams/payments/webhooks/all/test", json!({})).await.expect(202);
    webhook_until(&app, "all", |webhook| !webhook["last_error"].is_null()).await;
    age_notices(&app, 90_000).await;
    let given_up = webhook_until(&app, "all", |webhook| webhook["waiting"] == 0).await;
    assert_eq!(given_up["last_error"]["detail"], "it answered 500");
    let event = app.admin.get("/audit?action=webhook.tell").await.expect(200).json["items"][0].clone();
    assert_eq!((&event["outcome"], &event["reason"]), (&json!("failed"), &json!("it answered 500")));
    assert_eq!(app.database.count("select count(*) from jobs where kind = 'webhook'").await, 0);
}

#[tokio::test]
async fn a_bad_one_is_refused() {
    let (receiver, app) = Receiver::allowed_by_a_broker().await;
    let good = format!("{}/x", receiver.url);
    for (body, field) in [
        (json!({"url": good}), "name"),
        (json!({"name": "A B", "url": good}), "name"),
        (json!({"name": "w"}), "url"),
        (json!({"name": "w", "url": 7}), "url"),
        (json!({"name": "w", "url": "not a url"}), "url"),
        (json!({"name": "w", "url": "http://169.254.169.254/latest"}), "url"),
        (json!({"name": "w", "url": "https://example.com/"}), "url"),
        (json!({"name": "w", "url": "file:///etc/passwd"}), "url"),
        (json!({"name": "w", "url": good.replace("http://", "http://user:word@")}), "url"),
        (json!({"name": "w", "url": format!("{good}/{}", "a".repeat(2_000))}), "url"),
        (json!({"name": "w", "url": good, "events": []}), "events"),
        (json!({"name": "w", "url": good, "events": ["token.found"]}), "events"),
        (json!({"name": "w", "url": good, "events": "token.lost"}), "events"),
        (json!({"name": "w", "url": good, "secret": "mine"}), "secret"),
    ] {
        let answer = app.admin.post("/teams/payments/webhooks", body).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), [field], "{}", answer.text);
    }
    for number in 0..20 {
        receiver.subscribe(&app, &format!("w{number}"), &["token.lost"]).await;
    }
    let taken = json!({"name": "w0", "url": good});
    app.admin.delete("/teams/payments/webhooks/w19").await.expect(204);
    app.admin.post("/teams/payments/webhooks", taken).await.refused(409, "name-taken");
    receiver.subscribe(&app, "w19", &["token.lost"]).await;
    let answer = app.admin.post("/teams/payments/webhooks", json!({"name": "w20", "url": good})).await;
    assert_eq!(answer.refused(422, "invalid-request").fields(), ["name"]);
}

#[tokio::test]
async fn only_an_admin_of_all_tokens_has_to_do_with_them() {
    let (receiver, app) = Receiver::allowed_by_a_broker().await;
    receiver.subscribe(&app, "all", &["token.lost"]).await;
    let narrow = app.team_key("payments", "narrow", json!({"role": "admin", "tokens": ["deploy-*"]})).await;
    let body = json!({"name": "w", "url": receiver.url});
    narrow.get("/teams/payments/webhooks").await.refused(403, "forbidden");
    narrow.post("/teams/payments/webhooks", body.clone()).await.refused(403, "forbidden");
    narrow.delete("/teams/payments/webhooks/all").await.refused(403, "forbidden");
    app.platform.post("/teams/payments/webhooks", body).await.expect(201);
}

#[tokio::test]
async fn where_the_operator_allows_no_server_no_webhook_is_made() {
    let app = TestApp::start_changed(|settings| settings.webhook_hosts.clear()).await;
    let answer = app.admin.post("/teams/payments/webhooks", json!({"name": "w", "url": "https://hooks.example/"})).await;
    let answer = answer.refused(422, "invalid-request");
    assert!(answer.text.contains("TOKEN_BROKER_WEBHOOK_HOSTS"), "{}", answer.text);
}
