//! What an attacker tried, and got nothing by.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use token_broker::identity::{IssuerKind, IssuerSettings};

use super::World;
use crate::app::{Client, TestApp, issuer::Issuer};

/// The admin of another team, who writes rules that fit the jobs of `acme/web`.
async fn eve(world: &World) -> Client {
    world.app.platform.post("/teams", json!({"name": "eve"})).await.expect(201);
    world.app.team_key("eve", "admin", json!({"role": "admin"})).await
}

#[tokio::test]
async fn a_jwt_that_ended_is_not_kept_alive_by_who_waits_with_it() {
    let world = World::start().await;
    world.app.register("deploy").await;
    world.write(world.rule("main", json!({"role": "admin"}))).await.expect(201);
    world.job(json!({})).get("/whoami").await.expect(200);
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    // Taken for three more seconds.
    let job = world.job(json!({"iat": now - 300, "nbf": now - 300, "exp": now - 57}));
    job.get("/whoami").await.expect(200);
    // Nothing lives that long: it waits until its time is up, and the JWT's, while the token is somebody else's.
    world
        .app
        .database
        .run(
            "insert into attempts (token_id, id, team_id, kind, spent_generation, lease_until, replica, actor)
             select id, gen_random_uuid(), team_id, 'recreate', generation, now() + interval '1 hour', gen_random_uuid(), 'x' from tokens",
        )
        .await;
    let waited = job.refresh("deploy", json!({"max_age": 0, "wait": 5})).await;
    let after = job.get("/whoami").await;
    assert_eq!((waited.status, after.status), (401, 401), "{} {}", waited.text, after.text);
}

#[tokio::test]
async fn a_deleted_rule_lets_nobody_in_after_a_second_whatever_was_read_when() {
    let world = World::start().await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    // Pinned; then the rules are read anew by the next job.
    world.job(json!({})).get("/whoami").await.expect(200);
    world.felt().await;
    world.job(json!({})).get("/whoami").await.expect(200);
    world.app.admin.delete("/teams/payments/trust-rules/main").await.expect(204);
    let deleted = tokio::time::Instant::now();
    let mut jobs = Vec::new();
    while deleted.elapsed() < Duration::from_millis(1000) {
        let job = world.job(json!({}));
        job.get("/whoami").await;
        jobs.push(job);
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    for job in jobs {
        job.get("/whoami").await.refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn another_teams_rule_learns_nothing_of_a_job_that_names_its_own_team() {
    let world = World::start().await;
    let eve = eve(&world).await;
    let spy = world.rule("spy", json!({"single_use": true}));
    eve.post("/teams/eve/trust-rules", spy).await.expect(201);
    world.write(world.rule("ours", json!({}))).await.expect(201);
    let job = world.job(json!({}));
    job.get("/whoami?team=payments").await.expect(200);
    // Not said which: nothing can be done, so nothing is used up or learnt either.
    job.get("/whoami").await.refused(400, "team-required");
    let seen = eve.get("/teams/eve/trust-rules/spy").await.expect(200).json;
    assert_eq!((&seen["pins"], &seen["last_used_at"]), (&json!({}), &json!(null)));
    let theirs = "select count(*) from audit_events a join teams t on t.id = a.team_id
                  where t.name = 'eve' and a.recognised_by::text like '%acme/web%'";
    assert_eq!(world.app.database.count(theirs).await, 0);
    assert_eq!(world.app.database.count("select count(*) from used_jtis").await, 0);
}

#[tokio::test]
async fn another_teams_rule_that_fits_a_job_learns_nothing_when_the_job_names_the_team_that_refuses_it() {
    let world = World::start().await;
    let eve = eve(&world).await;
    let spy = world.rule("spy", json!({"claims": {"repository": "acme/web"}, "single_use": true}));
    eve.post("/teams/eve/trust-rules", spy).await.expect(201);
    world.write(world.rule("main", json!({}))).await.expect(201);
    let job = world.job(json!({"ref": "refs/heads/feature"}));
    let refused = job.post("/tokens/deploy/refresh?team=payments", json!({})).await.refused(404, "not-found");
    let absent = job.post("/tokens/deploy/refresh?team=absent", json!({})).await.refused(404, "not-found");
    assert_eq!(refused.but_for_the_request_id(), absent.but_for_the_request_id());
    let seen = eve.get("/teams/eve/trust-rules/spy").await.expect(200).json;
    assert_eq!((&seen["pins"], &seen["last_used_at"]), (&json!({}), &json!(null)));
    let theirs = "select count(*) from audit_events a join teams t on t.id = a.team_id
                  where t.name = 'eve' and a.recognised_by::text like '%acme/web%'";
    assert_eq!(world.app.database.count(theirs).await, 0);
    assert_eq!(world.app.database.count("select count(*) from used_jtis").await, 0);
    // The team that was meant is told why.
    let told = format!(
        "select coalesce(max(reason), '') from audit_events a join teams t on t.id = a.team_id
         where t.name = 'payments' and request_id = '{}'",
        refused.header("x-request-id")
    );
    let why = world.app.database.text(&told).await;
    assert!(why.contains("rule main") && why.contains("refs/heads/feature") && !why.contains("spy"), "{why}");
}

#[tokio::test]
async fn another_teams_rule_does_not_hear_of_refused_jobs_that_are_not_its_own() {
    let world = World::start().await;
    let eve = eve(&world).await;
    // Fits every repository, as far as it goes; and one that fits theirs, and further than their own.
    for (name, claims) in [
        ("all", json!({"repository": "*/*", "repository_id": "5"})),
        ("web", json!({"repository": "acme/web", "actor": "someone", "event_name": "push", "ref": "refs/heads/nothing"})),
    ] {
        eve.post("/teams/eve/trust-rules", world.rule(name, json!({"claims": claims}))).await.expect(201);
    }
    world.write(world.rule("main", json!({}))).await.expect(201);
    for job in [
        world.job(json!({"ref": "refs/heads/feature"})),
        world.job(json!({"repository": "acme/api", "sub": "repo:acme/api:ref:refs/heads/main", "repository_id": "7"})),
    ] {
        job.get("/whoami").await.refused(401, "unauthenticated");
        job.get("/whoami?team=payments").await.refused(401, "unauthenticated");
    }
    let heard = |team: &str| {
        format!(
            "select count(*) from audit_events a join teams t on t.id = a.team_id where t.name = '{team}' and a.outcome = 'refused'"
        )
    };
    assert_eq!(world.app.database.count(&heard("eve")).await, 0);
    assert_eq!(world.app.database.count(&heard("payments")).await, 2, "what named it");
}

#[tokio::test]
async fn only_who_taught_a_rule_its_ids_stands_in_the_audit_for_it_and_once() {
    let world = World::start().await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    let jobs: Vec<Client> = (0..20).map(|n| world.job(json!({"repository_id": format!("{}", 1 + n % 2)}))).collect();
    let answers = futures_util::future::join_all(jobs.iter().map(|job| job.get("/whoami"))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 10);
    assert_eq!(world.app.database.count("select count(*) from audit_events where action = 'rule.pin'").await, 1);
}

#[tokio::test]
async fn a_team_has_so_many_rules_and_no_more() {
    let world = World::start().await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    world
        .app
        .database
        .run(
            "insert into trust_rules (id, team_id, name, issuer, claims, whole_organisation, role, token_patterns, session_max,
                                      single_use, created_by)
             select gen_random_uuid(), team_id, 'more-' || n, issuer, claims, whole_organisation, role, token_patterns, session_max,
                    single_use, created_by
             from trust_rules, generate_series(1, 999) n",
        )
        .await;
    let refused = world.write(world.rule("one-too-many", json!({}))).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert_eq!(refused.json["errors"][0]["field"], "name");
    let path = "/teams/payments/trust-rules/main";
    world.app.admin.put(path, world.rule("main", json!({"role": "viewer"}))).await.expect(200);
    world.app.admin.delete("/teams/payments/trust-rules/more-1").await.expect(204);
    world.write(world.rule("fits", json!({}))).await.expect(201);
}

#[tokio::test]
async fn a_credential_given_as_a_team_is_not_written_down() {
    let world = World::start().await;
    let secret = world.app.ci.key();
    world.write(world.rule("main", json!({}))).await.expect(201);
    let eve = eve(&world).await;
    eve.post("/teams/eve/trust-rules", world.rule("theirs", json!({}))).await.expect(201);
    world.job(json!({})).get(&format!("/tokens?team={secret}")).await.refused(404, "not-found");
    assert!(!world.app.database.dump().await.contains(&secret[..50]), "a part of the secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_look_at_a_rejected_token_is_let_in_anew_too() {
    let world = World::start().await;
    let app = &world.app;
    app.register("deploy").await;
    let gone = app.team_key("payments", "gone", json!({"role": "ci"})).await;
    let rejected = gone.refresh("deploy", json!({})).await.expect(200).json["token_id"].clone();
    app.simulator.knobs(|knobs| knobs.latency_ms = 3_000);
    let waiting = tokio::spawn(async move { gone.refresh("deploy", json!({"rejected_token_id": rejected})).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    app.admin.delete("/teams/payments/keys/gone").await.expect(204);
    let answer = waiting.await.expect("an answer");
    assert_eq!(answer.status, 401, "{}", answer.text);
}

#[tokio::test]
async fn a_session_ends_with_the_trust_in_its_issuer_and_with_what_its_claims_mean() {
    let issuer = Issuer::start().await;
    let trusted: IssuerSettings = format!("github={}", issuer.url()).parse().expect("an issuer");
    let trusts: Arc<Mutex<Vec<IssuerSettings>>> = Arc::new(Mutex::new(vec![trusted.clone()]));
    let now_trusts = Arc::clone(&trusts);
    let app = TestApp::start_changed(move |settings| {
        settings.identities.issuers.clone_from(&now_trusts.lock().expect("nobody panicked"));
    })
    .await;
    let mut world = World { app, issuer };
    world.write(world.rule("main", json!({}))).await.expect(201);
    let begun = world.job(json!({})).post("/sessions", json!({})).await.expect(201).json;
    let session = begun["session"].as_str().expect("a session").to_owned();
    let of_another_kind = IssuerSettings { kind: IssuerKind::Plain, ..trusted.clone() };
    for (trusting, status) in [(vec![trusted.clone()], 200), (vec![of_another_kind], 401), (vec![], 401), (vec![trusted], 200)] {
        *trusts.lock().expect("nobody panicked") = trusting;
        world.app.stop().await;
        world.app.start_again().await;
        world.app.platform.with_key(session.clone()).get("/whoami").await.expect(status);
    }
}
