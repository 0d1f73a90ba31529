//! `token-broker audit find`, as its own process.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::events;
use crate::app::TestApp;

struct Said {
    status: Option<i32>,
    out: String,
    err: String,
}

fn find(database: Option<&str>, arguments: &[&str], input: &[u8]) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_token-broker"))
        .args(["audit", "find"])
        .args(arguments)
        .env_clear()
        .envs(database.map(|url| ("DATABASE_URL", url)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // It may have given up already.
    drop(child.stdin.take().expect("it is piped").write_all(input));
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[tokio::test]
async fn the_operator_learns_who_was_handed_a_token_in_whichever_team() {
    let app = TestApp::start().await;
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    let orders = app.team_key("orders", "admin", json!({"role": "admin"})).await;
    app.register("deploy").await;
    let identity = app.simulator.add_user("of-orders", false);
    orders.post("/tokens", json!({"name": "ship", "identity_token": identity})).await.expect(201);
    let ours = app.ci.refresh("deploy", json!({})).await.expect(200);
    let theirs = orders.refresh("ship", json!({})).await.expect(200);
    let url = app.database.url();

    for (handed, team, token, actor, not) in
        [(&ours, "payments", "deploy", "key:payments/ci", "orders"), (&theirs, "orders", "ship", "key:orders/admin", "payments")]
    {
        let leaked = handed.access_token();
        let said = find(Some(url), &[], format!("  {leaked}\n").as_bytes());
        assert_eq!(said.status, Some(0), "{}", said.err);
        for word in [team, token, actor, "token.hand_out done", "api-key", handed.header("x-request-id"), "127.0.0.1"] {
            assert!(said.out.contains(word), "{word}: {}", said.out);
        }
        assert!(!said.out.contains(not) && !said.out.contains(leaked) && !said.err.contains(leaked), "{}", said.out);

        let lines = find(Some(url), &["--json"], leaked.as_bytes());
        let lines: Vec<Value> = lines.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let fingerprint = token_broker::crypto::fingerprint(leaked);
        let mut shown = events(&app.platform, &format!("&team={team}&fingerprint={fingerprint}")).await;
        shown.reverse();
        assert_eq!(lines, shown, "the same objects, the oldest first");
    }

    // The audit outlives token and team.
    orders.delete("/tokens/ship").await.expect(204);
    app.platform.delete("/teams/orders").await.expect(204);
    let said = find(Some(url), &[], theirs.access_token().as_bytes());
    assert!(said.status == Some(0) && said.out.contains("key:orders/admin"), "{}", said.out);
}

#[tokio::test]
async fn more_than_one_page_of_jobs_is_found() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let leaked = app.ci.refresh("deploy", json!({})).await.expect(200);
    let fingerprint = token_broker::crypto::fingerprint(leaked.access_token());
    app.database
        .run(&format!(
            "insert into audit_events (team_id, actor, recognised_by, action, outcome, fingerprint)
             select id, 'test ' || n || E'\\x1b[31m', '{{}}', 'test.event', 'done', '{fingerprint}'
             from teams, generate_series(1, 1200) n where name = 'payments'"
        ))
        .await;
    let said = find(Some(app.database.url()), &["--json"], leaked.access_token().as_bytes());
    let mut actors: Vec<&str> = said.out.lines().filter(|line| line.contains("test.event")).collect();
    assert_eq!(actors.len(), 1200);
    actors.dedup();
    assert_eq!(actors.len(), 1200);
    let said = find(Some(app.database.url()), &[], leaked.access_token().as_bytes());
    assert!(said.out.contains("test 1200[31m") && !said.out.contains('\x1b'), "nothing in it controls a terminal");
}

#[tokio::test]
async fn what_is_not_found_or_cannot_be_asked_is_one_sentence_and_exit_code_1() {
    let app = TestApp::start().await;
    let url = app.database.url();
    let stranger = "eyJhbGciOiJSUzI1NiJ9.bm9ib2R5cw.c2lnbmF0dXJl";
    for (database, input, sentence) in [
        (Some(url), stranger, token_broker::crypto::fingerprint(stranger)),
        (Some(url), "", "one access token".to_owned()),
        (Some(url), " \n", "one access token".to_owned()),
        (Some(url), "two tokens", "one access token".to_owned()),
        (None, stranger, "DATABASE_URL is not set".to_owned()),
        (Some("postgres://nobody@127.0.0.1:1/none"), stranger, "DATABASE_URL".to_owned()),
        (Some("no url"), stranger, "DATABASE_URL is not the URL".to_owned()),
    ] {
        for arguments in [&[][..], &["--json"]] {
            let said = find(database, arguments, input.as_bytes());
            assert_eq!((said.status, said.out.as_str()), (Some(1), ""), "{}", said.err);
            assert!(said.err.starts_with("token-broker: ") && said.err.contains(&sentence), "{sentence}: {}", said.err);
            assert!(said.err.lines().count() == 1 && !said.err.contains(stranger), "{}", said.err);
        }
    }
    assert_eq!(find(Some(url), &[], &[0xff, 0xfe]).status, Some(1));
    assert_eq!(find(Some(url), &[], &vec![b'x'; 70_000]).status, Some(1));
}
