//! `POST /tokens/{name}/revoke-handed-out`.

use serde_json::{Value, json};
use token_broker::dev::simulator::{Fault, OldAccessToken, Route, Rule};

use crate::app::{Answer, TestApp, jfrog::both_active};

async fn revoke(app: &TestApp) -> Answer {
    app.admin.post("/tokens/deploy/revoke-handed-out", json!({})).await
}

/// Ids as a set, for comparison.
fn ids(value: &Value) -> Vec<String> {
    let mut ids: Vec<String> = value.as_array().expect("ids").iter().map(|id| id.as_str().expect("an id").to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn whatever_was_handed_out_stops_working_and_nobody_is_left_without_a_token() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let mut leaked = vec![app.ci.refresh("deploy", json!({})).await.expect(200)];
    for _ in 0..2 {
        leaked.push(app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200));
    }
    let answer = revoke(&app).await.expect(200);
    insta::assert_json_snapshot!(json!({"status": answer.status, "warnings": answer.json["warnings"],
                                        "not_revocable": answer.json["not_revocable"], "unreached": answer.json["unreached"]}));
    for leaked in &leaked {
        assert!(!app.simulator.is_alive(leaked.access_token()));
        let id = leaked.json["token_id"].as_str().expect("an id").to_owned();
        assert!(ids(&answer.json["revoked"]).contains(&id), "{}", answer.text);
    }
    assert!(both_active(&answer.json["token"]), "{}", answer.text);
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(handed.access_token()));
    assert!(leaked.iter().all(|leaked| leaked.access_token() != handed.access_token()));
    app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    app.database.until("not exists (select 1 from jobs where kind = 'sweep')").await;
    assert_eq!(app.alive().len(), 2, "two chains and nothing else");
    let event = app.admin.get("/audit?action=token.revoke_handed_out").await.expect(200).json["items"][0].clone();
    assert_eq!((&event["outcome"], &event["actor"]), (&json!("done"), &json!("key:payments/admin")), "{event}");
}

#[tokio::test]
async fn where_jfrog_keeps_the_last_one_alive_it_is_revoked_all_the_same() {
    let app = TestApp::start().await;
    app.simulator.knobs(|knobs| knobs.old_access_token = OldAccessToken::Valid);
    app.register("deploy").await;
    let leaked = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(leaked.access_token()));
    revoke(&app).await.expect(200);
    assert!(!app.simulator.is_alive(leaked.access_token()));
}

#[tokio::test]
async fn what_jfrog_does_not_revoke_is_named() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"expires_in": 7_200})).await.expect(201);
    let leaked = app.ci.refresh("deploy", json!({})).await.expect(200);
    let answer = revoke(&app).await.expect(200);
    assert!(ids(&answer.json["not_revocable"]).contains(&leaked.json["token_id"].as_str().expect("an id").to_owned()));
    assert_eq!(answer.json["unreached"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_told_is_named_and_done_by_repeating() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let leaked = app.ci.refresh("deploy", json!({})).await.expect(200);
    app.simulator.fault(Rule { times: None, ..Rule::once(Fault::Unavailable, Route::Revoke) });
    let answer = revoke(&app).await.expect(200);
    assert_eq!((&answer.json["revoked"], ids(&answer.json["unreached"]).len()), (&json!([]), 2), "{}", answer.text);
    assert!(app.simulator.is_alive(leaked.access_token()));
    app.simulator.clear_faults();
    let answer = revoke(&app).await.expect(200);
    assert_eq!(answer.json["unreached"], json!([]));
    assert!(!app.simulator.is_alive(leaked.access_token()));
}

#[tokio::test]
async fn while_jfrog_is_away_nothing_is_lost_and_the_call_is_to_be_repeated() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let before = app.ci.refresh("deploy", json!({})).await.expect(200);
    for fault in [Fault::Forbidden, Fault::RateLimited { retry_after: None }, Fault::Unavailable] {
        app.simulator.fault(Rule::always(fault));
        revoke(&app).await.refused(503, "jfrog-unavailable");
        app.simulator.clear_faults();
    }
    assert!(app.simulator.is_alive(before.access_token()), "what nobody could revoke goes on working");
    app.ci.refresh("deploy", json!({})).await.expect(200);
}

#[tokio::test]
async fn a_lost_token_a_busy_one_and_a_missing_one_are_refused() {
    let app = TestApp::start().await;
    app.admin.post("/tokens/absent/revoke-handed-out", json!({})).await.refused(404, "not-found");
    app.register("deploy").await;
    app.database
        .run(
            "insert into attempts (token_id, id, team_id, kind, spent_generation, lease_until, replica, actor)
             select id, gen_random_uuid(), team_id, 'sweep', 1, now() + interval '1 h', gen_random_uuid(), 'test' from tokens",
        )
        .await;
    revoke(&app).await.refused(409, "busy");
    app.database.run("delete from attempts; update chains set state = 'lost'").await;
    revoke(&app).await.refused(409, "token-lost");
}
