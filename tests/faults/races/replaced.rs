//! Pairs that were in a chain's place before, and bear no marker or are another user's, are not left behind.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use token_broker::dev::simulator::{Fault, Route};

use super::half_made::{NOT_YET, delete, whole};
use crate::app::{
    Answer, TestApp,
    jfrog::{both_active, chain_ids},
    process::Replica,
};

async fn import(app: &TestApp, more: Value) {
    let pair = app.pair_made_by_hand("person").await;
    let mut body = json!({"name": "deploy", "access_token": pair["access_token"], "refresh_token": pair["refresh_token"]});
    for (field, value) in more.as_object().expect("fields") {
        body[field] = value.clone();
    }
    app.admin.post("/tokens/import", body).await.expect(201);
}

async fn recreate(app: &TestApp, user: &str) -> Value {
    let body = json!({"identity_token": app.simulator.add_user(user, false)});
    for _ in 0..100 {
        let answer = app.admin.post("/tokens/deploy/recreate", body.clone()).await;
        if answer.status != 409 {
            return answer.expect(200).json;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("busy for good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_import_takes_along_the_chain_that_bore_the_persons_description() {
    let app = TestApp::start().await;
    import(&app, json!({})).await;
    // Both chains are newer than what was imported, which still has its holders.
    for _ in 0..2 {
        app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    }
    assert_eq!(app.alive().len(), 3);
    assert_eq!(delete(&app.admin, "deploy").await, 204);
    app.nothing_is_left_of("deploy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_deleted_soon_after_it_was_moved_takes_along_the_former_users_chains() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    recreate(&app, "successor").await;
    assert_eq!(app.alive().len(), 4);
    assert_eq!(delete(&app.admin, "deploy").await, 204);
    app.nothing_is_left_of("deploy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_of_the_former_user_is_found_though_the_new_one_cannot_see_it() {
    for ends in ["lives on", "is deleted"] {
        let app = TestApp::start().await;
        app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
        app.once(Fault::DropResponseAfterCommit, Route::Refresh);
        app.admin.refresh("deploy", json!({"max_age": 0, "wait": 1})).await.expect(200);
        // Nobody finds out what became of it before the token is moved.
        app.database.run(NOT_YET).await;
        recreate(&app, "successor").await;
        if ends == "lives on" {
            whole(&app, ends, &chain_ids(&app.token_until("deploy", "whole", both_active).await)).await;
        } else {
            assert_eq!(delete(&app.admin, "deploy").await, 204);
            app.nothing_is_left_of("deploy").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_replaced_twice_before_the_sweep_leaves_neither_pair_behind() {
    // What has no marker, or is another user's, must be remembered; the other pair is found by its marker.
    for moves in [&["successor", "successor"][..], &["successor", "user-of-deploy"]] {
        let app = TestApp::start().await;
        app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
        for user in moves {
            recreate(&app, user).await;
        }
        assert_eq!(app.alive().len(), 6, "nothing is swept yet");
        whole(&app, &moves.join(", "), &chain_ids(&app.admin.get("/tokens/deploy").await.json)).await;
    }
    let app = TestApp::start().await;
    import(&app, json!({"reuse_for": 1})).await;
    for _ in 0..2 {
        app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    }
    recreate(&app, "person").await;
    assert_eq!(app.alive().len(), 5, "nothing is swept yet");
    whole(&app, "imported", &chain_ids(&app.admin.get("/tokens/deploy").await.json)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_was_committed_and_is_in_use_is_not_given_back_by_a_replica_that_died_before_it_noted_that() {
    // Of a chain that is replaced twice, the first pair is remembered and the other is not.
    for before in [&[][..], &["user-of-deploy"]] {
        let app = TestApp::start().await;
        app.register("deploy").await;
        app.no_keep_alive().await;
        for user in before {
            recreate(&app, user).await;
        }
        let journal = tempfile::tempdir().expect("a directory");
        let dying = Replica::armed(&app, journal.path(), "committed:kill").await;
        let request = dying.client(&app.admin).request(Method::POST, "/tokens/deploy/refresh").json(&json!({"max_age": 0}));
        assert!(Answer::try_of(request).await.is_err(), "it died");
        let job = app.ci.refresh("deploy", json!({})).await.expect(200);
        assert_eq!(job.json["refreshed"], false, "Postgres has it");
        recreate(&app, "user-of-deploy").await;
        let back = Replica::start(&app, journal.path(), "info").await;
        assert!(app.simulator.is_alive(job.access_token()), "a running job was broken: {}", back.log());
    }
}
