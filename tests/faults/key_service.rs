//! The key service is away while Postgres comes back: what waits in the journal waits on, and holds up nothing else.

use std::time::Duration;

use serde_json::json;
use token_broker::broker::Timing;

use crate::{
    app::{
        TIMING, TestApp,
        fake_transit::{Behaving, FakeTransit, listed},
    },
    journal::entries,
};

/// Longer than the test: nobody else finds out what became of an attempt.
const PATIENT: Timing = Timing { lease: Duration::from_secs(120), ..TIMING };

/// What was unwrapped is not remembered.
const KEPT: Duration = Duration::from_secs(1);

async fn with(app: &mut TestApp, list: String) {
    app.stop().await;
    app.change(move |settings| {
        settings.database.master_keys = listed(&list);
        settings.database.keys_kept = KEPT;
        settings.timing = PATIENT;
    });
    app.start_again().await;
}

/// A pair that is in the journal and nowhere else.
async fn left_waiting(app: &TestApp, name: &str) {
    let asked = app.admin.refresh(name, json!({"max_age": 0})).await.expect(200);
    assert_eq!(asked.json["warnings"], json!(["refresh-pending"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_whose_key_service_is_away_waits_and_blocks_no_other() {
    let transit = FakeTransit::start().await;
    let mut app = TestApp::start().await;
    for name in ["theirs", "ours"] {
        app.register_with(name, json!({"reuse_for": 1})).await.expect(201);
    }
    let refuse = "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not now'; end $$;
                  create trigger refuse before update of access_token on chains for each row execute function refuse();";
    app.database.run(refuse).await;
    let here = app.master_keys.clone();
    // The data key is wrapped here, the older entry there.
    with(&mut app, format!("{},{here}", transit.entry("bao"))).await;
    left_waiting(&app, "theirs").await;
    with(&mut app, format!("{here},{}", transit.entry("bao"))).await;
    left_waiting(&app, "ours").await;
    assert_eq!(entries(&app, "pending"), 2);

    transit.behave(Behaving::Away);
    tokio::time::sleep(KEPT * 2).await;
    app.database.run("drop trigger refuse on chains").await;
    let listens = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and query ilike 'listen%'";
    assert_eq!(app.database.count(listens).await, 1);
    app.token_until("ours", "committed", |token| token["generation"] == 2).await;
    assert_eq!(app.admin.get("/tokens/theirs").await.expect(200).json["generation"], 1);
    assert_eq!((entries(&app, "pending"), entries(&app, "unreadable")), (1, 0));

    transit.behave(Behaving::Well);
    app.token_until("theirs", "committed", |token| token["generation"] == 2).await;
    let handed = app.ci.refresh("theirs", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(handed.access_token()));
    assert_eq!((entries(&app, "pending"), app.simulator.refreshes()), (0, 2));
}
