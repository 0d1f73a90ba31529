//! How much may be asked, and that nobody is locked out by others' guessing.

use std::{num::NonZeroU32, time::Instant};

use reqwest::{Method, header::HeaderValue};
use serde_json::json;
use token_broker::{api::Rates, identity::IssuerSettings};

use crate::{
    app::{Answer, Client, TestApp, issuer::Issuer},
    identities::World,
};

async fn limited(per_credential: u32, per_address: u32, failures: u32) -> TestApp {
    let some = |rate| NonZeroU32::new(rate).expect("it is not zero");
    let rates = Rates { per_credential: some(per_credential), per_address: some(per_address), failures: some(failures) };
    TestApp::start_changed(move |settings| settings.rates = rates).await
}

#[tokio::test]
async fn a_credential_that_asks_too_much_is_told_when_to_ask_again_and_others_are_not() {
    let app = limited(10, 10_000, 10_000).await;
    for _ in 0..10 {
        app.ci.get("/whoami").await.expect(200);
    }
    let refused = app.ci.get("/whoami").await.refused(429, "rate-limited");
    assert!((1..=6).contains(&refused.retry_after()), "{}", refused.retry_after());
    app.ci.refresh("deploy", json!({})).await.refused(429, "rate-limited");
    app.viewer.get("/whoami").await.expect(200);
}

#[tokio::test]
async fn ever_new_jwts_of_one_identity_are_counted_together_and_with_its_sessions() {
    let issuer = Issuer::start().await;
    let trusted: IssuerSettings = format!("github={}", issuer.url()).parse().expect("an issuer");
    let app = TestApp::start_changed(move |settings| {
        settings.identities.issuers = vec![trusted.clone()];
        settings.rates = Rates { per_credential: NonZeroU32::new(10).expect("ten"), ..Rates::default() };
    })
    .await;
    let world = World { app, issuer };
    world.write(world.rule("main", json!({}))).await.expect(201);
    let session = world.job(json!({})).post("/sessions", json!({})).await.expect(201);
    let session = world.app.platform.with_key(session.json["session"].as_str().expect("a session").to_owned());
    for run in 0..9 {
        world.job(json!({"run_id": run.to_string()})).get("/whoami").await.expect(200);
    }
    world.job(json!({"run_id": "another"})).get("/whoami").await.refused(429, "rate-limited");
    session.get("/whoami").await.refused(429, "rate-limited");
    let other = world.job(json!({"sub": "repo:acme/web:environment:production"}));
    other.get("/whoami").await.expect(200);
}

#[tokio::test]
async fn a_subject_of_one_issuer_takes_nothing_from_that_of_another() {
    let (issuer, other) = (Issuer::start().await, Issuer::start().await);
    let trusted: Vec<IssuerSettings> = [&issuer, &other].map(|one| one.url().parse().expect("an issuer")).to_vec();
    let app = TestApp::start_changed(move |settings| {
        settings.identities.issuers.clone_from(&trusted);
        settings.rates = Rates { per_credential: NonZeroU32::new(10).expect("ten"), ..Rates::default() };
    })
    .await;
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    for (team, of) in [("payments", &issuer), ("orders", &other)] {
        let rule = json!({"name": "jobs", "issuer": of.url(), "claims": {"sub": "job:1"}, "role": "ci"});
        app.platform.post(&format!("/teams/{team}/trust-rules"), rule).await.expect(201);
    }
    let [ours, theirs] = [&issuer, &other].map(|one| app.ci.with_key(one.sign(&one.claims())));
    for _ in 0..10 {
        theirs.get("/whoami").await.expect(200);
    }
    theirs.get("/whoami").await.refused(429, "rate-limited");
    ours.get("/whoami").await.expect(200);
    let session = ours.post("/sessions", json!({})).await.expect(201);
    ours.with_key(session.json["session"].as_str().expect("a session").to_owned()).get("/whoami").await.expect(200);
}

/// From this address, by a proxy that is ours.
async fn from(client: &Client, address: &[u8]) -> Answer {
    from_at(client, "/whoami", address).await
}

/// The same at this path.
async fn from_at(client: &Client, path: &str, address: &[u8]) -> Answer {
    let address = HeaderValue::from_bytes(address).expect("a header");
    Answer::of(client.request(Method::GET, path).header("x-forwarded-for", address)).await
}

async fn behind_a_proxy(failures: u32) -> TestApp {
    TestApp::start_changed(move |settings| {
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
        settings.rates = Rates { failures: NonZeroU32::new(failures).expect("some"), ..Rates::default() };
    })
    .await
}

#[tokio::test]
async fn guesses_at_one_key_from_many_addresses_are_counted_together_and_its_owner_is_let_in() {
    let app = behind_a_proxy(5).await;
    let wrong = app.ci.with_key(crate::authentication::with_another_secret(app.ci.key()));
    for host in 0..5 {
        from(&wrong, format!("203.0.113.{host}").as_bytes()).await.refused(401, "unauthenticated");
    }
    from(&wrong, b"203.0.113.99").await.refused(429, "rate-limited");
    from(&app.ci, b"203.0.113.99").await.expect(200);
    // Another key's guesses are its own, from an address that has not guessed yet.
    let other = app.ci.with_key(crate::authentication::with_another_secret(app.viewer.key()));
    from(&other, b"203.0.113.100").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn who_guesses_behind_a_proxy_does_not_hide_its_address_by_what_it_writes_before_it() {
    let app = behind_a_proxy(6).await;
    let nobody = app.ci.with_key("no.such.token".to_owned());
    for n in 0..6 {
        let written = [&b"10.9.8.7, "[..], b"\xff, ", b"\"\", "][n % 3];
        from(&nobody, &[written, b"203.0.113.7"].concat()).await.refused(401, "unauthenticated");
    }
    from(&nobody, b"203.0.113.7").await.refused(429, "rate-limited");
    from(&nobody, b"\xff, 203.0.113.7").await.refused(429, "rate-limited");
    from(&nobody, b"203.0.113.8").await.refused(401, "unauthenticated");
    let elsewhere = "select count(*) from audit_events where outcome = 'refused' and address not like '203.0.113.%'";
    assert_eq!(app.database.count(elsewhere).await, 0);
}

#[tokio::test]
async fn an_address_that_asks_too_much_is_refused_before_anything_is_looked_at_but_health_is_answered() {
    let app = limited(10_000, 30, 10_000).await;
    let mut refused = 0;
    for _ in 0..40 {
        refused += usize::from(app.ci.nobody().get("/openapi.json").await.status == 429);
    }
    assert!(refused >= 10, "{refused}");
    app.ci.get("/whoami").await.refused(429, "rate-limited");
    app.ci.nobody().get("/health/live").await.expect(200);
    app.ci.nobody().get("/health/ready").await.expect(200);
}

#[tokio::test]
async fn who_guesses_is_slowed_down_and_the_rightful_owner_is_let_in_all_the_while() {
    let app = limited(10_000, 10_000, 20).await;
    let good = app.ci.key();
    let wrong = app.ci.with_key(crate::authentication::with_another_secret(good));
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(wrong.get("/whoami").await.status);
        app.ci.get("/whoami").await.expect(200);
    }
    assert_eq!(statuses[..20], [401; 20]);
    assert_eq!(statuses[20..], [429; 10]);
    assert!(wrong.get("/whoami").await.refused(429, "rate-limited").retry_after() >= 1);
    app.admin.get("/whoami").await.expect(200);
}

#[tokio::test]
async fn a_flood_of_strangers_does_not_fill_the_audit() {
    let app = TestApp::start().await;
    let nobody = app.ci.with_key("no.such.token".to_owned());
    let begun = Instant::now();
    for _ in 0..200 {
        nobody.get("/whoami").await.refused(401, "unauthenticated");
    }
    let rows = app.database.count("select count(*) from audit_events where outcome = 'refused'").await;
    // One a second more.
    let most = 61 + i64::try_from(begun.elapsed().as_secs()).expect("few");
    assert!((1..=most).contains(&rows), "{rows}");
}

/// A broker behind our own proxy, with its limits as they are, that trusts one issuer.
async fn world_behind_a_proxy() -> World {
    let issuer = Issuer::start().await;
    let trusted: IssuerSettings = format!("github={}", issuer.url()).parse().expect("an issuer");
    let app = TestApp::start_changed(move |settings| {
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
        settings.identities.issuers = vec![trusted.clone()];
        settings.rates = Rates::default();
    })
    .await;
    let world = World { app, issuer };
    world.write(world.rule("main", json!({}))).await.expect(201);
    world
}

/// Of these requests, how many the audit of team `payments` explains by what its rule asks for.
async fn explained(world: &World, request_ids: &[String]) -> i64 {
    let rows = format!(
        "select count(distinct a.request_id) from audit_events a join teams t on t.id = a.team_id
         where t.name = 'payments' and a.outcome = 'refused' and a.actor like 'github:%' and a.reason like '%rule main: claim ref%'
         and a.request_id in ('{}')",
        request_ids.join("', '")
    );
    world.app.database.count(&rows).await
}

#[tokio::test]
async fn each_refused_job_of_many_behind_one_address_leads_to_its_row_while_strangers_flood() {
    let world = world_behind_a_proxy().await;
    let stranger = world.app.ci.with_key("no.such.token".to_owned());
    let mut request_ids = Vec::new();
    for n in 0..70 {
        for host in 1..=10 {
            from(&stranger, format!("203.0.113.{host}").as_bytes()).await.refused(401, "unauthenticated");
        }
        let job = world.job(json!({"ref": "refs/heads/feature", "run_id": n.to_string()}));
        let refused = from_at(&job, "/whoami?team=payments", b"203.0.113.1").await.refused(401, "unauthenticated");
        request_ids.push(refused.header("x-request-id").to_owned());
    }
    assert_eq!(explained(&world, &request_ids).await, 70);
}

#[tokio::test]
async fn a_job_behind_an_address_that_guessed_too_often_is_told_to_wait_and_still_has_its_row() {
    let world = world_behind_a_proxy().await;
    let stranger = world.app.ci.with_key("no.such.token".to_owned());
    let mut answer = from(&stranger, b"203.0.113.1").await;
    while answer.status == 401 {
        answer = from(&stranger, b"203.0.113.1").await;
    }
    answer.refused(429, "rate-limited");
    let job = world.job(json!({"ref": "refs/heads/feature"}));
    let mut answer = from_at(&job, "/whoami?team=payments", b"203.0.113.1").await;
    // A slow machine may have room again.
    while answer.status == 401 {
        answer = from_at(&job, "/whoami?team=payments", b"203.0.113.1").await;
    }
    let refused = answer.refused(429, "rate-limited");
    assert_eq!(explained(&world, &[refused.header("x-request-id").to_owned()]).await, 1);
    from(&world.job(json!({})), b"203.0.113.1").await.expect(200);
}

#[tokio::test]
async fn a_flood_of_one_refused_identity_does_not_fill_the_audit() {
    let world = World::start().await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    let job = world.job(json!({"ref": "refs/heads/feature"}));
    let begun = Instant::now();
    for _ in 0..400 {
        job.get("/whoami?team=payments").await.refused(401, "unauthenticated");
    }
    let rows = world.app.database.count("select count(*) from audit_events where outcome = 'refused'").await;
    // Five a second more.
    let most = 300 + 5 * (1 + i64::try_from(begun.elapsed().as_secs()).expect("few"));
    assert!((300..=most).contains(&rows), "{rows} of 400, at most {most}");
}

#[tokio::test]
async fn a_key_that_asks_too_much_is_named_in_the_audit() {
    let app = limited(10, 10_000, 10_000).await;
    let mut answer = app.ci.get("/whoami").await;
    while answer.status == 200 {
        answer = app.ci.get("/whoami").await;
    }
    let refused = answer.refused(429, "rate-limited");
    let actor = format!("select actor from audit_events where request_id = '{}'", refused.header("x-request-id"));
    assert_eq!(app.database.text(&actor).await, "key:payments/ci");
}
