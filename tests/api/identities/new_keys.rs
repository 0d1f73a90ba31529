//! Keys with which an issuer has just begun to sign, while strangers ask for keys that nobody has.

use serde_json::{Value, json};

use super::World;
use crate::app::Client;

/// Whose token names a key that nobody has; the signature is never looked at.
fn stranger(world: &World, claims: Value) -> Client {
    let header = json!({"alg": "RS256", "kid": uuid::Uuid::new_v4().to_string()});
    world.app.platform.with_key(world.issuer.key().sign_with_header(&header, &world.claims(claims)))
}

#[tokio::test]
async fn a_job_with_a_key_that_is_newer_than_the_last_look_is_told_to_come_back_not_that_it_is_nobody() {
    let world = World::start().await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    world.job(json!({})).get("/whoami").await.expect(200);
    // The issuer is asked for this one, and does not have it.
    stranger(&world, json!({})).get("/whoami").await.refused(401, "unauthenticated");
    let fetches = world.issuer.fetches();
    world.issuer.rotate_key();
    let job = world.job(json!({"run_id": "78"}));
    let refused = job.get("/whoami").await.refused(503, "issuer-unavailable");
    assert!((1..=31).contains(&refused.retry_after()), "{}", refused.retry_after());
    // What nobody looked for, nobody knows: a stranger is told the same, and nothing is fetched for it.
    for _ in 0..20 {
        stranger(&world, json!({})).get("/whoami").await.refused(503, "issuer-unavailable");
    }
    assert_eq!(world.issuer.fetches(), fetches);
    let seen =
        "select count(*) from audit_events where outcome = 'refused' and actor = 'nobody' and reason like 'issuer-unavailable%'";
    assert!(world.app.database.count(seen).await >= 20, "an admin sees who asks for them");
}
