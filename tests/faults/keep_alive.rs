//! A token that nobody asks for survives.

use std::time::Duration;

use serde_json::json;
use token_broker::dev::simulator::{Fault, Rule};

use crate::app::{TestApp, jfrog::both_active, process::Replica};

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_token_of_one_day_survives_a_long_holiday() {
    let app = TestApp::start().await;
    app.register_with("deploy", json!({"expires_in": 86_400})).await.expect(201);
    let handed = app.ci.refresh("deploy", json!({})).await.expect(200).access_token().to_owned();
    let mut rotations = 0;
    // Fifteen days, six hours at a time.
    for _ in 0..60 {
        app.let_pass(21_620).await;
        app.keep_alive_now().await;
        rotations = rotations.max(app.simulator.refreshes());
        let alive = "select count(*) from chains where state = 'active' and expires_at > now() + interval '1 hour'";
        assert_eq!(app.database.count(alive).await, 2, "both chains are alive after {rotations} rotations");
    }
    assert!((20..=70).contains(&rotations), "rotated at about half of each chain's life: {rotations}");
    let now = app.ci.refresh("deploy", json!({})).await.expect(200);
    assert!(app.simulator.is_alive(now.access_token()) && now.access_token() != handed);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_share_what_is_due_and_rotate_each_token_once() {
    const TOKENS: usize = 40;
    let mut app = TestApp::start().await;
    for number in 0..TOKENS {
        app.register_with(&format!("deploy-{number}"), json!({"expires_in": 86_400})).await.expect(201);
    }
    app.stop().await;
    let journals = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let one = Replica::start(&app, journals[0].path(), "info").await;
    let other = Replica::start(&app, journals[1].path(), "info").await;
    // Twelve hours: every older chain has lived half of its life.
    app.let_pass(50_000).await;
    // So slow that there is something left when the other one looks, which may be a second later.
    app.simulator.knobs(|knobs| knobs.latency_ms = 700);
    app.database.run("update jobs set due_at = now() where kind = 'keep-alive'").await;
    for _ in 0..300 {
        if app.simulator.refreshes() >= TOKENS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Long enough for one too many.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((app.simulator.refreshes(), app.simulator.max_refreshes_in_flight()), (TOKENS, 1));
    let shares = [one, other].map(|replica| replica.log().matches("called JFrog").count());
    assert!(shares.iter().all(|share| *share > 0), "both did some: {shares:?}");
    assert_eq!(app.database.count("select count(*) from chains where state <> 'active'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_jfrog_is_probed_and_not_hammered_and_tokens_still_good_are_handed_out() {
    const TOKENS: usize = 40;
    let app = TestApp::start().await;
    for number in 0..TOKENS {
        app.register_with(&format!("deploy-{number}"), json!({"expires_in": 86_400})).await.expect(201);
    }
    app.let_pass(50_000).await;
    app.simulator.fault(Rule::always(Fault::Unavailable));
    let before = app.asked_for_pairs();
    // For some seconds everything is due again and again, and callers ask as well.
    for round in 0..40 {
        app.database.run("update jobs set due_at = now() where kind = 'keep-alive'").await;
        let handed = app.ci.refresh(&format!("deploy-{}", round % TOKENS), json!({})).await.expect(200);
        assert_eq!(handed.json["refreshed"], false);
        let warning = handed.json["warnings"][0].as_str().expect("a warning").to_owned();
        assert!(["jfrog-unavailable", "refresh-uncertain"].contains(&warning.as_str()), "{warning}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let asked = app.asked_for_pairs() - before;
    // Five in a row open the circuit; those that were under way by then, and a probe now and then.
    assert!((5..60).contains(&asked), "{asked} calls for {TOKENS} tokens");
    app.simulator.clear_faults();
    // The longest pause is a minute.
    for _ in 0..900 {
        if app.database.count("select count(*) from chains where state <> 'active'").await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for number in 0..TOKENS {
        let token = app.admin.get(&format!("/tokens/deploy-{number}")).await.json;
        assert!(both_active(&token), "{token:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_chain_of_idle_tokens_of_an_hour_expires_before_it_is_rotated() {
    const TOKENS: usize = 12;
    let app = TestApp::start().await;
    for number in 0..TOKENS {
        app.register_with(&format!("deploy-{number}"), json!({"expires_in": 3_600})).await.expect(201);
    }
    // Around the half of their life, and around its end.
    for (pause, steps, step) in [(1_600, 20, 20), (1_250, 45, 10)] {
        app.let_pass(pause).await;
        for _ in 0..steps {
            app.let_pass(step).await;
            app.keep_alive_now().await;
            assert_eq!(app.database.count("select count(*) from chains where expires_at <= now()").await, 0, "expired");
        }
    }
    assert!(app.simulator.refreshes() >= 2 * TOKENS, "both chains of each were rotated: {}", app.simulator.refreshes());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_all_at_once_comes_to_jfrog_in_bounded_portions() {
    const TOKENS: usize = 48;
    let app = TestApp::start().await;
    for number in 0..TOKENS {
        app.register_with(&format!("deploy-{number}"), json!({"expires_in": 86_400})).await.expect(201);
    }
    app.let_pass(50_000).await;
    // So slow that without a bound all of them would be there together.
    app.simulator.knobs(|knobs| knobs.latency_ms = 1_500);
    app.database.run("update jobs set due_at = now() where kind = 'keep-alive'").await;
    let mut most = 0;
    while app.simulator.refreshes() < TOKENS {
        most = most.max(app.simulator.refreshes_in_flight());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!((16..=32).contains(&most), "{most} at once");
}
