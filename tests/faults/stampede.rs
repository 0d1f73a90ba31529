//! Many callers, one stale token.

use futures_util::future::join_all;
use serde_json::json;

use crate::app::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_callers_cause_one_refresh_twenty_times_of_twenty() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    for round in 1..=20 {
        app.let_pass(21_620).await;
        let answers = join_all((0..500).map(|_| app.ci.refresh("deploy", json!({})))).await;
        assert_eq!(app.simulator.refreshes(), round, "one refresh a round");
        let token = answers[0].access_token();
        for answer in &answers {
            assert_eq!((answer.status, answer.access_token()), (200, token), "all are answered alike: {}", answer.text);
            assert_eq!(answer.json["warnings"], json!([]));
        }
    }
}
