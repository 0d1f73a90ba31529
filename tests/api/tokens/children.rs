//! `/tokens/{name}/children`: what was issued, and how it ends.

use serde_json::{Value, json};
use token_broker::dev::simulator::{Fault, Route, Rule};

use super::issue::issue;
use crate::{
    app::{Client, TestApp},
    identities::World,
};

fn id(child: &Value) -> &str {
    child["token_id"].as_str().expect("an id")
}

async fn children(client: &Client) -> Vec<Value> {
    client.get("/tokens/deploy/children").await.expect(200).json["items"].as_array().expect("items").clone()
}

async fn give_back(client: &Client, child: &Value) -> crate::app::Answer {
    client.delete(&format!("/tokens/deploy/children/{}", id(child))).await
}

#[tokio::test]
async fn an_admin_sees_all_and_a_job_its_own() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let other = app.team_key("payments", "other", json!({"role": "ci"})).await;
    let one = issue(&app.ci, json!({})).await.expect(200).json;
    let two = issue(&other, json!({})).await.expect(200).json;
    let all = children(&app.admin).await;
    assert_eq!(all.iter().map(id).collect::<Vec<_>>(), [id(&two), id(&one)], "the newest first");
    insta::assert_json_snapshot!(all[1], {
        ".token_id" => "[id]", ".fingerprint" => "[fingerprint]", ".issued_at" => "[time]", ".expires_at" => "[time]",
        ".request_id" => "[request]", ".recognised_by.id" => "[id]"
    });
    assert_eq!(children(&app.ci).await.iter().map(id).collect::<Vec<_>>(), [id(&one)]);
    let page = app.admin.get("/tokens/deploy/children?limit=1").await.expect(200).json;
    let next = page["next"].as_str().expect("a cursor");
    let rest = app.admin.get(&format!("/tokens/deploy/children?limit=1&after={next}")).await.expect(200).json;
    assert_eq!((id(&page["items"][0]), id(&rest["items"][0])), (id(&two), id(&one)));
    app.viewer.get("/tokens/deploy/children").await.refused(403, "forbidden");
    app.admin.get("/tokens/deploy/children?after=bm8").await.refused(422, "invalid-request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_hands_its_own_back_and_no_other() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let other = app.team_key("payments", "other", json!({"role": "ci"})).await;
    let child = issue(&app.ci, json!({})).await.expect(200);
    give_back(&other, &child.json).await.refused(404, "not-found");
    assert!(app.simulator.is_alive(child.access_token()));
    give_back(&app.viewer, &child.json).await.refused(403, "forbidden");
    app.admin.delete("/tokens/deploy/children/no-such-id").await.refused(404, "not-found");
    app.admin.delete("/tokens/absent/children/no-such-id").await.refused(404, "not-found");
    give_back(&app.ci, &child.json).await.expect(202);
    app.database.until("exists (select 1 from children where state = 'revoked')").await;
    assert!(!app.simulator.is_alive(child.access_token()));
    assert_eq!(give_back(&app.ci, &child.json).await.expect(202).json["status"], "revoked", "again is no error");
    for action in ["token.give_up_children", "token.revoke_child"] {
        assert_eq!(
            app.database.count(&format!("select count(*) from audit_events where action = '{action}'")).await,
            1,
            "{action}"
        );
    }
    let by_admin = issue(&app.ci, json!({})).await.expect(200);
    give_back(&app.admin, &by_admin.json).await.expect(202);
    app.database.until("not exists (select 1 from children where state <> 'revoked')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn already_gone_is_an_end_and_an_absent_jfrog_is_none() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let gone = issue(&app.ci, json!({})).await.expect(200).json;
    app.simulator.revoke(id(&gone).parse().expect("an id"));
    give_back(&app.ci, &gone).await.expect(202);
    app.database.until("exists (select 1 from children where state = 'revoked')").await;
    let child = issue(&app.ci, json!({})).await.expect(200);
    app.simulator.fault(Rule { times: None, ..Rule::once(Fault::Unavailable, Route::Revoke) });
    assert_eq!(give_back(&app.ci, &child.json).await.expect(202).json["status"], "revoking");
    app.database.until("exists (select 1 from children where last_error is not null)").await;
    let told = children(&app.admin).await[0]["last_error"].as_str().expect("why").to_owned();
    assert!(told.contains("503"), "{told}");
    assert!(children(&app.ci).await[0]["last_error"].is_null(), "it may quote JFrog");
    assert!(give_back(&app.ci, &child.json).await.expect(202).json["last_error"].is_null());
    app.ci.refresh("deploy", json!({})).await.expect(200);
    issue(&app.ci, json!({})).await.expect(200);
    app.simulator.clear_faults();
    app.database.run("update jobs set due_at = now() where kind = 'revoke'").await;
    app.database.until("not exists (select 1 from children where state = 'revoking')").await;
    assert!(!app.simulator.is_alive(child.access_token()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_jfrog_does_not_revoke_is_an_end_too() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.simulator.knobs(|knobs| knobs.ignored_on_create = vec!["force_revocable".to_owned()]);
    let child = issue(&app.ci, json!({"expires_in": 20_000})).await.expect(200);
    give_back(&app.ci, &child.json).await.expect(202);
    app.database.until("exists (select 1 from children where state = 'not-revocable')").await;
    assert!(app.simulator.is_alive(child.access_token()));
    app.database.until("not exists (select 1 from jobs where kind = 'revoke')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_is_not_revoked_and_is_forgotten_after_a_day() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    issue(&app.ci, json!({})).await.expect(200);
    app.database.run("update children set expires_at = now() - interval '23 h'").await;
    app.keep_alive_now().await;
    assert_eq!(children(&app.admin).await.len(), 1);
    app.database.run("update children set expires_at = now() - interval '25 h'").await;
    app.keep_alive_now().await;
    assert_eq!(children(&app.admin).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_ends_them_with_the_token() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    for _ in 0..20 {
        issue(&app.ci, json!({})).await.expect(200);
    }
    app.admin.delete("/tokens/deploy").await.expect(204);
    assert_eq!(app.alive(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_cannot_reach_them_is_to_be_repeated() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let child = issue(&app.ci, json!({})).await.expect(200);
    app.once(Fault::Unavailable, Route::Revoke);
    app.admin.delete("/tokens/deploy").await.refused(503, "jfrog-unavailable");
    assert!(app.simulator.is_alive(child.access_token()));
    app.admin.delete("/tokens/deploy").await.expect(204);
    assert_eq!(app.alive(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_hands_its_own_back_where_it_says_so() {
    let world = World::start().await;
    let app = &world.app;
    app.register("deploy").await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    let begin = async || {
        let job = world.job(json!({}));
        let session = job.post("/sessions", json!({})).await.expect(201);
        job.with_key(session.json["session"].as_str().expect("a session").to_owned())
    };
    let (kept, handed_back) = (begin().await, begin().await);
    let left = issue(&kept, json!({})).await.expect(200);
    let returned = issue(&handed_back, json!({})).await.expect(200);
    let others = issue(&app.ci, json!({})).await.expect(200);
    kept.delete("/sessions/current").await.expect(204);
    handed_back.delete("/sessions/current?children=true").await.expect(204);
    issue(&handed_back, json!({})).await.refused(401, "unauthenticated");
    app.database.until("exists (select 1 from children where state = 'revoked')").await;
    assert!(!app.simulator.is_alive(returned.access_token()));
    assert!(app.simulator.is_alive(left.access_token()) && app.simulator.is_alive(others.access_token()));
}
