//! A token with one chain only, whose refresh got lost: nothing else is there to heal it with.

use serde_json::json;
use token_broker::dev::simulator::{Fault, Route, Rule};

use crate::app::TestApp;

async fn with_one_chain(faults: &[Fault]) -> TestApp {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"chains": 1})).await.expect(201);
    for fault in faults {
        app.simulator.fault(Rule::once(fault.clone(), Route::Refresh));
    }
    let asked = app.admin.refresh("deploy", json!({"max_age": 0, "wait": 1})).await.expect(503);
    assert_eq!(asked.json["type"], "/problems/refresh-uncertain");
    assert!(!asked.header("retry-after").is_empty());
    assert_eq!(app.admin.get("/tokens/deploy").await.json["status"], "uncertain");
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_arrived_is_sent_once_more() {
    let app = with_one_chain(&[Fault::DropBeforeCommit]).await;
    app.token_until("deploy", "settled", |token| token["status"] == "active").await;
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(handed.access_token()));
    assert_eq!((app.simulator.refreshes(), app.simulator.max_refreshes_in_flight()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn sent_twice_in_vain_the_old_access_token_makes_a_new_chain() {
    let app = with_one_chain(&[Fault::DropBeforeCommit, Fault::DropBeforeCommit]).await;
    app.token_until("deploy", "healed", |token| token["status"] == "active").await;
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(handed.access_token()));
    assert_eq!(app.simulator.refreshes(), 0, "the refresh token was not sent a third time");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_jfrog_is_away_or_refuses_nothing_is_concluded() {
    for fault in [Fault::Unavailable, Fault::Forbidden, Fault::BadGatewayHtml] {
        let app = with_one_chain(&[Fault::DropResponseAfterCommit]).await;
        app.simulator.fault(Rule::always(fault.clone()));
        tokio::time::sleep(std::time::Duration::from_secs(8)).await;
        assert_eq!(app.admin.get("/tokens/deploy").await.json["status"], "uncertain", "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spent_and_dead_is_lost_with_a_reason_and_recreated_by_a_person() {
    let app = with_one_chain(&[Fault::DropResponseAfterCommit]).await;
    let lost =
        app.token_until("deploy", "lost", |token| token["status"] == "lost" && token["last_error"]["kind"] == "lost").await;
    assert!(lost["last_error"]["detail"].as_str().expect("a reason").contains("an answer was lost"), "{lost:#}");
    let refused = app.ci.refresh("deploy", json!({})).await.expect(409);
    assert_eq!(refused.json["type"], "/problems/token-lost");
    assert_eq!(app.database.count("select count(*) from audit_events where action = 'token.lost'").await, 1);

    let identity_token = app.simulator.identity_token("user-of-deploy");
    app.admin.post("/tokens/deploy/recreate", json!({"identity_token": identity_token})).await.expect(200);
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(handed.access_token()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_to_make_a_chain_does_not_send_the_old_refresh_token_a_third_time() {
    let app = with_one_chain(&[Fault::DropBeforeCommit, Fault::DropBeforeCommit]).await;
    // Nobody knows what became of the two; then the old access token was to make a new chain, and JFrog refused for once.
    app.simulator.fault(Rule::once(Fault::RateLimited { retry_after: None }, Route::Create));
    app.token_until("deploy", "healed", |token| token["status"] == "active").await;
    let sent = app.simulator.calls().into_iter().filter(|call| call.route == Route::Refresh).count();
    assert_eq!(sent, 2, "once, and once more to find out");
}
