//! A refresh never breaks a running job.

use serde_json::json;
use token_broker::dev::simulator::OldAccessToken;

use crate::app::TestApp;

#[tokio::test]
async fn what_was_handed_out_survives_rotations_although_jfrog_kills_old_access_tokens_at_once() {
    let app = TestApp::start().await;
    app.simulator.knobs(|knobs| knobs.old_access_token = OldAccessToken::Revoked);
    app.register("deploy").await;
    let mut jobs = Vec::new();
    // A job an hour for five days, each six hours long.
    for hour in 0..120 {
        jobs.push((hour, app.ci.refresh("deploy", json!({})).await.expect(200).access_token().to_owned()));
        app.let_pass(3_600).await;
        jobs.retain(|(begun, _)| hour - begun < 6);
        for (begun, token) in &jobs {
            assert!(app.simulator.is_alive(token), "in hour {hour} the job of hour {begun} is broken");
        }
    }
    assert!(app.simulator.refreshes() >= 15, "there were rotations: {}", app.simulator.refreshes());
}

#[tokio::test]
async fn an_admin_who_asks_for_age_0_rotates_the_older_chain_and_the_last_token_still_works() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    for _ in 0..5 {
        let before = app.ci.refresh("deploy", json!({})).await.expect(200);
        let after = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
        assert_eq!(after.json["refreshed"], true);
        assert!(app.simulator.is_alive(before.access_token()) && app.simulator.is_alive(after.access_token()));
    }
}

#[tokio::test]
async fn a_min_ttl_does_not_cut_short_what_was_handed_out_in_the_last_minutes_of_its_life() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"expires_in": 3_600})).await.expect(201);
    app.no_keep_alive().await;
    // Good for (3600 - 60) / 2 = 1770 seconds.
    app.let_pass(1_755).await;
    let job = app.ci.refresh("deploy", json!({})).await.expect(200);
    app.let_pass(35).await;
    let newer = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!(newer.json["refreshed"], true);
    // Its chain has less than five minutes left; but it may be rotated before they are over, and the job is not done.
    app.let_pass(1_530).await;
    let impatient = app.ci.refresh("deploy", json!({"min_ttl": 2_300})).await.expect(200);
    assert!(app.simulator.is_alive(job.access_token()), "broken after 1565 s: {}", impatient.text);
    assert_eq!(impatient.json["warnings"], json!(["short-lived"]));
    app.let_pass(265).await;
    assert_eq!(app.ci.refresh("deploy", json!({})).await.expect(200).json["refreshed"], true, "now it is");
}
