//! A token that nobody asks for survives.

use std::time::Duration;

use serde_json::json;

use crate::app::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_token_of_one_day_survives_a_long_holiday() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"expires_in": 86_400})).await.expect(201);
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200).access_token().to_owned();
    let mut rotations = 0;
    // Fifteen days, six hours at a time.
    for _ in 0..60 {
        app.let_pass(21_600).await;
        app.database.run("update jobs set due_at = now() where kind = 'keep-alive'").await;
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if app.database.count("select count(*) from jobs where kind = 'keep-alive' and due_at > now() and failures = 0").await
                == 1
            {
                break;
            }
        }
        rotations = rotations.max(app.simulator.refreshes());
        let alive = "select count(*) from chains where state = 'active' and expires_at > now() + interval '1 hour'";
        assert_eq!(app.database.count(alive).await, 2, "both chains are alive after {rotations} rotations");
    }
    assert!((20..=70).contains(&rotations), "rotated at about half of each chain's life: {rotations}");
    let now = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(now.access_token()) && now.access_token() != handed);
}
