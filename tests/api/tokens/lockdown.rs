//! `/tokens/{name}/lockdown` and `/teams/{team}/lockdown`.

use serde_json::{Value, json};
use token_broker::dev::simulator::{Fault, Route, Rule};

use crate::{
    app::{Client, TestApp},
    identities::World,
};

async fn issue(app: &TestApp, name: &str) -> Value {
    app.ci.post(&format!("/tokens/{name}/issue"), json!({})).await.expect(200).json
}

fn access_token(issued: &Value) -> &str {
    issued["access_token"].as_str().expect("an access token")
}

async fn is_locked_down(client: &Client, name: &str) {
    client.refresh(name, json!({})).await.refused(409, "locked-down");
    client.refresh(name, json!({"max_age": 0})).await.refused(409, "locked-down");
    client.post(&format!("/tokens/{name}/issue"), json!({})).await.refused(409, "locked-down");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_locked_down_is_handed_to_nobody_until_it_is_ended() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.register("other").await;
    let child = issue(&app, "deploy").await;
    let kept = issue(&app, "other").await;
    let refreshes = app.simulator.refreshes();
    let made = app.admin.post("/tokens/deploy/lockdown", json!({"reason": "in a public log"})).await.expect(201);
    insta::assert_json_snapshot!(
        json!({"reason": made.json["reason"], "renew": made.json["renew"], "renewing": made.json["renewing"],
                                        "by_platform": made.json["by_platform"], "created_by": made.json["created_by"]})
    );
    for client in [&app.ci, &app.admin] {
        is_locked_down(client, "deploy").await;
    }
    app.viewer.refresh("deploy", json!({})).await.refused(403, "forbidden");
    assert_eq!(app.simulator.refreshes(), refreshes, "nothing was spent for it");
    app.ci.refresh("other", json!({})).await.expect(200);
    app.database.until("exists (select 1 from children where state = 'revoked')").await;
    assert!(!app.simulator.is_alive(access_token(&child)) && app.simulator.is_alive(access_token(&kept)));
    let shown = app.admin.get("/tokens/deploy/lockdown").await.expect(200).json;
    assert_eq!((&shown["unrevoked"], &shown["children"]), (&json!(0), &json!([])), "{shown}");
    app.admin.get("/tokens/other/lockdown").await.refused(404, "not-found");

    app.admin.delete("/tokens/deploy/lockdown").await.expect(204);
    app.admin.delete("/tokens/deploy/lockdown").await.refused(404, "not-found");
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(handed.access_token()));
    assert!(app.simulator.is_alive(access_token(&issue(&app, "deploy").await)));
    let refusals =
        "select count(*) from audit_events where outcome = 'refused' and reason = 'locked-down: locked down by an admin'";
    assert_eq!(app.database.count(refusals).await, 6);
    for action in ["token.lock_down", "token.lockdown_end"] {
        assert_eq!(app.database.count(&format!("select count(*) from audit_events where action = '{action}'")).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_renew_whatever_was_handed_out_before_is_dead() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let leaked = app.ci.refresh("deploy", json!({})).await.expect(200);
    app.admin.post("/tokens/deploy/lockdown", json!({"renew": true})).await.expect(201);
    app.database.until("not exists (select 1 from jobs where kind in ('renew', 'sweep'))").await;
    assert!(!app.simulator.is_alive(leaked.access_token()));
    assert_eq!(app.admin.get("/tokens/deploy/lockdown").await.json["renewing"], json!([]));
    app.admin.delete("/tokens/deploy/lockdown").await.expect(204);
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(handed.access_token()));
    assert_eq!(app.alive().len(), 2, "two chains and nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_jfrog_could_not_be_told_is_listed_and_tried_again() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let child = issue(&app, "deploy").await;
    app.simulator.fault(Rule { times: None, ..Rule::once(Fault::Unavailable, Route::Revoke) });
    app.admin.post("/tokens/deploy/lockdown", json!({})).await.expect(201);
    app.database.until("exists (select 1 from children where last_error is not null)").await;
    let shown = app.admin.get("/tokens/deploy/lockdown").await.expect(200).json;
    assert_eq!((&shown["unrevoked"], &shown["children"][0]["token_id"]), (&json!(1), &child["token_id"]), "{shown}");
    assert!(shown["children"][0]["last_error"].is_string());
    app.simulator.clear_faults();
    app.database.run("update jobs set due_at = now() where kind = 'revoke'").await;
    app.database.until("not exists (select 1 from jobs where kind = 'revoke')").await;
    assert!(!app.simulator.is_alive(access_token(&child)));
    assert_eq!(app.admin.get("/tokens/deploy/lockdown").await.json["unrevoked"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_be_hit_and_does_nothing() {
    let world = World::start().await;
    let app = &world.app;
    for name in ["deploy-a", "deploy-b", "other"] {
        app.register(name).await;
    }
    issue(app, "deploy-a").await;
    issue(app, "other").await;
    app.team_key("payments", "narrow", json!({"role": "ci", "tokens": ["deploy-*"]})).await;
    app.team_key("payments", "elsewhere", json!({"role": "ci", "tokens": ["other"]})).await;
    world.write(world.rule("main", json!({"tokens": ["deploy-*"]}))).await.expect(201);
    world.job(json!({})).post("/sessions", json!({})).await.expect(201);
    let token = app.admin.post("/tokens/deploy-a/lockdown?dry_run=true", json!({})).await.expect(200).json;
    let team = app.admin.post("/teams/payments/lockdown?dry_run=true", json!({})).await.expect(200).json;
    let elsewhere = app.admin.post("/tokens/other/lockdown?dry_run=true", json!({})).await.expect(200).json;
    insta::assert_json_snapshot!(json!({"token": token, "team": team, "elsewhere": elsewhere}));
    // Whoever writes it wrongly does not get the real thing.
    for path in [
        "/tokens/deploy-a/lockdown?dryrun=true",
        "/teams/payments/lockdown?dry_run=true&x",
        "/tokens/deploy-a/revoke-handed-out?dry_run=true",
    ] {
        let refused = app.admin.post(path, json!({})).await.refused(422, "invalid-request");
        assert_eq!(refused.json["errors"][0]["message"], "is no parameter of this call", "{path}");
    }
    app.ci.refresh("deploy-a", json!({})).await.expect(200);
    assert_eq!(app.database.count("select count(*) from lockdowns").await, 0);
    assert_eq!(app.database.count("select count(*) from children where state = 'live'").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_that_is_locked_down_is_handed_nothing_and_begins_no_session() {
    let world = World::start().await;
    let app = &world.app;
    app.register("deploy-a").await;
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    let orders = app.team_key("orders", "admin", json!({"role": "admin"})).await;
    orders.post("/tokens", json!({"name": "deploy", "identity_token": app.simulator.add_user("o", false)})).await.expect(201);
    world.write(world.rule("main", json!({}))).await.expect(201);
    let job = world.job(json!({}));
    app.admin.post("/teams/payments/lockdown", json!({})).await.expect(201);
    is_locked_down(&app.ci, "deploy-a").await;
    is_locked_down(&job, "deploy-a").await;
    job.post("/sessions", json!({})).await.refused(409, "locked-down");
    app.register("deploy-b").await;
    is_locked_down(&app.ci, "deploy-b").await;
    orders.refresh("deploy", json!({})).await.expect(200);
    app.admin.post("/tokens/deploy-a/lockdown", json!({})).await.expect(201);
    app.admin.delete("/teams/payments/lockdown").await.expect(204);
    is_locked_down(&app.ci, "deploy-a").await;
    app.ci.refresh("deploy-b", json!({})).await.expect(200);
    app.admin.delete("/teams/payments/lockdown").await.refused(404, "not-found");
}

#[tokio::test]
async fn what_a_platform_admin_locked_down_no_team_admin_ends() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.platform.post("/tokens/deploy/lockdown?team=payments", json!({})).await.expect(201);
    app.admin.delete("/tokens/deploy/lockdown").await.refused(403, "forbidden");
    app.admin.post("/tokens/deploy/lockdown", json!({"reason": "mine"})).await.expect(201);
    app.admin.delete("/tokens/deploy/lockdown").await.refused(403, "forbidden");
    app.platform.delete("/tokens/deploy/lockdown?team=payments").await.expect(204);
    app.ci.refresh("deploy", json!({})).await.expect(200);
}

#[tokio::test]
async fn who_may_not_and_what_cannot_be_are_refused() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let narrow = app.team_key("payments", "narrow", json!({"role": "admin", "tokens": ["deploy"]})).await;
    narrow.post("/teams/payments/lockdown", json!({})).await.refused(403, "forbidden");
    narrow.post("/tokens/deploy/lockdown", json!({})).await.expect(201);
    app.admin.post("/tokens/absent/lockdown", json!({})).await.refused(404, "not-found");
    for (body, field) in [
        (json!({"reason": "x".repeat(501)}), "reason"),
        (json!({"reason": "a\u{202e}b"}), "reason"),
        (json!({"renew": "yes"}), "renew"),
        (json!({"dry_run": true}), "dry_run"),
    ] {
        let answer = app.admin.post("/tokens/deploy/lockdown", body).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), [field]);
    }
    app.admin.post("/tokens/deploy/lockdown?dry_run=maybe", json!({})).await.refused(400, "invalid-request");
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_told() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.admin.post("/teams/payments/webhooks", json!({"name": "w", "url": crate::app::HOOKS})).await.expect(201);
    app.admin.post("/tokens/deploy/lockdown", json!({"reason": "leak"})).await.expect(201);
    app.admin.post("/teams/payments/lockdown", json!({})).await.expect(201);
    let told = app.database.text("select string_agg(event || ' ' || data::text, '; ' order by event) from webhook_notices").await;
    insta::assert_snapshot!(told);
}
