//! `POST /tokens/{name}/issue`: what a job gets.

use serde_json::{Value, json};
use token_broker::dev::simulator::{Fault, OldAccessToken, Route};

use crate::{
    app::{Answer, Client, TestApp, jfrog::chain_ids},
    identities::World,
};

pub(super) async fn issue(client: &Client, body: Value) -> Answer {
    client.post("/tokens/deploy/issue", body).await
}

#[tokio::test]
async fn a_job_gets_a_token_of_its_own_which_jfrog_can_revoke() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let answer = issue(&app.ci, json!({})).await.expect(200);
    insta::assert_json_snapshot!(answer.json, {
        ".access_token" => "[access token]", ".expires_at" => "[time]", ".expires_in" => "[seconds]", ".token_id" => "[id]"
    });
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert!((3_590..=3_600).contains(&answer.json["expires_in"].as_i64().expect("seconds")), "{}", answer.text);
    assert!(app.simulator.is_alive(answer.access_token()));
    let at_jfrog = app.simulator.tokens().into_iter().find(|token| answer.json["token_id"] == token.token_id.to_string());
    let at_jfrog = at_jfrog.expect("it is there");
    assert!(at_jfrog.revocable && at_jfrog.stored && !at_jfrog.refreshable);
    let other = issue(&app.ci, json!({})).await.expect(200);
    assert_ne!(other.json["token_id"], answer.json["token_id"]);
}

#[tokio::test]
async fn without_json_it_is_the_access_token_alone() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let request = app.ci.request(reqwest::Method::POST, "/tokens/deploy/issue").header("accept", "text/plain");
    let answer = Answer::of(request).await.expect(200);
    assert!(app.simulator.is_alive(&answer.text));
}

#[tokio::test]
async fn rotating_the_parent_does_not_touch_it() {
    let app = TestApp::start().await;
    app.simulator.knobs(|knobs| knobs.old_access_token = OldAccessToken::Revoked);
    app.register("deploy").await;
    let child = issue(&app.ci, json!({})).await.expect(200);
    for _ in 0..3 {
        app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    }
    assert!(app.simulator.is_alive(child.access_token()));
    // Neither is it an orphan of a chain.
    app.database.run("insert into jobs (kind, subject, due_at) select 'sweep', id, now() from tokens").await;
    app.database.until("not exists (select 1 from jobs where kind = 'sweep')").await;
    assert!(app.simulator.is_alive(child.access_token()));
}

/// Of a user in both groups.
pub(super) fn reader(app: &TestApp) -> String {
    app.simulator.add_user_in_groups("reader", false, &["readers".to_owned(), "deployers".to_owned()])
}

#[tokio::test]
async fn what_is_asked_is_what_jfrog_is_asked() {
    let app = TestApp::start().await;
    let scopes = json!(["applied-permissions/groups:readers,deployers", "artifact:libs:r"]);
    app.register_with("deploy", json!({"issue_scopes": scopes, "issue_max_expires_in": 7_200, "audience": "jfrt@* jfac@*", "identity_token": reader(&app)}))
        .await
        .expect(201);
    let asked = json!({"expires_in": 600, "scope": "applied-permissions/groups:readers", "audience": "jfrt@01hzy",
                       "description": "nightly", "include_reference_token": true});
    let answer = issue(&app.ci, asked).await.expect(200);
    assert_eq!(answer.json["scope"], "applied-permissions/groups:readers");
    assert!(answer.json["expires_in"].as_i64().is_some_and(|left| (590..=600).contains(&left)));
    assert!(answer.json["reference_token"].is_string());
    let all = issue(&app.ci, json!({})).await.expect(200);
    assert_eq!(all.json["scope"], "applied-permissions/groups:readers,deployers artifact:libs:r");
    let shown = app.admin.get("/tokens/deploy").await.expect(200).json;
    assert_eq!((&shown["issue_scopes"], &shown["issue_max_expires_in"]), (&scopes, &json!(7_200)));
}

#[tokio::test]
async fn its_description_at_jfrog_names_the_job() {
    let world = World::start().await;
    world.app.register("deploy").await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    let job = world.job(json!({"run_id": "4711"}));
    let by_jwt = issue(&job, json!({"description": "nightly"})).await.expect(200);
    let session = job.post("/sessions", json!({})).await.expect(201);
    let session = job.with_key(session.json["session"].as_str().expect("a session").to_owned());
    let by_session = issue(&session, json!({})).await.expect(200);
    for answer in [by_jwt, by_session] {
        let tokens = world.app.simulator.tokens();
        let at_jfrog = tokens.iter().find(|token| answer.json["token_id"] == token.token_id.to_string()).expect("it is there");
        let described = &at_jfrog.description;
        let request = answer.headers["x-request-id"].to_str().expect("text");
        for part in ["tb:", ":child:", "run_id=4711", "repository=acme/web", &format!("request={request}")] {
            assert!(described.contains(part), "{part} is not in {described}");
        }
    }
}

#[tokio::test]
async fn the_audit_leads_from_a_leaked_child_to_its_job() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let child = issue(&app.ci, json!({})).await.expect(200);
    let fingerprint = token_broker::crypto::fingerprint(child.access_token());
    let events = app.admin.get(&format!("/audit?fingerprint={fingerprint}")).await.expect(200).json;
    let event = &events["items"][0];
    assert_eq!((&event["action"], &event["actor"]), (&json!("token.issue"), &json!("key:payments/ci")), "{event}");
    assert_eq!(event["request_id"], child.headers["x-request-id"].to_str().expect("text"));
    assert!(!app.database.dump().await.contains(child.access_token()), "its value is kept nowhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_parent_is_refreshed_first_and_a_dead_one_made_anew_once_for_all_who_wait() {
    let app = TestApp::start().await;
    app.no_keep_alive().await;
    let before = app.register_with("deploy", json!({"expires_in": 3_600})).await.expect(201).json;
    app.simulator.knobs(|knobs| knobs.refresh_window_seconds = 86_400);
    app.let_pass(3_700).await;
    let calls = app.simulator.refreshes();
    let jobs: Vec<_> = (0..20)
        .map(|_| {
            let ci = app.ci.clone();
            async move { issue(&ci, json!({})).await }
        })
        .collect();
    for answer in futures_util::future::join_all(jobs).await {
        assert!(app.simulator.is_alive(answer.expect(200).access_token()));
    }
    assert_eq!(app.simulator.refreshes() - calls, 1);

    let after = app.admin.get("/tokens/deploy").await.json;
    assert_ne!(chain_ids(&before), chain_ids(&after));
    let younger = after["token_id"].as_str().expect("an id");
    app.simulator.revoke(younger.parse().expect("an id"));
    let asked = app.asked_for_pairs();
    let jobs: Vec<_> = (0..20)
        .map(|_| {
            let ci = app.ci.clone();
            async move { issue(&ci, json!({})).await }
        })
        .collect();
    let answers = futures_util::future::join_all(jobs).await;
    assert!(answers.iter().any(|answer| answer.status == 200), "{}", answers[0].text);
    for answer in answers.into_iter().filter(|answer| answer.status == 200) {
        assert!(app.simulator.is_alive(answer.access_token()));
    }
    assert!(app.asked_for_pairs() - asked <= 20 + 20 + 2, "each asks at most twice, and the parent is mended once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_found_by_its_marker_and_revoked() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let pairs = app.alive();
    app.once(Fault::DropResponseAfterCommit, Route::Create);
    let refused = issue(&app.ci, json!({})).await.refused(503, "jfrog-unavailable");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(app.alive().len(), pairs.len() + 1, "JFrog made it");
    app.database
        .run("update children set issued_at = issued_at - interval '1 h'; update jobs set due_at = now() where kind = 'revoke'")
        .await;
    app.database.until("not exists (select 1 from children where state <> 'revoked')").await;
    assert_eq!(app.alive(), pairs);
    issue(&app.ci, json!({})).await.expect(200);
}
