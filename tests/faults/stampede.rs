//! Many callers, one stale token.

use std::{collections::HashSet, time::Duration};

use futures_util::future::join_all;
use serde_json::json;

use crate::app::{Answer, TestApp, process::Replica};

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_callers_cause_one_refresh_twenty_times_of_twenty() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_callers_of_three_replicas_cause_one_refresh_and_are_all_answered_alike() {
    const CALLERS: usize = 5_000;
    /// Requests that one connection carries at once.
    const STREAMS: usize = 100;
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let mut app = TestApp::start().await;
    app.register("deploy").await;
    app.stop().await;
    let journals = [(); 3].map(|()| tempfile::tempdir().expect("a directory"));
    // JFrog takes so long that most of them wait together.
    let patient = [("TOKEN_BROKER_JFROG_TIMEOUT_SECONDS", "40"), ("TOKEN_BROKER_LEASE_SECONDS", "60")];
    let replicas = join_all(journals.iter().map(|journal| Replica::launch(&app, journal.path(), &patient))).await;
    let replicas: Vec<Replica> = replicas.into_iter().map(|replica| replica.expect("it starts")).collect();
    app.simulator.knobs(|knobs| knobs.latency_ms = 4_000);
    app.let_pass(21_620).await;

    let connections = (0..CALLERS / STREAMS).map(|number| {
        let base = replicas[number % replicas.len()].client(&app.ci).base().to_owned();
        let http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().expect("a client");
        (http, format!("{base}/tokens/deploy/refresh"))
    });
    let callers = connections.flat_map(|(http, url)| {
        let request = http.post(url).bearer_auth(app.ci.key()).json(&json!({"wait": 120})).timeout(Duration::from_secs(150));
        (0..STREAMS).map(move |_| tokio::spawn(Answer::of(request.try_clone().expect("a body in memory"))))
    });
    let answers = join_all(callers.collect::<Vec<_>>()).await;
    let answers: Vec<Answer> = answers.into_iter().map(|answer| answer.expect("an answer").expect(200)).collect();

    assert_eq!((answers.len(), app.simulator.refreshes()), (CALLERS, 1));
    let tokens: HashSet<&str> = answers.iter().map(Answer::access_token).collect();
    assert_eq!(tokens.len(), 1, "all are answered alike");
    assert!(tokens.iter().all(|token| app.simulator.is_alive(token)));
    let warned = answers.iter().filter(|answer| answer.json["warnings"] != json!([])).count();
    assert_eq!(warned, 0);
    let audited = "select count(distinct request_id) from audit_events where action = 'token.hand_out' and outcome = 'done'";
    assert_eq!(app.database.count(audited).await, i64::try_from(CALLERS).expect("small"), "each has its audit row");
}
