//! What the audit is for: from a leaked token to the job, from a refused job to the reason.

use reqwest::Method;
use serde_json::json;

use super::events;
use crate::{app::Answer, identities::World};

#[tokio::test]
async fn a_fingerprint_leads_from_a_leaked_token_to_the_job_that_got_it() {
    let world = World::start().await;
    let app = &world.app;
    app.register("deploy").await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    let asked = world.job(json!({})).request(Method::POST, "/tokens/deploy/refresh").header("x-request-id", "the-job");
    let leaked = Answer::of(asked).await.expect(200);
    app.ci.refresh("deploy", json!({})).await.expect(200);
    let fingerprint = token_broker::crypto::fingerprint(leaked.access_token());
    let got = events(&app.admin, &format!("&fingerprint={fingerprint}&action=token.hand_out")).await;
    assert_eq!(got.len(), 2, "both that were handed it: {got:#?}");
    let job = &got[1];
    assert_eq!(job["actor"], "github:repo:acme/web:ref:refs/heads/main");
    assert_eq!((&job["recognised_by"]["rules"], &job["recognised_by"]["claims"]["run_id"]), (&json!(["main"]), &json!("77")));
    assert_eq!((&job["token"], &job["token_id"], &job["outcome"]), (&json!("deploy"), &leaked.json["token_id"], &json!("done")));
    assert_eq!((&job["request_id"], &job["address"]), (&json!("the-job"), &json!("127.0.0.1")));
    assert_eq!((&got[0]["actor"], &got[0]["recognised_by"]["name"]), (&json!("key:payments/ci"), &json!("ci")));
    let made = events(&app.admin, &format!("&fingerprint={fingerprint}&action=chain.create")).await;
    assert_eq!((made.len(), &made[0]["actor"]), (1, &json!("key:payments/admin")), "and who made it");
    let never = token_broker::crypto::fingerprint("never handed out");
    assert!(events(&app.admin, &format!("&fingerprint={never}")).await.is_empty());
    let shown = serde_json::to_string(&events(&app.admin, "").await).expect("JSON");
    for secret in app.simulator.secrets() {
        assert!(!shown.contains(&secret), "no event holds a secret");
    }
}

#[tokio::test]
async fn a_request_id_leads_from_a_refused_job_to_the_reason() {
    let world = World::start().await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    let refused =
        world.job(json!({"ref": "refs/heads/feature"})).get("/whoami?team=payments").await.refused(401, "unauthenticated");
    let id = refused.json["request_id"].as_str().expect("the id that the job's log shows");
    let [event] = events(&world.app.admin, &format!("&request_id={id}")).await.try_into().expect("one event");
    assert_eq!((&event["outcome"], &event["action"]), (&json!("refused"), &json!("GET /whoami")));
    let reason = event["reason"].as_str().expect("a reason");
    for word in ["rule main", "refs/heads/main", "refs/heads/feature"] {
        assert!(reason.contains(word), "{word}: {reason}");
    }
    let denied = world.app.viewer.refresh("deploy", json!({})).await.refused(403, "forbidden");
    let [event] =
        events(&world.app.admin, &format!("&request_id={}", denied.header("x-request-id"))).await.try_into().expect("one");
    assert_eq!((&event["reason"], &event["token"]), (&json!("forbidden: role viewer may not do this"), &json!("deploy")));
}
