//! Registrations and deletes that stop half-way: finished by whoever is left, or gone without a trace.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use token_broker::dev::simulator::{Fault, Filter, Route, Rule};

use crate::app::{
    Answer, Client, TestApp,
    jfrog::{both_active, chain_ids},
    process::Replica,
};

/// Recovery of this token waits for the test.
pub(super) const NOT_YET: &str = "update jobs set due_at = 'infinity' where kind = 'settle'";

/// Asks until the answer is none of those that only ask for patience.
pub(super) async fn delete(client: &Client, name: &str) -> u16 {
    for _ in 0..100 {
        let answer = client.delete(&format!("/tokens/{name}")).await;
        if ![409, 503].contains(&answer.status) {
            return answer.status;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it cannot be deleted: {}", client.delete(&format!("/tokens/{name}")).await.text);
}

/// Until exactly these pairs live at JFrog, and no attempt is left.
pub(super) async fn whole(app: &TestApp, what: &str, ours: &[String]) {
    let mut alive = Vec::new();
    for _ in 0..150 {
        alive = app.alive();
        if alive == ours && app.database.count("select count(*) from attempts").await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let tokens: Vec<_> = app.simulator.tokens().into_iter().filter(|token| token.alive && !token.identity).collect();
    panic!("{what}: {alive:?} live, ours are {ours:?}: {tokens:#?}");
}

async fn post(client: &Client, path: &str, body: &Value) -> Option<Answer> {
    let request = client.request(Method::POST, path).header("idempotency-key", "the only one").json(body);
    Answer::try_of(request.timeout(Duration::from_secs(15))).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_is_finished_by_another_replica_wherever_the_first_one_died() {
    // Before JFrog was called for a, with a lost, with a in a journal, between a and b, before JFrog was called for b, with b lost.
    for fault in ["begun:kill", "answered:kill", "journaled:kill", "marked:kill", "begun:kill:2", "answered:kill:2"] {
        let app = TestApp::start().await;
        let journal = tempfile::tempdir().expect("a directory");
        let dying = Replica::armed(&app, journal.path(), fault).await;
        let identity_token = app.simulator.add_user("someone", false);
        let body = json!({"name": "deploy", "reuse_for": 1, "identity_token": identity_token});
        assert!(post(&dying.client(&app.admin), "/tokens", &body).await.is_none(), "{fault}: it died");
        // The same request again, whoever answers it; what it brings is not needed: the first one's identity token is still there.
        let again = json!({"name": "deploy", "reuse_for": 1, "identity_token": "not-needed"});
        let mut answer = post(&app.admin, "/tokens", &again).await.expect("an answer");
        for _ in 0..100 {
            assert!([201, 409, 503].contains(&answer.status), "{fault}: {}", answer.text);
            if answer.status == 201 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            answer = post(&app.admin, "/tokens", &again).await.expect("an answer");
        }
        answer.expect(201);
        let token = app.token_until("deploy", "whole", both_active).await;
        whole(&app, fault, &chain_ids(&token)).await;
        assert_eq!(app.database.count("select count(*) from tokens where identity_token is not null").await, 0, "{fault}");
        // Whatever is in the dead one's journal takes nobody's place.
        let back = Replica::start(&app, journal.path(), "info").await;
        let rotated = back.client(&app.admin).refresh("deploy", json!({"max_age": 0})).await.expect(200);
        assert!(app.simulator.is_alive(rotated.access_token()), "{fault}");
        whole(&app, fault, &chain_ids(&app.token_until("deploy", "whole", both_active).await)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_made_registration_whose_answer_was_lost_can_be_deleted() {
    for lost_at in [0, 1] {
        let app = TestApp::start().await;
        let journal = tempfile::tempdir().expect("a directory");
        if lost_at == 0 {
            app.once(Fault::DropResponseAfterCommit, Route::Create);
            app.register_with("deploy", json!({})).await.refused(503, "jfrog-unavailable");
        } else {
            let dying = Replica::armed(&app, journal.path(), "answered:kill:2").await;
            let body = json!({"name": "deploy", "identity_token": app.simulator.add_user("someone", false)});
            assert!(post(&dying.client(&app.admin), "/tokens", &body).await.is_none(), "it died");
        }
        app.database.run(NOT_YET).await;
        assert_eq!(app.admin.get("/tokens/deploy").await.json["status"], "creating");
        app.admin.delete("/tokens/deploy").await.refused(409, "busy");
        assert_eq!(delete(&app.admin, "deploy").await, 204);
        app.nothing_is_left_of("deploy").await;
        app.register("deploy").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_is_not_given_up_before_what_it_left_at_jfrog_is_found() {
    let app = TestApp::start().await;
    app.once(Fault::DropResponseAfterCommit, Route::Create);
    app.register_with("deploy", json!({"reuse_for": 1})).await.refused(503, "jfrog-unavailable");
    let always = |fault, route| app.simulator.fault(Rule { route: Filter::Only(route), ..Rule::always(fault) });
    always(Fault::Unavailable, Route::List);
    always(Fault::RateLimited { retry_after: Some("1".into()) }, Route::Create);
    let listed = |app: &TestApp| app.simulator.counters().get(&Route::List).map_or(0, |counter| counter.calls);
    for _ in 0..100 {
        if listed(&app) > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    app.simulator.clear_faults();
    let token = settled(&app).await;
    whole(&app, &token.text, &if token.status == 404 { Vec::new() } else { chain_ids(&token.json) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_died_after_jfrog_was_told_is_repeated_until_the_token_is_gone() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let journal = tempfile::tempdir().expect("a directory");
    let dying = Replica::armed(&app, journal.path(), "revoked:kill").await;
    let request = dying.client(&app.admin).request(Method::DELETE, "/tokens/deploy");
    assert!(Answer::try_of(request).await.is_err(), "it died");
    assert_eq!(app.admin.get("/tokens/deploy").await.json["status"], "revoked");
    app.ci.refresh("deploy", json!({})).await.refused(409, "token-lost");
    assert_eq!(delete(&app.admin, "deploy").await, 204);
    app.nothing_is_left_of("deploy").await;
    let told = "select count(*) from audit_events where action = 'token.delete' and outcome = 'done'";
    assert_eq!(app.database.count(told).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_ends_while_it_is_being_deleted_does_not_come_back() {
    let app = TestApp::start().await;
    // Between its last look at the token and the moment that completes it, the delete comes.
    app.database
        .run(
            "create function hold() returns trigger language plpgsql as $$ begin
                 if current_query() like '%set state = ''registered''%' then perform pg_sleep(2); end if; return null; end $$;
             create trigger hold before update on tokens for each statement execute function hold();",
        )
        .await;
    let body = json!({"name": "deploy", "identity_token": app.simulator.add_user("someone", false)});
    let registering = tokio::spawn({
        let admin = app.admin.clone();
        async move { post(&admin, "/tokens", &body).await.expect("an answer") }
    });
    while app
        .database
        .count("select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()")
        .await
        == 0
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    app.simulator.fault(Rule { route: Filter::Only(Route::Revoke), ..Rule::always(Fault::Unavailable) });
    app.admin.delete("/tokens/deploy").await.refused(503, "jfrog-unavailable");
    let answer = registering.await.expect("no panic").refused(409, "busy");
    assert_eq!(app.admin.get("/tokens/deploy").await.json["status"], "revoked", "{}", answer.text);
    app.ci.refresh("deploy", json!({})).await.refused(409, "token-lost");
    app.simulator.clear_faults();
    assert_eq!(delete(&app.admin, "deploy").await, 204);
    app.nothing_is_left_of("deploy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_died_around_its_rotation_leaves_nothing_alive_of_what_was_pasted() {
    for fault in ["begun:kill", "marked:kill", "begun:kill:2", "prepared:kill:2"] {
        let app = TestApp::start().await;
        let pair = app.pair_made_by_hand("person").await;
        let journal = tempfile::tempdir().expect("a directory");
        let dying = Replica::armed(&app, journal.path(), fault).await;
        let body = json!({"name": "deploy", "reuse_for": 1, "access_token": pair["access_token"],
                          "refresh_token": pair["refresh_token"]});
        assert!(post(&dying.client(&app.admin), "/tokens/import", &body).await.is_none(), "{fault}: it died");
        let token = app.token_until("deploy", "whole", |token| both_active(token) && token["status"] == "active").await;
        whole(&app, fault, &chain_ids(&token)).await;
        assert!(!app.simulator.is_alive(pair["access_token"].as_str().expect("a token")), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_one_chain_that_died_before_its_rotation_was_sent_is_settled_like_any() {
    for fault in ["begun:kill", "prepared:kill"] {
        let app = TestApp::start().await;
        let pair = app.pair_made_by_hand("person").await;
        let journal = tempfile::tempdir().expect("a directory");
        let dying = Replica::armed(&app, journal.path(), fault).await;
        let body = json!({"name": "deploy", "chains": 1, "access_token": pair["access_token"],
                          "refresh_token": pair["refresh_token"]});
        assert!(post(&dying.client(&app.admin), "/tokens/import", &body).await.is_none(), "{fault}: it died");
        let token = app.token_until("deploy", "settled", |token| token["status"] == "active").await;
        whole(&app, fault, &chain_ids(&token)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_not_given_up_before_jfrog_was_told_that_its_second_chain_is_not_needed() {
    let app = TestApp::start().await;
    let pair = app.pair_made_by_hand("person").await;
    app.once(Fault::RateLimited { retry_after: Some("1".into()) }, Route::Refresh);
    app.simulator.fault(Rule { route: Filter::Only(Route::Revoke), ..Rule::always(Fault::Unavailable) });
    let body = json!({"name": "deploy", "reuse_for": 1, "access_token": pair["access_token"],
                      "refresh_token": pair["refresh_token"]});
    app.admin.post("/tokens/import", body).await.refused(503, "jfrog-unavailable");
    app.simulator.clear_faults();
    let token = settled(&app).await;
    let pasted = vec![pair["token_id"].as_str().expect("an id").to_owned()];
    whole(&app, &token.text, &if token.status == 404 { pasted } else { chain_ids(&token.json) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_can_neither_go_on_nor_back_is_tried_again_in_its_time() {
    let app = TestApp::start().await;
    let pair = app.pair_made_by_hand("person").await;
    for (route, fault) in [(Route::Refresh, Fault::Forbidden), (Route::Revoke, Fault::Unavailable)] {
        app.simulator.fault(Rule { route: Filter::Only(route), ..Rule::always(fault) });
    }
    let body = json!({"name": "deploy", "reuse_for": 1, "access_token": pair["access_token"],
                      "refresh_token": pair["refresh_token"]});
    app.admin.post("/tokens/import", body).await.refused(503, "jfrog-unavailable");
    let asked = app.asked_for_pairs();
    tokio::time::sleep(Duration::from_secs(9)).await;
    // The tests' lease is three seconds: each of up to three turns makes the second chain anew and tries the pasted one.
    assert!(app.asked_for_pairs() <= asked + 6, "{} more calls", app.asked_for_pairs() - asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_forgets_nothing_before_jfrog_told_what_an_answer_that_was_lost_left_there() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.once(Fault::DropResponseAfterCommit, Route::Refresh);
    app.admin.refresh("deploy", json!({"max_age": 0, "wait": 1})).await.expect(200);
    app.database.run(NOT_YET).await;
    app.simulator.fault(Rule { times: Some(2), ..Rule::once(Fault::Unavailable, Route::Me) });
    assert_eq!(delete(&app.admin, "deploy").await, 204);
    app.nothing_is_left_of("deploy").await;
}

/// Finished or given up: both are whole.
async fn settled(app: &TestApp) -> Answer {
    let mut token = app.admin.get("/tokens/deploy").await;
    for _ in 0..150 {
        if token.status == 404 || both_active(&token.json) && token.json["status"] == "active" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        token = app.admin.get("/tokens/deploy").await;
    }
    token
}
