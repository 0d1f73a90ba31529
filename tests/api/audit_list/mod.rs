//! `GET /audit`: what is found, in which order, and what is refused. Who sees what is in `visible`, the command in `find`.

mod find;
mod leads;
mod lines;
mod visible;

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{Answer, Client, TestApp};

/// The events that the client is shown.
async fn events(client: &Client, query: &str) -> Vec<Value> {
    items(&client.get(&format!("/audit?limit=200{query}")).await.expect(200))
}

fn items(answer: &Answer) -> Vec<Value> {
    answer.json["items"].as_array().expect("items").clone()
}

fn ids(events: &[Value]) -> Vec<i64> {
    events.iter().map(|event| event["id"].as_i64().expect("an id")).collect()
}

#[tokio::test]
async fn each_filter_finds_what_fits_and_nothing_else() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    app.register("other").await;
    let request = app.ci.request(Method::POST, "/tokens/deploy/refresh").header("x-request-id", "job-42");
    let handed = Answer::of(request).await.expect(200);
    app.ci.refresh("other", json!({})).await.expect(200);
    app.viewer.refresh("deploy", json!({})).await.refused(403, "forbidden");
    app.ci.get("/tokens/absent").await.refused(404, "not-found");
    app.register_with("bad", json!({"scope": "applied-permissions/admin"})).await.refused(422, "scope-refused");
    let all = events(&app.admin, "").await;
    let fingerprint = token_broker::crypto::fingerprint(handed.access_token());
    let at = all[all.len() / 2]["at"].as_str().expect("a time").to_owned();
    let is = |field: &'static str, value: &str| (field, value.to_owned());
    for (query, wanted) in [
        ("token=deploy".to_owned(), vec![is("token", "deploy")]),
        ("token=absent".to_owned(), vec![is("token", "absent")]),
        ("actor=key:payments/ci".to_owned(), vec![is("actor", "key:payments/ci")]),
        ("actor=key%3Apayments%2Fviewer".to_owned(), vec![is("actor", "key:payments/viewer")]),
        ("action=token.hand_out".to_owned(), vec![is("action", "token.hand_out")]),
        ("action=POST%20/tokens/{name}/refresh".to_owned(), vec![is("action", "POST /tokens/{name}/refresh")]),
        ("outcome=refused".to_owned(), vec![is("outcome", "refused")]),
        ("outcome=failed".to_owned(), vec![is("outcome", "failed")]),
        ("request_id=job-42".to_owned(), vec![is("request_id", "job-42")]),
        (format!("fingerprint={fingerprint}"), vec![is("fingerprint", &fingerprint)]),
        (
            "token=deploy&action=token.hand_out&outcome=done".to_owned(),
            vec![is("token", "deploy"), is("action", "token.hand_out"), is("outcome", "done")],
        ),
    ] {
        let fits = |event: &&Value| wanted.iter().all(|(field, value)| event[field] == json!(value));
        let expected: Vec<Value> = all.iter().filter(fits).cloned().collect();
        assert!((1..all.len()).contains(&expected.len()), "{query} says something");
        assert_eq!(events(&app.admin, &format!("&{query}")).await, expected, "{query}");
    }
    // Postgres and Rust write a time alike, so that times compare as texts.
    let (early, late): (Vec<Value>, Vec<Value>) = all.iter().cloned().partition(|event| event["at"].as_str() < Some(&at));
    assert!(!early.is_empty() && !late.is_empty());
    assert_eq!(events(&app.admin, &format!("&from={at}")).await, late, "the time itself counts");
    assert_eq!(events(&app.admin, &format!("&to={at}")).await, early, "and the end does not");
    assert!(events(&app.admin, &format!("&from={at}&to={at}")).await.is_empty());
    assert!(events(&app.admin, "&token=no-such-token").await.is_empty());
    assert!(events(&app.admin, "&from=0000-01-01T00:00:00Z&to=0001-01-01T00:00:00Z").await.is_empty());
    let shifted = events(&app.admin, "&from=2020-01-01T00:00:00%2B02:00").await;
    assert_eq!(shifted, all);
}

#[tokio::test]
async fn a_walk_neither_repeats_nor_misses_an_event_while_new_ones_come_in() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    // Of one statement: all at the same time.
    app.database
        .run(
            "insert into audit_events (team_id, actor, recognised_by, action, outcome)
             select id, 'test ' || n, '{}', 'test.event', 'done' from teams, generate_series(1, 60) n where name = 'payments'",
        )
        .await;
    let before = events(&app.admin, "").await;
    assert!(before.len() > 60);
    let mut times: Vec<(&str, i64)> =
        before.iter().map(|event| (event["at"].as_str().expect("a time"), event["id"].as_i64().expect("an id"))).collect();
    let newest_first = times.clone();
    times.sort_unstable_by(|one, other| other.cmp(one));
    assert_eq!(newest_first, times, "the newest first");

    let (mut seen, mut pages, mut path) = (Vec::new(), 0, "/audit?limit=7".to_owned());
    loop {
        let page = app.admin.get(&path).await.expect(200);
        seen.extend(items(&page));
        pages += 1;
        app.ci.get("/tokens/absent").await.refused(404, "not-found");
        match page.json["next"].as_str() {
            Some(next) => path = format!("/audit?limit=7&after={next}"),
            None => break,
        }
    }
    assert!(pages > 9, "{pages} pages");
    assert_eq!(ids(&seen), ids(&before));
    assert_eq!(seen, before);
    assert_eq!(events(&app.admin, "&token=absent").await.len(), pages, "they did come in");
}

#[tokio::test]
async fn searches_that_take_long_hold_up_nobody_else() {
    let app = TestApp::start().await;
    app.database.until_closing_had_its_turn().await;
    let mut elsewhere = app.database.connect().await;
    sqlx::raw_sql("begin; lock table audit_events in access exclusive mode").execute(&mut elsewhere).await.expect("locks");
    // More than there are connections.
    let searches: Vec<_> = (0..30)
        .map(|_| {
            let admin = app.admin.clone();
            tokio::spawn(async move { admin.get("/audit?actor=nobody").await })
        })
        .collect();
    let waiting = "select count(*) from pg_locks where not granted and relation = 'audit_events'::regclass";
    while app.database.count(waiting).await < 2 {
        tokio::task::yield_now().await;
    }
    let all = futures_util::future::join_all((0..10).map(|_| app.viewer.get("/tokens"))).await;
    assert_eq!(app.database.count(waiting).await, 2, "two read, the others wait for them");
    sqlx::raw_sql("rollback").execute(&mut elsewhere).await.expect("unlocks");
    for answer in all {
        answer.expect(200);
    }
    for search in searches {
        search.await.expect("no panic").expect(200);
    }
}

#[tokio::test]
async fn a_page_has_fifty_events_unless_asked_otherwise() {
    let app = TestApp::start().await;
    app.database
        .run(
            "insert into audit_events (team_id, actor, recognised_by, action, outcome)
             select id, 'test', '{}', 'test.event', 'done' from teams, generate_series(1, 300) where name = 'payments'",
        )
        .await;
    for (query, count) in [("", 50), ("?limit=1", 1), ("?limit=200", 200), ("?action=test.event", 50)] {
        let page = app.admin.get(&format!("/audit{query}")).await.expect(200);
        assert_eq!((items(&page).len(), page.json["next"].is_string()), (count, true), "{query}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_named() {
    let app = TestApp::start().await;
    let cursor = |text: &str| {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        format!("after={}", URL_SAFE_NO_PAD.encode(text))
    };
    for (query, field) in [
        ("from=yesterday".to_owned(), "from"),
        ("from=".to_owned(), "from"),
        ("from=2026-11-24".to_owned(), "from"),
        ("to=2026-13-01T00:00:00Z".to_owned(), "to"),
        ("to=2026-11-24T03:00:00".to_owned(), "to"),
        ("from=2026-11-24T03:00:00+01:00".to_owned(), "from"),
        ("from=9999-12-31T23:59:59-23:59".to_owned(), "from"),
        ("from=2026-11-24T03:00:01Z&to=2026-11-24T03:00:00Z".to_owned(), "from"),
        ("from=2026-11-24T03:00:00Z&to=2026-11-24T03:00:00%2B01:00".to_owned(), "from"),
        ("after=!".to_owned(), "after"),
        (cursor("deploy"), "after"),
        (cursor("1"), "after"),
        (cursor("1.2.3"), "after"),
        (cursor("-1.2"), "after"),
        (cursor("1.x"), "after"),
        (cursor("18446744073709551615.1"), "after"),
        (cursor("1.18446744073709551615"), "after"),
        ("limit=0".to_owned(), "limit"),
        ("limit=201".to_owned(), "limit"),
        ("limit=-1".to_owned(), "limit"),
        ("outcome=maybe".to_owned(), "outcome"),
        ("fingerprint=9F86D081884C7D65".to_owned(), "fingerprint"),
        ("fingerprint=9f86d081884c7d6".to_owned(), "fingerprint"),
        ("fingerprint=".to_owned(), "fingerprint"),
        ("actor=a%00b".to_owned(), "actor"),
        ("until=2026-11-24T00:00:00Z".to_owned(), "until"),
        ("token_name=deploy".to_owned(), "token_name"),
        ("Actor=x".to_owned(), "Actor"),
        ("action=a%0Ab".to_owned(), "action"),
        (format!("request_id={}", "x".repeat(129)), "request_id"),
    ] {
        let answer = app.admin.get(&format!("/audit?{query}")).await.refused(422, "invalid-request");
        assert_eq!(answer.fields(), [field], "{query}");
    }
    for (query, named) in [
        ("limit=7&limit=8", "`limit`"),
        ("limit=many", "digit"),
        ("token=eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "query string"),
        ("token=Deploy", "query string"),
        ("token=deploy&access_token=x", "query string"),
        ("key=x", "query string"),
    ] {
        let answer = app.admin.get(&format!("/audit?{query}")).await.refused(400, "invalid-request");
        assert!(answer.detail().contains(named), "{query}: {}", answer.detail());
    }
    app.admin.get("/tokens?token=deploy").await.refused(400, "invalid-request");
    app.admin.post("/audit", json!({})).await.refused(405, "method-not-allowed");
    app.admin.delete("/audit").await.refused(405, "method-not-allowed");
}
