//! `token-broker keys`, as its own process, beside a service that runs.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::app::{TestApp, some_master_key};

struct Said {
    success: bool,
    out: String,
    err: String,
}

async fn keys(app: &TestApp, master_keys: &str, arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_token-broker"));
    command
        .arg("keys")
        .args(arguments)
        .env_clear()
        .env("DATABASE_URL", app.database.url())
        .env("TOKEN_BROKER_MASTER_KEYS", master_keys)
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("a task").expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said { success: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_rotates_re_wraps_and_is_told_what_a_retirement_waits_for() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let old = app.master_keys.clone();
    let said = keys(&app, &old, &["status"]).await;
    // One key, or two: the audit's chain has one of its own once its first batch is closed.
    let wraps = ["1 keys, 1 journals", "2 keys, 1 journals"].map(|keys| format!("master key k1  (wraps): {keys}"));
    assert!(wraps.iter().any(|wraps| said.out.contains(wraps)) && said.out.contains(&app.journal_id()), "{}", said.out);

    let said = keys(&app, &old, &["rotate", "--team", "payments"]).await;
    assert!(said.success && said.out.contains("every row is sealed with its team's new data key"), "{}{}", said.out, said.err);
    assert!(said.out.contains("1 old data keys are no longer used"), "{}", said.out);
    let by_old = "select count(*) from chains c join data_keys d on d.id = sealed_by(c.access_token) where not d.current";
    assert_eq!(app.database.count(by_old).await, 0);
    assert!(!keys(&app, &old, &["rotate", "--team", "nobody"]).await.success);

    let both = format!("{},{old}", some_master_key("k2"));
    // The service that runs has not got the new key yet.
    let said = keys(&app, &both, &["rewrap"]).await;
    assert!(!said.success && said.err.contains("master key k2 is not in the list of the replicas"), "{}", said.err);
    app.database.run("update journals set holds = '{k1,k2}'").await;
    let said = keys(&app, &both, &["rewrap"]).await;
    assert!(said.success && said.out.contains("every data key is wrapped by master key k2"), "{}{}", said.out, said.err);

    let said = keys(&app, &both, &["retire", "k1"]).await;
    assert!(!said.success && said.err.contains(&app.journal_id()), "{}", said.err);
    let said = keys(&app, &both, &["forget-journal", &app.journal_id()]).await;
    assert!(!said.success && said.err.contains("has reported"), "{}", said.err);
    app.database.run("update journals set reported_at = now() - interval '1 hour'").await;
    assert!(keys(&app, &both, &["forget-journal", &app.journal_id()]).await.success);
    let said = keys(&app, &both, &["retire", "k1"]).await;
    assert!(said.success && said.out.contains("master key k1 is no longer used"), "{}{}", said.out, said.err);
    let said = keys(&app, &both, &["status", "--json"]).await;
    let shown: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((&shown["master_keys"][0]["state"], &shown["rotation"]["done"]), (&json!("retired"), &json!(true)));

    let secret = old.split_once(':').expect("a key").1;
    for said in [&said, &keys(&app, &old, &["status"]).await] {
        assert!(!said.out.contains(secret) && !said.err.contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_that_the_replica_was_not_given_wraps_no_new_data_key() {
    let app = TestApp::start().await;
    app.register("deploy").await;
    let both = format!("{},{}", some_master_key("k2"), app.master_keys);
    for arguments in [&["rotate"][..], &["rotate", "--team", "payments"]] {
        let said = keys(&app, &both, arguments).await;
        let named = format!("master key k2 is not in the list of the replicas with these journals: {}", app.journal_id());
        assert!(!said.success && said.err.contains(&named), "{}{}", said.out, said.err);
    }
    assert_eq!(app.database.count("select count(*) from data_keys where master_key_id <> 'k1'").await, 0);
    assert_eq!(app.database.count("select count(*) from teams where rotation_asked_at is not null").await, 0);
    app.ci.refresh("deploy", json!({})).await.expect(200);
    assert_eq!(app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200).json["refreshed"], true);
    app.ci.get("/health/ready").await.expect(200);
    // With the list that the replica has, it goes on.
    assert!(keys(&app, &app.master_keys, &["rotate"]).await.success);
}
