//! A JWT that rules of several teams let in.

use serde_json::json;

use super::World;
use crate::app::Client;

/// The admin of a second team, with a rule of its own for the same jobs.
async fn with_orders(world: &World) -> Client {
    world.app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    let orders = world.app.team_key("orders", "admin", json!({"role": "admin"})).await;
    orders.post("/teams/orders/trust-rules", world.rule("theirs", json!({"role": "admin", "tokens": ["b"]}))).await.expect(201);
    orders
}

#[tokio::test]
async fn must_name_the_team_it_means() {
    let world = World::start().await;
    with_orders(&world).await;
    world.write(world.rule("ours", json!({"tokens": ["a"]}))).await.expect(201);
    let job = world.job(json!({}));
    for answer in [
        job.get("/whoami").await,
        job.get("/tokens").await,
        job.refresh("a", json!({})).await,
        job.post("/sessions", json!({})).await,
        job.get("/teams").await,
    ] {
        answer.refused(400, "team-required");
    }
    let ours = job.get("/whoami?team=payments").await.expect(200).json;
    assert_eq!(
        (&ours["role"], &ours["tokens"], &ours["recognised_by"]["rules"]),
        (&json!("ci"), &json!(["a"]), &json!(["ours"]))
    );
    let theirs = job.get("/whoami?team=orders").await.expect(200).json;
    assert_eq!(
        (&theirs["role"], &theirs["recognised_by"]["rules"]),
        (&json!("admin"), &json!(["theirs"])),
        "not a word of the other team"
    );
    job.get("/teams/orders/trust-rules").await.expect(200);
    job.get("/teams/payments/trust-rules").await.refused(403, "forbidden");
    for team in ["platform", "nobody", "%00", "payments2"] {
        job.get(&format!("/tokens?team={team}")).await.refused(404, "not-found");
    }
    let session = job.post("/sessions?team=payments", json!({})).await.expect(201).json;
    let session = job.with_key(session["session"].as_str().expect("a session").to_owned());
    assert_eq!(session.get("/whoami").await.expect(200).json["team"], "payments");
    session.get("/tokens?team=orders").await.refused(404, "not-found");
}

#[tokio::test]
async fn several_rules_of_one_team_give_each_its_own_and_no_more() {
    let world = World::start().await;
    for name in ["a", "b", "c"] {
        world.app.register(name).await;
    }
    world.write(world.rule("reads", json!({"role": "viewer", "tokens": ["a", "b"]}))).await.expect(201);
    world.write(world.rule("uses", json!({"tokens": ["b"]}))).await.expect(201);
    let job = world.job(json!({}));
    assert_eq!(job.get("/tokens").await.expect(200).json["items"].as_array().expect("items").len(), 2);
    job.refresh("a", json!({})).await.refused(403, "forbidden");
    job.refresh("b", json!({})).await.expect(200);
    job.refresh("c", json!({})).await.refused(404, "not-found");
    let who = job.get("/whoami").await.expect(200).json;
    assert_eq!(who["grants"], json!([{"role": "viewer", "tokens": ["a", "b"]}, {"role": "ci", "tokens": ["b"]}]));
}

#[tokio::test]
async fn another_teams_rule_takes_nothing_away_from_who_names_its_team() {
    let world = World::start().await;
    world.app.register("deploy").await;
    world.write(world.rule("ours", json!({}))).await.expect(201);
    let job = world.job(json!({}));
    let refresh = "/tokens/deploy/refresh?team=payments";
    job.post(refresh, json!({})).await.expect(200);
    with_orders(&world).await;
    world.felt().await;
    job.post(refresh, json!({})).await.expect(200);
}
