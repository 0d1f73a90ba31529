//! Sessions: for jobs that outlive their own token.

use serde_json::json;

use super::World;
use crate::app::Client;

async fn begin(world: &World, job: &Client) -> Client {
    let begun = job.post("/sessions", json!({})).await.expect(201);
    world.app.platform.with_key(begun.json["session"].as_str().expect("a session").to_owned())
}

#[tokio::test]
async fn a_session_outlives_the_jobs_own_token_and_gives_what_its_rule_gives() {
    let world = World::start().await;
    world.app.register("deploy").await;
    world.write(world.rule("main", json!({"tokens": ["deploy"], "session_max": 7200}))).await.expect(201);
    let begun = world.job(json!({})).post("/sessions", json!({})).await.expect(201);
    let shown = &begun.json;
    assert_eq!((&shown["team"], &shown["role"], &shown["tokens"]), (&json!("payments"), &json!("ci"), &json!(["deploy"])));
    assert_eq!(shown["expires_in"], 7200);
    assert_eq!(begun.header("cache-control"), "no-store");
    let credential = shown["session"].as_str().expect("a session").to_owned();
    assert!(!world.app.database.dump().await.contains(&credential), "kept nowhere");
    let session = world.app.platform.with_key(credential);
    session.refresh("deploy", json!({})).await.expect(200);
    session.refresh("other", json!({})).await.refused(404, "not-found");
    let who = session.get("/whoami").await.expect(200).json;
    assert_eq!(who["name"], "github:repo:acme/web:ref:refs/heads/main", "the audit still names the job");
    assert_eq!(who["recognised_by"]["type"], "session");
    assert_eq!(who["recognised_by"]["begun_by"]["claims"]["run_id"], "77");
}

#[tokio::test]
async fn a_session_ends_by_its_time_by_its_holder_and_with_its_rule() {
    let world = World::start().await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    let job = world.job(json!({}));
    let path = "/teams/payments/trust-rules/main";
    let ended = begin(&world, &job).await;
    ended.get("/whoami").await.expect(200);
    ended.delete("/sessions/current").await.expect(204);
    // At once here, within a second elsewhere.
    ended.get("/whoami").await.refused(401, "unauthenticated");
    ended.delete("/sessions/current").await.refused(401, "unauthenticated");

    let late = begin(&world, &job).await;
    world.app.database.run("update sessions set expires_at = now() - interval '1 s'").await;
    world.felt().await;
    late.get("/whoami").await.refused(401, "unauthenticated");

    let changed = begin(&world, &job).await;
    assert_eq!(world.app.database.count("select count(*) from sessions").await, 1, "ended ones are forgotten");
    world.app.admin.put(path, world.rule("main", json!({"tokens": ["x"]}))).await.expect(200);
    changed.get("/whoami").await.refused(401, "unauthenticated");

    let orphaned = begin(&world, &job).await;
    world.app.admin.delete(path).await.expect(204);
    assert_eq!(
        world.app.database.count("select count(*) from sessions").await,
        1,
        "that of the changed rule is left until its time"
    );
    orphaned.get("/whoami").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn only_a_ci_identity_begins_a_session_and_only_where_its_rule_allows_one() {
    let world = World::start().await;
    world.write(world.rule("main", json!({"session_max": 0}))).await.expect(201);
    let job = world.job(json!({}));
    job.post("/sessions", json!({})).await.refused(403, "forbidden");
    for client in [&world.app.ci, &world.app.admin] {
        client.post("/sessions", json!({})).await.refused(403, "forbidden");
        client.delete("/sessions/current").await.refused(403, "forbidden");
    }
    world.app.platform.post("/sessions", json!({})).await.refused(400, "team-required");
    world.app.platform.post("/sessions?team=payments", json!({})).await.refused(403, "forbidden");
    job.delete("/sessions/current").await.refused(403, "forbidden");
    world.write(world.rule("again", json!({"session_max": 600, "tokens": ["a"]}))).await.expect(201);
    world.write(world.rule("longer", json!({"session_max": 900, "tokens": ["b"]}))).await.expect(201);
    world.felt().await;
    let begun = job.post("/sessions", json!({})).await.expect(201).json;
    assert_eq!((&begun["expires_in"], &begun["tokens"]), (&json!(600), &json!(["a", "b"])), "what allows none gives none");
    job.post("/sessions", json!({"expires_in": 60})).await.refused(422, "invalid-request");
    let session = world.app.platform.with_key(begun["session"].as_str().expect("a session").to_owned());
    session.post("/sessions", json!({})).await.refused(403, "forbidden");
}

#[tokio::test]
async fn a_wrong_session_is_nobody() {
    let world = World::start().await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    let session = begin(&world, &world.job(json!({}))).await;
    let good = session.key().to_owned();
    let nobody = world.app.ci.nobody().get("/whoami").await.refused(401, "unauthenticated");
    for bad in [
        good.replacen("tbs_", "tbk_", 1),
        good[..good.len() - 1].to_owned(),
        good.to_uppercase(),
        "tbs_".to_owned(),
        format!("{good}.{good}"),
    ] {
        let refused = session.with_key(bad).get("/whoami").await.refused(401, "unauthenticated");
        assert_eq!(refused.but_for_the_request_id(), nobody.but_for_the_request_id());
    }
}
