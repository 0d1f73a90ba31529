//! What a rule lets in, and what it does not.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::World;
use crate::app::{Answer, TestApp, issuer::Issuer};

#[tokio::test]
async fn a_job_with_no_secret_is_handed_the_token_that_a_rule_names() {
    let world = World::start().await;
    world.app.register("deploy").await;
    world.app.register("secret").await;
    world.write(world.rule("main", json!({"tokens": ["deploy"]}))).await.expect(201);
    let job = world.job(json!({}));
    let handed = job.refresh("deploy", json!({})).await.expect(200);
    assert!(world.app.simulator.is_alive(handed.access_token()));
    job.refresh("secret", json!({})).await.refused(404, "not-found");
    job.get("/teams/payments/keys").await.refused(403, "forbidden");
    let who = job.get("/whoami").await.expect(200).json;
    assert_eq!((&who["team"], &who["role"], &who["tokens"]), (&json!("payments"), &json!("ci"), &json!(["deploy"])));
    assert_eq!(who["name"], "github:repo:acme/web:ref:refs/heads/main");
    assert_eq!(who["recognised_by"]["rules"], json!(["main"]));
    assert_eq!(who["recognised_by"]["claims"]["run_id"], "77");
}

#[tokio::test]
async fn a_job_that_no_rule_fits_is_not_let_in_and_learns_nothing() {
    let world = World::start().await;
    let nobody = world.app.ci.nobody().get("/whoami").await.refused(401, "unauthenticated");
    world.job(json!({})).get("/whoami").await.refused(401, "unauthenticated");
    world.write(world.rule("main", json!({}))).await.expect(201);
    world.felt().await;
    let others = [
        json!({"repository": "acme/other"}),
        json!({"repository": "acme/webs"}),
        json!({"repository": "evil/web", "repository_owner": "evil"}),
        json!({"repository": "ACME/web"}),
        json!({"repository": null}),
        json!({"repository": 7}),
        json!({"repository": ["acme/web"], "repository_id": null}),
        json!({"repository_id": null}),
        json!({"repository_owner_id": null}),
        json!({"ref": "refs/heads/mainly"}),
        json!({"ref": "refs/tags/main"}),
        json!({"event_name": "pull_request"}),
        json!({"event_name": "pull_request_target"}),
        json!({"event_name": "workflow_run"}),
        json!({"event_name": "issue_comment"}),
        json!({"event_name": null}),
        json!({"aud": "https://github.com/acme"}),
        json!({"exp": 1}),
    ];
    for changes in others {
        let refused = world.job(changes.clone()).get("/whoami").await.refused(401, "unauthenticated");
        assert_eq!(refused.but_for_the_request_id(), nobody.but_for_the_request_id(), "{changes}");
    }
    world.job(json!({})).get("/whoami").await.expect(200);
}

#[tokio::test]
async fn a_repository_made_anew_under_the_same_name_is_refused() {
    let world = World::start().await;
    let written = world.write(world.rule("main", json!({}))).await.expect(201);
    assert_eq!(written.json["pins"], json!({}));
    world.job(json!({})).get("/whoami").await.expect(200);
    let rule = world.app.admin.get("/teams/payments/trust-rules/main").await.expect(200).json;
    assert_eq!(rule["pins"], json!({"repository_id": "1001", "repository_owner_id": "11"}));
    assert!(rule["last_used_at"].is_string());
    world.felt().await;
    world.job(json!({"repository_id": "2002"})).get("/whoami").await.refused(401, "unauthenticated");
    world.job(json!({"repository_owner_id": "22"})).get("/whoami").await.refused(401, "unauthenticated");
    world.job(json!({"run_id": "78"})).get("/whoami").await.expect(200);

    // A change of what it gives forgets nothing; one of what it asks for begins anew.
    let path = "/teams/payments/trust-rules/main";
    let same = world.app.admin.put(path, world.rule("main", json!({"tokens": ["deploy"]}))).await.expect(200);
    assert_eq!(same.json["pins"], rule["pins"]);
    let other = world.app.admin.put(path, world.rule("main", json!({"claims": {"repository": "acme/web"}}))).await.expect(200);
    assert_eq!(other.json["pins"], json!({}));
}

#[tokio::test]
async fn two_repositories_that_race_for_a_rules_first_use_are_never_both_let_in() {
    for _ in 0..5 {
        let world = World::start().await;
        world.write(world.rule("main", json!({}))).await.expect(201);
        let (one, other) = (world.job(json!({"repository_id": "1"})), world.job(json!({"repository_id": "2"})));
        let (a, b) = tokio::join!(one.get("/whoami"), other.get("/whoami"));
        let mut statuses = [a.status, b.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 401]);
    }
}

#[tokio::test]
async fn a_rule_that_is_changed_or_deleted_is_felt_within_a_second() {
    let world = World::start().await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    let job = world.job(json!({}));
    job.get("/whoami").await.expect(200);
    let path = "/teams/payments/trust-rules/main";
    world.app.admin.put(path, world.rule("main", json!({"role": "viewer"}))).await.expect(200);
    world.felt().await;
    assert_eq!(job.get("/whoami").await.expect(200).json["role"], "viewer");
    world.app.admin.delete(path).await.expect(204);
    world.felt().await;
    job.get("/whoami").await.refused(401, "unauthenticated");
    world.app.admin.delete(path).await.refused(404, "not-found");
}

#[tokio::test]
async fn while_an_issuer_cannot_be_asked_for_its_keys_a_job_is_told_to_come_back() {
    let issuer = Issuer::start().await;
    issuer.down();
    let app = TestApp::start_trusting(&[format!("github={}", issuer.url())]).await;
    let world = World { app, issuer };
    world.write(world.rule("main", json!({}))).await.expect(201);
    let job = world.job(json!({}));
    assert_eq!(job.get("/whoami").await.refused(503, "issuer-unavailable").retry_after(), 5);
    world.issuer.up();
    let mut answer = job.get("/whoami").await;
    while answer.status == 503 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        answer = job.get("/whoami").await;
    }
    answer.expect(200);
    // What is known already is good while it is away again.
    world.issuer.down();
    world.job(json!({"run_id": "78"})).get("/whoami").await.expect(200);
}

#[tokio::test]
async fn the_service_fetches_an_issuers_keys_before_anybody_needs_them() {
    let world = World::start().await;
    let begun = tokio::time::Instant::now();
    while world.issuer.fetches() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody asked for them");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_job_whose_token_ends_while_it_waits_is_handed_nothing() {
    let world = World::start().await;
    world.app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
    world.write(world.rule("main", json!({}))).await.expect(201);
    world.app.let_pass(10).await;
    world.job(json!({})).get("/whoami").await.expect(200);
    world.app.simulator.knobs(|knobs| knobs.latency_ms = 1_900);
    // On a busy machine the token may have ended before it was looked at: then another is tried.
    while world.app.simulator.refreshes() == 0 {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        // It is taken until a minute after its end: for less than two seconds.
        let job = world.job(json!({"iat": now - 600, "exp": now - 59}));
        job.refresh("deploy", json!({})).await.refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn a_rule_that_is_no_rule_is_refused_in_words() {
    let world = World::start().await;
    let cases = [
        (json!({"claims": {}}), vec!["claims"]),
        (json!({"claims": {"ref": "refs/heads/main"}}), vec!["claims"]),
        (json!({"claims": {"repository": "*"}}), vec!["claims.repository"]),
        (json!({"claims": {"repository": "acme/*"}}), vec!["whole_organisation"]),
        (json!({"claims": {"repository_owner": "acme"}}), vec!["whole_organisation"]),
        (json!({"claims": {"repository": "acme/web", "repositry_id": "7"}}), vec!["claims.repositry_id"]),
        (json!({"claims": {"repository": "acme/web", "aud": "x"}}), vec!["claims.aud"]),
        (json!({"issuer": "https://unknown.example"}), vec!["issuer"]),
        (json!({"issuer": format!("{}/", world.issuer.url())}), vec!["issuer"]),
        (json!({"role": "platform-admin"}), vec!["role"]),
        (json!({"tokens": []}), vec!["tokens"]),
        (json!({"tokens": ["A"]}), vec!["tokens[0]"]),
        (json!({"session_max": -1}), vec!["session_max"]),
        (json!({"session_max": 86_401}), vec!["session_max"]),
        (json!({"session_max": 90_000, "tokens": []}), vec!["tokens", "session_max"]),
        (json!({"name": "explain"}), vec!["name"]),
        (json!({"name": null}), vec!["name"]),
        (json!({"name": "A b"}), vec!["name"]),
        (json!({"claims": {"repository": 7}}), vec!["claims.repository"]),
        (json!({"claims": ["repository"]}), vec!["claims"]),
        (json!({"whole_organisation": "yes"}), vec!["whole_organisation"]),
        (json!({"pins": {}}), vec!["pins"]),
    ];
    for (change, fields) in cases {
        let refused = world.write(world.rule("bad", change.clone())).await.refused(422, "invalid-request");
        assert_eq!(refused.fields(), fields, "{change}: {}", refused.text);
    }
    let owner = json!({"claims": {"repository_owner": "acme"}, "whole_organisation": true});
    world.write(world.rule("owner", owner)).await.expect(201);
    let refused =
        world.write(world.rule("bad", json!({"claims": {"repository": "acme/*"}}))).await.refused(422, "invalid-request");
    insta::assert_json_snapshot!(refused.shown());
}

#[tokio::test]
async fn a_claim_that_is_written_twice_is_refused() {
    let world = World::start().await;
    let body = format!(
        r#"{{"name": "main", "issuer": "{}", "role": "ci",
             "claims": {{"repository": "acme/web", "ref": "refs/heads/main", "ref": "*/*/*"}}}}"#,
        world.issuer.url()
    );
    for (method, path) in [(Method::POST, "/teams/payments/trust-rules"), (Method::PUT, "/teams/payments/trust-rules/main")] {
        let request = world.app.admin.request(method, path).header("content-type", "application/json").body(body.clone());
        let refused = Answer::of(request).await.refused(422, "invalid-request");
        assert_eq!(refused.fields(), ["claims"], "{}", refused.text);
        assert!(refused.text.contains("`ref`"), "{}", refused.text);
    }
}

#[tokio::test]
async fn rules_are_listed_read_and_named_once() {
    let world = World::start().await;
    for name in ["b", "a", "c"] {
        world.write(world.rule(name, json!({}))).await.expect(201);
    }
    world.write(world.rule("a", json!({}))).await.refused(409, "name-taken");
    let page = world.app.admin.get("/teams/payments/trust-rules?limit=2").await.expect(200).json;
    let names =
        |page: &Value| page["items"].as_array().expect("items").iter().map(|rule| rule["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&page), ["a", "b"]);
    let next = page["next"].as_str().expect("a cursor");
    let rest = world.app.admin.get(&format!("/teams/payments/trust-rules?limit=2&after={next}")).await.expect(200).json;
    assert_eq!((names(&rest), &rest["next"]), (vec![json!("c")], &Value::Null));
    world.app.admin.get("/teams/payments/trust-rules/d").await.refused(404, "not-found");
    let created = world.write(world.rule("d", json!({"tokens": ["x"], "session_max": 60}))).await.expect(201);
    assert_eq!(created.header("location"), "/teams/payments/trust-rules/d");
    world.app.admin.put("/teams/payments/trust-rules/e", world.rule("e", json!({}))).await.refused(404, "not-found");
    let other = world.app.admin.put("/teams/payments/trust-rules/d", world.rule("other", json!({}))).await;
    assert_eq!(other.refused(422, "invalid-request").fields(), ["name"]);
}

#[tokio::test]
async fn a_rule_never_gives_more_than_its_writer_has() {
    let world = World::start().await;
    let narrow = world.app.team_key("payments", "narrow", json!({"role": "admin", "tokens": ["deploy-*"]})).await;
    let path = "/teams/payments/trust-rules";
    for more in
        [json!({}), json!({"tokens": ["*"]}), json!({"tokens": ["deploy-a", "x"]}), json!({"role": "admin", "tokens": ["*"]})]
    {
        narrow.post(path, world.rule("more", more)).await.refused(403, "forbidden");
    }
    narrow.post(path, world.rule("mine", json!({"tokens": ["deploy-a"], "role": "admin"}))).await.expect(201);
    world.write(world.rule("wide", json!({}))).await.expect(201);
    let seen = narrow.get(path).await.expect(200).json;
    assert_eq!(seen["items"].as_array().expect("items").len(), 1, "it sees only its own");
    for answer in [
        narrow.get(&format!("{path}/wide")).await,
        narrow.delete(&format!("{path}/wide")).await,
        narrow.put(&format!("{path}/wide"), world.rule("wide", json!({"tokens": ["deploy-a"]}))).await,
    ] {
        answer.refused(404, "not-found");
    }
    let explained = narrow.post(&format!("{path}/explain"), json!({"claims": world.claims(json!({}))})).await.expect(200).json;
    assert_eq!(explained["items"].as_array().expect("items").len(), 1);
    let long = world.claims(json!({"of": {"groups": vec![1; 201]}}));
    narrow.post(&format!("{path}/explain"), json!({"claims": long})).await.refused(422, "invalid-request");
    // An admin by a rule hands on no more than the rule gives.
    let job = world.job(json!({}));
    assert_eq!(job.get("/whoami").await.expect(200).json["role"], "admin");
    job.post("/teams/payments/keys", json!({"name": "k", "role": "admin", "tokens": ["deploy-b"]}))
        .await
        .refused(403, "forbidden");
    job.post("/teams/payments/keys", json!({"name": "k", "role": "ci", "tokens": ["deploy-b"]})).await.expect(201);
}
