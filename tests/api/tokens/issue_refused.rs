//! `POST /tokens/{name}/issue`: what no job gets.

use serde_json::json;
use token_broker::dev::simulator::{Fault, Route, Rule};

use super::issue::{issue, reader};
use crate::app::TestApp;

#[tokio::test]
async fn nothing_wider_than_the_registration_allows() {
    let app = TestApp::start().await;
    let settings = json!({"issue_scopes": ["applied-permissions/groups:readers"], "issue_max_expires_in": 600, "audience": "jfrt@* jfac@*", "identity_token": reader(&app)});
    app.register_with("deploy", settings).await.expect(201);
    let asked = app.asked_for_pairs();
    for (body, field) in [
        (json!({"expires_in": 601}), "expires_in"),
        (json!({"scope": "applied-permissions/admin"}), "scope"),
        (json!({"scope": "applied-permissions/groups:readers,admins"}), "scope"),
        (json!({"scope": "applied-permissions/groups:readers artifact:libs:w"}), "scope"),
        (json!({"audience": "*@*"}), "audience"),
        (json!({"audience": "jfxr@01hzy"}), "audience"),
    ] {
        for client in [&app.ci, &app.admin] {
            let answer = issue(client, body.clone()).await.refused(422, "invalid-request");
            assert_eq!(answer.fields(), [field], "{body}");
        }
    }
    assert_eq!(app.asked_for_pairs(), asked, "JFrog was not asked");
    assert_eq!(app.database.count("select count(*) from children").await, 0);
    assert_eq!(issue(&app.ci, json!({})).await.expect(200).json["expires_in"].as_i64().map(|left| left <= 600), Some(true));
}

#[tokio::test]
async fn what_is_no_request_is_named() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    for (body, field) in [
        (json!({"expires_in": 0}), "expires_in"),
        (json!({"expires_in": -1}), "expires_in"),
        (json!({"expires_in": "600"}), "expires_in"),
        (json!({"scope": ""}), "scope"),
        (json!({"scope": "a  b"}), "scope"),
        (json!({"scope": "x".repeat(501)}), "scope"),
        (json!({"audience": "ä"}), "audience"),
        (json!({"description": "a\u{202e}b"}), "description"),
        (json!({"refreshable": true}), "refreshable"),
        (json!({"include_reference_token": 1}), "include_reference_token"),
    ] {
        let answer = issue(&app.ci, body.clone()).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), [field], "{body}");
    }
    app.ci.post("/tokens/absent/issue", json!({})).await.refused(404, "not-found");
    app.viewer.post("/tokens/deploy/issue", json!({})).await.refused(403, "forbidden");
    for (body, field) in [
        (json!({"issue_max_expires_in": 0}), "issue_max_expires_in"),
        (json!({"issue_scopes": [""]}), "issue_scopes"),
        (json!({"issue_scopes": ["a b"]}), "issue_scopes"),
        (json!({"issue_scopes": ["x".repeat(501)]}), "issue_scopes"),
        (json!({"issue_scopes": "a"}), "issue_scopes"),
    ] {
        let answer = app.admin.patch("/tokens/deploy", body.clone()).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), [field], "{body}");
    }
}

#[tokio::test]
async fn settings_can_be_changed_and_taken_back() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    issue(&app.ci, json!({"scope": "artifact:libs:r"})).await.refused(422, "invalid-request");
    let changes = json!({"issue_scopes": ["artifact:libs:r"], "issue_max_expires_in": 60});
    let changed = app.admin.patch("/tokens/deploy", changes).await.expect(200).json;
    assert_eq!((&changed["issue_scopes"], &changed["issue_max_expires_in"]), (&json!(["artifact:libs:r"]), &json!(60)));
    issue(&app.ci, json!({"scope": "artifact:libs:r"})).await.expect(200);
    app.admin.patch("/tokens/deploy", json!({"reuse_for": 60})).await.expect(200);
    let changed = app.admin.patch("/tokens/deploy", json!({"issue_scopes": []})).await.expect(200).json;
    assert_eq!((&changed["issue_scopes"], &changed["issue_max_expires_in"]), (&json!(null), &json!(60)));
    issue(&app.ci, json!({"scope": "artifact:libs:r"})).await.refused(422, "invalid-request");
}

#[tokio::test]
async fn what_jfrog_refuses_is_told_without_its_words() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"issue_max_expires_in": 86_400})).await.expect(201);
    app.simulator.knobs(|knobs| knobs.max_expiry_seconds = Some(3_600));
    let answer = issue(&app.ci, json!({"expires_in": 7_200})).await.refused(422, "scope-refused");
    assert!(!answer.text.contains("Forbidden"), "{}", answer.text);
    app.simulator.knobs(|knobs| knobs.max_expiry_seconds = None);
    for fault in [Fault::Forbidden, Fault::RateLimited { retry_after: Some("7".into()) }, Fault::Unavailable] {
        app.simulator.fault(Rule::always(fault));
        issue(&app.ci, json!({})).await.refused(503, "jfrog-unavailable");
        app.simulator.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_sent_away_while_jfrog_thought_is_handed_nothing() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let pairs = app.alive();
    let slow = Rule { times: None, ..Rule::once(Fault::DelayAfterCommit { ms: 1_500 }, Route::Create) };
    let key = app.team_key("payments", "leaver", json!({"role": "ci"})).await;
    app.simulator.fault(slow.clone());
    let gone = {
        let key = key.clone();
        tokio::spawn(async move { issue(&key, json!({})).await })
    };
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    app.admin.delete("/teams/payments/keys/leaver").await.expect(204);
    gone.await.expect("an answer").refused(401, "unauthenticated");
    let locked = {
        let ci = app.ci.clone();
        tokio::spawn(async move { issue(&ci, json!({})).await })
    };
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    app.admin.post("/tokens/deploy/lockdown", json!({})).await.expect(201);
    locked.await.expect("an answer").refused(409, "locked-down");
    app.simulator.clear_faults();
    app.database.until("not exists (select 1 from children where state <> 'revoked')").await;
    assert_eq!(app.alive(), pairs, "what JFrog made is revoked");
}

#[tokio::test]
async fn a_lost_token_issues_nothing_and_says_what_to_do() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.database.run("update chains set state = 'lost'").await;
    issue(&app.ci, json!({})).await.refused(409, "token-lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_jfrog_gives_beyond_what_was_asked_is_revoked_and_not_handed_on() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"issue_scopes": ["applied-permissions/groups:readers"], "identity_token": reader(&app)}))
        .await
        .expect(201);
    let pairs = app.alive();
    for ignored in ["expires_in", "scope", "audience"] {
        app.simulator.knobs(|knobs| knobs.ignored_on_create = vec![ignored.to_owned()]);
        let answer = issue(&app.ci, json!({"audience": "jfrt@*"})).await.refused(502, "wider-than-asked");
        assert!(!answer.text.contains("eyJ"), "{}", answer.text);
        assert_eq!(app.alive(), pairs, "{ignored}");
    }
    assert_eq!(
        app.database.count("select count(*) from audit_events where action = 'token.issue' and outcome = 'failed'").await,
        3
    );
}
