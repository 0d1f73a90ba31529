//! What one replica was told, another feels within a second; what one used up, no other takes.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

use super::World;
use crate::app::{Client, process::Replica};

/// Another replica of the world's broker, a process of its own.
async fn another(world: &World) -> (Replica, TempDir) {
    let journal = tempfile::tempdir().expect("a directory");
    let issuers = format!("github={}", world.issuer.url());
    let variables = [("RUST_LOG", "info"), ("TOKEN_BROKER_OIDC_ISSUERS", issuers.as_str())];
    let replica = Replica::launch(&world.app, journal.path(), &variables).await;
    (replica.unwrap_or_else(|log| panic!("it did not become ready: {log}")), journal)
}

/// Asks all the while, so that whatever a replica remembers is as fresh as can be, until a change must have been felt.
async fn until_felt(client: &Client) {
    let changed = Instant::now();
    while changed.elapsed() < Duration::from_millis(1_000) {
        client.get("/whoami").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_change_and_the_deletion_of_a_rule_are_felt_within_a_second_by_another_replica() {
    let world = World::start().await;
    let (other, _journal) = another(&world).await;
    world.write(world.rule("main", json!({"tokens": ["a"]}))).await.expect(201);
    let job = other.client(&world.job(json!({})));
    let who = job.get("/whoami").await.expect(200).json;
    assert_eq!((&who["role"], &who["tokens"]), (&json!("ci"), &json!(["a"])));
    let path = "/teams/payments/trust-rules/main";
    world.app.admin.put(path, world.rule("main", json!({"role": "viewer", "tokens": ["b"]}))).await.expect(200);
    until_felt(&job).await;
    let who = job.get("/whoami").await.expect(200).json;
    assert_eq!((&who["role"], &who["tokens"]), (&json!("viewer"), &json!(["b"])));
    world.app.admin.delete(path).await.expect(204);
    until_felt(&job).await;
    job.get("/whoami").await.refused(401, "unauthenticated");
    other.client(&world.job(json!({"run_id": "78"}))).get("/whoami").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn the_end_of_a_session_by_its_holder_and_with_its_rule_is_felt_within_a_second_by_another_replica() {
    let world = World::start().await;
    let (other, _journal) = another(&world).await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    let begin = async || {
        let begun = world.job(json!({})).post("/sessions", json!({})).await.expect(201);
        world.app.platform.with_key(begun.json["session"].as_str().expect("a session").to_owned())
    };
    let (ended, orphaned) = (begin().await, begin().await);
    let (ended_there, orphaned_there) = (other.client(&ended), other.client(&orphaned));
    ended_there.get("/whoami").await.expect(200);
    ended.delete("/sessions/current").await.expect(204);
    until_felt(&ended_there).await;
    ended_there.get("/whoami").await.refused(401, "unauthenticated");
    orphaned_there.get("/whoami").await.expect(200);
    world.app.admin.delete("/teams/payments/trust-rules/main").await.expect(204);
    until_felt(&orphaned_there).await;
    orphaned_there.get("/whoami").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_single_use_jwt_that_races_to_two_replicas_is_let_in_by_one_and_once() {
    let world = World::start().await;
    let (other, _journal) = another(&world).await;
    world.write(world.rule("once", json!({"single_use": true}))).await.expect(201);
    world.job(json!({"jti": "here"})).get("/whoami").await.expect(200);
    other.client(&world.job(json!({"jti": "there"}))).get("/whoami").await.expect(200);
    for round in 0..10 {
        let here = world.job(json!({"jti": format!("raced-{round}")}));
        let there = other.client(&here);
        let answers = join_all((0..6).flat_map(|_| [here.get("/whoami"), there.get("/whoami")])).await;
        let let_in = answers.into_iter().filter(|answer| answer.status == 200).count();
        assert_eq!(let_in, 1, "in round {round}");
        there.get("/whoami").await.refused(401, "unauthenticated");
        here.get("/whoami").await.refused(401, "unauthenticated");
    }
}
