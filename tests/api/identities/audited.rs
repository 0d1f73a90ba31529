//! The caller learns nothing; an admin finds out exactly why, by the request's id and by `explain`.

use serde_json::{Value, json};

use super::World;

/// What the audit of team `payments` says of a request: actor and reason; empty: nothing.
async fn audited(world: &World, request_id: &str) -> (String, String) {
    let row = format!(
        "from audit_events a join teams t on t.id = a.team_id where t.name = 'payments' and a.outcome = 'refused' and request_id = '{request_id}'"
    );
    let text = async |column: &str| world.app.database.text(&format!("select coalesce(max({column}), '') {row}")).await;
    (text("actor").await, text("reason").await)
}

#[tokio::test]
async fn a_refused_jobs_request_id_leads_to_the_claim_that_failed() {
    let world = World::start().await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    let job = world.job(json!({"ref": "refs/heads/feature"}));
    let refused = job.get("/whoami?team=payments").await.refused(401, "unauthenticated");
    assert!(!refused.text.contains("ref"), "the job is told nothing: {}", refused.text);
    let (actor, reason) = audited(&world, refused.header("x-request-id")).await;
    assert_eq!(actor, "github:repo:acme/web:ref:refs/heads/main");
    for word in ["rule main", "ref", "refs/heads/main", "refs/heads/feature"] {
        assert!(reason.contains(word), "{word}: {reason}");
    }
    // Named or not, the team whose rule came closest hears of it.
    let refused = job.refresh("deploy", json!({})).await.refused(401, "unauthenticated");
    assert!(audited(&world, refused.header("x-request-id")).await.1.contains("refs/heads/feature"));
    // A job that has nothing to do with the team is none of its business.
    let stranger = json!({"repository": "evil/x", "repository_owner": "evil", "sub": "repo:evil/x:ref:refs/heads/main"});
    let refused = world.job(stranger).get("/whoami").await.refused(401, "unauthenticated");
    assert_eq!(audited(&world, refused.header("x-request-id")).await, (String::new(), String::new()));
}

#[tokio::test]
async fn the_reason_speaks_of_no_other_teams_rules() {
    let world = World::start().await;
    world.app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    let orders = world.app.team_key("orders", "admin", json!({"role": "admin"})).await;
    let theirs = json!({"claims": {"repository": "acme/web", "environment": "hidden"}});
    orders.post("/teams/orders/trust-rules", world.rule("theirs", theirs)).await.expect(201);
    world.write(world.rule("main", json!({}))).await.expect(201);
    let job = world.job(json!({"ref": "refs/heads/feature"}));
    let refused = job.get("/whoami?team=payments").await.refused(401, "unauthenticated");
    let (_, reason) = audited(&world, refused.header("x-request-id")).await;
    assert!(reason.contains("rule main") && !reason.contains("theirs") && !reason.contains("hidden"), "{reason}");
}

#[tokio::test]
async fn of_many_rules_the_reason_names_the_one_that_came_closest() {
    let world = World::start().await;
    for number in 0..8 {
        let other = json!({"claims": {"repository": format!("acme/other-{number}")}});
        world.write(world.rule(&format!("other-{number}"), other)).await.expect(201);
    }
    world.write(world.rule("main", json!({}))).await.expect(201);
    let job = world.job(json!({"ref": "refs/heads/feature"}));
    let refused = job.get("/whoami?team=payments").await.refused(401, "unauthenticated");
    let (_, reason) = audited(&world, refused.header("x-request-id")).await;
    assert!(reason.contains("rule main: claim ref must be refs/heads/main, and is refs/heads/feature"), "{reason}");
}

#[tokio::test]
async fn a_jwt_is_never_written_down() {
    let world = World::start().await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    let (good, bad) = (world.job(json!({})), world.job(json!({"ref": "x"})));
    good.get("/whoami").await.expect(200);
    bad.get("/whoami?team=payments").await.refused(401, "unauthenticated");
    world.app.admin.post("/teams/payments/trust-rules/explain", json!({"jwt": bad.key()})).await.expect(200);
    let dump = world.app.database.dump().await;
    for jwt in [good.key(), bad.key()] {
        let signature = jwt.rsplit('.').next().expect("a signature");
        assert!(!dump.contains(signature));
    }
}

#[tokio::test]
async fn explain_says_of_each_rule_whether_it_fits_or_what_failed() {
    let world = World::start().await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    world.write(world.rule("release", json!({"claims": {"repository": "acme/web", "ref": "refs/tags/v*"}}))).await.expect(201);
    world.write(world.rule("other", json!({"claims": {"repository": "acme/other"}}))).await.expect(201);
    let explain = async |body: Value| world.app.admin.post("/teams/payments/trust-rules/explain", body).await;
    let by_claims = explain(json!({"claims": world.claims(json!({"jti": "x"}))})).await.expect(200);
    insta::assert_json_snapshot!(by_claims.json);
    let jwt = world.issuer.sign(&world.claims(json!({"jti": "x"})));
    assert_eq!(explain(json!({"jwt": jwt})).await.expect(200).json, by_claims.json);
    let rule = world.app.admin.get("/teams/payments/trust-rules/main").await.expect(200).json;
    assert_eq!((&rule["pins"], &rule["last_used_at"]), (&json!({}), &Value::Null), "nothing is learnt from it");

    let expired = world.issuer.sign(&world.claims(json!({"exp": 1_000_000_000, "iat": 999_999_000})));
    let explained = explain(json!({"jwt": expired})).await.expect(200).json;
    assert!(explained["jwt_refused"].as_str().is_some_and(|why| why.contains("exp")), "{explained:#}");
    assert_eq!(explained["items"][0]["matched"], true, "and the rules are asked all the same");
    let elsewhere = explain(json!({"claims": {"iss": "https://unknown.example"}})).await.expect(200).json;
    assert_eq!(elsewhere["items"][0]["failed"]["claim"], "iss");
    assert_eq!(explain(json!({"claims": {}})).await.expect(200).json["items"][0]["failed"]["got"], Value::Null);
    for (bad, field) in [
        (json!({}), "claims"),
        (json!({"claims": {}, "jwt": "x.y.z"}), "claims"),
        (json!({"jwt": "x.y.z"}), "jwt"),
        (json!({"jwt": ""}), "jwt"),
        (json!({"claims": []}), "claims"),
    ] {
        assert_eq!(explain(bad.clone()).await.refused(422, "invalid-request").fields(), [field], "{bad}");
    }
    for client in [&world.app.ci, &world.app.viewer] {
        client.post("/teams/payments/trust-rules/explain", json!({"claims": {}})).await.refused(403, "forbidden");
    }
}
