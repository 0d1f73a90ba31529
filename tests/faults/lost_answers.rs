//! JFrog did it, and its answer never came.

use serde_json::json;
use token_broker::dev::simulator::{Fault, Route, Rule};

use crate::app::{TestApp, jfrog::both_active};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_refresh_answer_costs_no_token_and_no_human() {
    for fault in
        [Fault::DropResponseAfterCommit, Fault::TruncatedJson, Fault::BadGatewayHtml, Fault::NoRefreshToken, Fault::Html404]
    {
        let app = TestApp::start().await;
        app.register("deploy").await;
        let before = app.ci.refresh("deploy", json!({})).await.expect(200);
        app.simulator.fault(Rule::once(fault.clone(), Route::Refresh));
        let asked = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
        assert_eq!(asked.json["warnings"], json!(["refresh-uncertain"]), "{fault:?}");
        assert_eq!(asked.access_token(), before.access_token(), "{fault:?}: the other chain is handed out");
        let token = app.admin.get("/tokens/deploy").await.expect(200).json;
        let states: Vec<_> = token["chains"].as_array().expect("chains").iter().map(|chain| &chain["status"]).collect();
        assert!(states.contains(&&json!("uncertain")) && states.contains(&&json!("active")), "{fault:?}: {states:?}");
        assert_eq!(token["last_error"]["kind"], "outcome-unknown", "{fault:?}");

        let healed = app.token_until("deploy", "healed", both_active).await;
        assert_eq!(healed["last_error"], json!(null), "{fault:?}");
        assert!(app.simulator.is_alive(before.access_token()), "{fault:?}: the running job goes on");
        let rotated = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
        assert_eq!(rotated.json["refreshed"], true, "{fault:?}");
        assert!(app.simulator.is_alive(rotated.access_token()), "{fault:?}");
        assert_eq!(app.simulator.max_refreshes_in_flight(), 1, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_refresh_token_is_healed_within_the_same_call() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let before = app.ci.refresh("deploy", json!({})).await.expect(200);
    // Someone else spent it, or an admin revoked the chain at JFrog.
    let older = app.admin.get("/tokens/deploy").await.json["chains"][0]["token_id"].as_str().expect("an id").to_owned();
    assert!(app.simulator.revoke(older.parse().expect("a UUID")));
    app.let_pass(21_620).await;
    let after = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!(after.json["refreshed"], true, "{}", after.text);
    assert!(app.simulator.is_alive(before.access_token()) && app.simulator.is_alive(after.access_token()));
    assert!(both_active(&app.admin.get("/tokens/deploy").await.json));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_create_answer_leaves_a_registration_and_no_orphan() {
    for (fault, nth) in [(Fault::DropResponseAfterCommit, 0), (Fault::DropResponseAfterCommit, 1), (Fault::TruncatedJson, 0)] {
        let app = TestApp::start().await;
        let body = json!({"name": "deploy", "reuse_for": 1, "identity_token": app.simulator.add_user("someone", false)});
        if nth == 1 {
            // The first create passes, the second meets the fault.
            app.simulator.fault(Rule::once(Fault::DelayBeforeCommit { ms: 1 }, Route::Create));
        }
        app.simulator.fault(Rule::once(fault.clone(), Route::Create));
        let answer = app.admin.post("/tokens", body).await;
        assert_eq!(answer.status, if nth == 0 { 503 } else { 201 }, "{fault:?} {}", answer.text);
        let token = app.token_until("deploy", "registered", |token| token["status"] == "active" && both_active(token)).await;
        let registered: Vec<_> =
            token["chains"].as_array().expect("chains").iter().map(|chain| chain["token_id"].clone()).collect();
        // The sweep comes after reuse_for and one lease: nobody can commit a lost pair any more then.
        let mut alive = Vec::new();
        for _ in 0..100 {
            alive = app.simulator.tokens().into_iter().filter(|token| token.alive && !token.identity).collect();
            if alive.len() == 2 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(alive.len(), 2, "{fault:?} {nth}: no orphan is left: {alive:#?}");
        assert!(alive.iter().all(|token| registered.contains(&json!(token.token_id))), "{fault:?} {nth}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_died_between_its_last_chain_and_its_completion_is_completed() {
    let app = TestApp::start().await;
    app.database
        .run(
            "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not now'; end $$;
             create trigger refuse before update on tokens for each row when (new.state = 'registered') execute function refuse();",
        )
        .await;
    app.register_with("deploy", json!({})).await.expect(500);
    app.database.run("drop trigger refuse on tokens; update jobs set due_at = now()").await;
    app.token_until("deploy", "completed", |token| token["status"] == "active" && both_active(token)).await;
    assert_eq!(app.database.count("select count(*) from tokens where identity_token is not null").await, 0);
    app.ci.refresh("deploy", json!({})).await.expect(200);
}
