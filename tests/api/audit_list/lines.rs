//! The audit as JSON Lines.

use reqwest::Method;
use serde_json::{Value, json};

use super::events;
use crate::app::{Answer, Client, TestApp};

async fn lines(client: &Client, path: &str) -> Answer {
    Answer::of(client.request(Method::GET, path).header("accept", "application/x-ndjson")).await.expect(200)
}

fn parsed(answer: &Answer) -> Vec<Value> {
    assert!(answer.text.is_empty() || answer.text.ends_with('\n'), "the last line ends too");
    answer.text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

/// Where the `Link` header leads.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link");
    let (path, rest) = link.strip_prefix('<')?.split_once('>')?;
    assert_eq!(rest, "; rel=\"next\"", "{link}");
    Some(path.to_owned())
}

#[tokio::test]
async fn an_export_goes_page_by_page_through_the_link_header_and_keeps_its_filters() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    for _ in 0..9 {
        app.ci.refresh("deploy", json!({})).await.expect(200);
    }
    for query in ["", "&action=token.hand_out&token=deploy&actor=key%3Apayments%2Fci", "&team=payments&from=2020-01-01T00:00:00Z"]
    {
        let all = events(&app.admin, query).await;
        let (mut seen, mut pages, mut path) = (Vec::new(), 0, format!("/audit?limit=2{query}"));
        loop {
            let page = lines(&app.admin, &path).await;
            assert_eq!((page.header("content-type"), page.header("cache-control")), ("application/x-ndjson", "no-store"));
            seen.extend(parsed(&page));
            pages += 1;
            let Some(following) = next(&page) else { break };
            path = following;
        }
        assert!(pages > 4, "{query}: {pages} pages");
        assert_eq!(seen, all, "{query}: the same objects");
    }
    let whole = lines(&app.admin, "/audit?limit=200").await;
    assert_eq!((next(&whole), parsed(&whole)), (None, events(&app.admin, "").await));
}

#[tokio::test]
async fn an_export_of_nothing_is_empty_and_a_refused_one_a_problem() {
    let app = TestApp::start().await;
    let nothing = lines(&app.admin, "/audit?token=absent").await;
    assert_eq!((nothing.text.as_str(), next(&nothing)), ("", None));
    let asked = |client: &Client, path| client.request(Method::GET, path).header("accept", "application/x-ndjson");
    Answer::of(asked(&app.admin, "/audit?limit=0")).await.refused(422, "invalid-request");
    Answer::of(asked(&app.ci, "/audit")).await.refused(403, "forbidden");
    Answer::of(asked(&app.ci.nobody(), "/audit")).await.refused(401, "unauthenticated");
    let page = app.admin.get("/audit?limit=1").await.expect(200);
    assert_eq!((page.header("content-type"), page.header("link")), ("application/json", ""), "JSON has its next inside");
}
