//! `GET /tokens`.

use serde_json::json;

use crate::app::{Client, TestApp};

async fn names(client: &Client, query: &str) -> (Vec<String>, Option<String>) {
    let page = client.get(&format!("/tokens{query}")).await.expect(200).json;
    let items = page["items"].as_array().expect("items");
    let names = items.iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect();
    (names, page["next"].as_str().map(str::to_owned))
}

#[tokio::test]
async fn a_team_without_tokens_has_an_empty_page() {
    let app = TestApp::start().await;
    insta::assert_json_snapshot!(app.viewer.get("/tokens").await.expect(200).shown());
}

#[tokio::test]
async fn pages_follow_each_other_by_cursor_and_miss_nothing() {
    let app = TestApp::start().await;
    for name in ["e", "a", "d", "b", "c"] {
        app.register_with(name, json!({"chains": 1})).await.expect(201);
    }
    for limit in 1..=6 {
        let (mut seen, mut query) = (Vec::new(), format!("?limit={limit}"));
        for _ in 0..10 {
            let (page, next) = names(&app.ci, &query).await;
            assert!(page.len() <= limit);
            seen.extend(page);
            let Some(next) = next else { break };
            query = format!("?limit={limit}&after={next}");
        }
        assert_eq!(seen, ["a", "b", "c", "d", "e"], "limit {limit}");
    }
    assert_eq!(names(&app.ci, "?limit=200").await, (["a", "b", "c", "d", "e"].map(str::to_owned).to_vec(), None));
}

#[tokio::test]
async fn only_what_the_grant_covers_is_listed_and_globs_are_no_sql() {
    let app = TestApp::start().await;
    for name in ["a_b", "axb", "a.b", "a-b", "ab", "deploy-1", "deploy"] {
        app.register_with(name, json!({"chains": 1})).await.expect(201);
    }
    let table: [(&[&str], &[&str]); 6] = [
        (&["a_b"], &["a_b"]),
        (&["a*b"], &["a-b", "a.b", "a_b", "ab", "axb"]),
        (&["deploy*"], &["deploy", "deploy-1"]),
        (&["deploy-*"], &["deploy-1"]),
        (&["absent", "ab"], &["ab"]),
        (&["*_*"], &["a_b"]),
    ];
    for (number, (patterns, covered)) in table.iter().enumerate() {
        let client = app.team_key("payments", &format!("k{number}"), json!({"role": "viewer", "tokens": patterns})).await;
        let (mut listed, _) = names(&client, "").await;
        listed.sort();
        assert_eq!(listed, *covered, "{patterns:?}");
        for name in &listed {
            client.get(&format!("/tokens/{name}")).await.expect(200);
        }
    }
    for bad in ["%", "a%", "\\", "a b", "", "A", "ü", "a?", "[ab]"] {
        let body = json!({"name": "bad", "role": "viewer", "tokens": [bad]});
        app.admin.post("/teams/payments/keys", body).await.refused(422, "invalid-request");
    }
}

#[tokio::test]
async fn a_cursor_shows_nothing_beyond_the_grant() {
    let app = TestApp::start().await;
    for name in ["a", "b", "c"] {
        app.register_with(name, json!({"chains": 1})).await.expect(201);
    }
    let (_, cursor) = names(&app.admin, "?limit=1").await;
    let narrow = app.team_key("payments", "narrow", json!({"role": "ci", "tokens": ["c"]})).await;
    let query = format!("?limit=1&after={}", cursor.expect("there is more"));
    assert_eq!(names(&narrow, &query).await.0, ["c"]);
}

#[tokio::test]
async fn a_listed_token_is_the_one_that_is_read_and_holds_no_secret() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let listed = app.viewer.get("/tokens").await.expect(200);
    assert_eq!(listed.json["items"][0], app.viewer.get("/tokens/deploy").await.json);
    for secret in app.simulator.secrets() {
        assert!(!listed.text.contains(&secret));
    }
}
