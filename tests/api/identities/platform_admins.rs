//! Platform admins by their CI identity, so that the bootstrap key can be retired.

use serde_json::json;

use super::World;

async fn start() -> World {
    World::start_with_platform_admin(&[("repository_id", "1001"), ("repository_owner_id", "11"), ("ref", "refs/heads/main")])
        .await
}

#[tokio::test]
async fn the_bootstrap_key_can_be_retired() {
    let world = start().await;
    let job = world.job(json!({}));
    let who = job.get("/whoami").await.expect(200).json;
    assert_eq!((&who["role"], &who["team"]), (&json!("platform-admin"), &json!(null)));
    job.delete("/platform/keys/root").await.expect(204);
    job.post("/teams", json!({"name": "orders"})).await.expect(201);
    job.get("/tokens?team=payments").await.expect(200);
    let by = "select actor from audit_events where action = 'team.create' and detail->>'team' = 'orders'";
    assert_eq!(world.app.database.text(by).await, "github:repo:acme/web:ref:refs/heads/main");
    job.post("/sessions?team=payments", json!({})).await.refused(403, "forbidden");
}

#[tokio::test]
async fn nobody_else_is_one() {
    let world = start().await;
    world.write(world.rule("main", json!({"role": "admin"}))).await.expect(201);
    for other in [json!({"ref": "refs/heads/x"}), json!({"event_name": "pull_request_target"})] {
        world.job(other).get("/platform/keys").await.refused(401, "unauthenticated");
    }
    // The same names, other ids: a rule of the team's own may let it in, but not as more than that.
    let anew = world.job(json!({"repository_id": "1002", "repository_owner_id": "12"}));
    anew.get("/platform/keys").await.refused(403, "forbidden");
    assert_eq!(anew.get("/whoami").await.expect(200).json["role"], "admin");
}
