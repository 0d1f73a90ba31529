//! `token-broker audit checkpoint`, `verify` and `prune`, as their own processes.

use std::process::Command;

use serde_json::Value;
use token_broker::store;
use uuid::Uuid;

use super::Chained;
use crate::app::{TestDatabase, some_master_key};

struct Said {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Chained {
    fn audit(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_token-broker"))
            .arg("audit")
            .args(arguments)
            .env_clear()
            .env("DATABASE_URL", self.database.url())
            .env("TOKEN_BROKER_MASTER_KEYS", &self.master_keys)
            .envs(variables.iter().copied())
            .output()
            .expect("the binary starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Said { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

#[tokio::test]
async fn a_whole_audit_is_exit_code_0_and_says_what_it_cannot_tell() {
    let chained = Chained::of(2).await;
    chained.write(3).await;
    let said = chained.audit(&["verify"], &[]);
    assert_eq!((said.status, said.err.as_str()), (Some(0), ""));
    for words in ["whole: 2 batches, 18 events", "3 newer rows are not closed yet", "Without --checkpoint", "cut off"] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
    let checkpoint = chained.audit(&["checkpoint"], &[("TOKEN_BROKER_MASTER_KEYS", "")]);
    assert_eq!((checkpoint.status, checkpoint.out.lines().count()), (Some(0), 1), "{}", checkpoint.err);
    let kept = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(kept.path(), &checkpoint.out).expect("it is kept");
    let path = kept.path().to_str().expect("UTF-8");
    let said = chained.audit(&["verify", "--checkpoint", path], &[]);
    assert!(said.status == Some(0) && said.out.contains("Up to the checkpoint") && !said.out.contains("Without"), "{}", said.out);
    let said = chained.audit(&["verify", "--json"], &[]);
    let seen: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((said.status, &seen["whole"], &seen["events_not_closed"]), (Some(0), &Value::Bool(true), &Value::from(3)));
    assert_eq!(seen["checkpoint"], serde_json::from_str::<Value>(&checkpoint.out).expect("JSON"));
}

#[tokio::test]
async fn what_was_done_to_it_is_exit_code_1_and_named() {
    let chained = Chained::of(3).await;
    let checkpoint = chained.audit(&["checkpoint"], &[]).out;
    let kept = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(kept.path(), &checkpoint).expect("it is kept");
    let path = kept.path().to_str().expect("UTF-8");
    let id = chained.database.count("select last_id - 1 from audit_batches where number = 2").await;
    chained.database.run("create table kept as table audit_events").await;
    for (change, words) in [
        (format!("update audit_events set actor = 'x' where id = {id}"), format!("event {id} of batch 2 was changed")),
        (format!("delete from audit_events where id = {id}"), format!("event {id} of batch 2 was removed")),
        (
            "insert into audit_events (id, actor, recognised_by, action, outcome) overriding system value values (0, 'x', '{}', 'x', 'done')"
                .to_owned(),
            "event 0 of batch 1 was slipped in later".to_owned(),
        ),
        ("update audit_batches set closed_at = now() where number = 3".to_owned(), "batch 3 was changed".to_owned()),
        ("delete from audit_batches where number = 3".to_owned(), "batch 3 was cut off".to_owned()),
        ("delete from audit_batches".to_owned(), "batch 3 was cut off".to_owned()),
    ] {
        chained.database.run(&change).await;
        let said = chained.audit(&["verify", "--checkpoint", path], &[]);
        assert_eq!(said.status, Some(1), "{change}: {}", said.err);
        assert!(said.out.starts_with("NOT whole: ") && said.out.contains(&words), "{change}: {}", said.out);
        let said = chained.audit(&["verify", "--json", "--checkpoint", path], &[]);
        let seen: Value = serde_json::from_str(&said.out).expect("JSON");
        assert!(said.status == Some(1) && seen["whole"] == false && seen["finding"]["batch"].is_i64(), "{}", said.out);
        chained.database.run("delete from audit_events; insert into audit_events overriding system value table kept").await;
    }
}

#[tokio::test]
async fn what_cannot_be_told_is_exit_code_2_and_one_sentence() {
    let chained = Chained::of(1).await;
    let kept = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(kept.path(), "no checkpoint").expect("it is written");
    let path = kept.path().to_str().expect("UTF-8");
    let (missing, wrong) = (some_master_key("k2"), some_master_key("k1"));
    for (arguments, variable, sentence) in [
        (vec![], ("TOKEN_BROKER_MASTER_KEYS", missing.as_str()), "master key k1 is needed"),
        (vec![], ("TOKEN_BROKER_MASTER_KEYS", wrong.as_str()), "does not open with its master key k1"),
        (vec![], ("TOKEN_BROKER_MASTER_KEYS", ""), "TOKEN_BROKER_MASTER_KEYS is not set"),
        (vec![], ("DATABASE_URL", "postgres://127.0.0.1:1/nowhere"), "DATABASE_URL"),
        (vec!["--checkpoint", "/nowhere/at-all"], ("RUST_LOG", "off"), "/nowhere/at-all"),
        (vec!["--checkpoint", path], ("RUST_LOG", "off"), "line 1 is no checkpoint"),
        (vec!["--unknown"], ("RUST_LOG", "off"), "--unknown"),
    ] {
        let arguments: Vec<&str> = ["verify"].into_iter().chain(arguments).collect();
        let said = chained.audit(&arguments, &[variable]);
        assert_eq!((said.status, said.out.as_str()), (Some(2), ""), "{sentence}: {}", said.err);
        assert!(said.err.contains(sentence), "{sentence}: {}", said.err);
    }
    chained.database.run("update audit_keys set wrapped = set_byte(wrapped, 60, get_byte(wrapped, 60) # 1)").await;
    assert_eq!(chained.audit(&["verify"], &[]).status, Some(2), "the key was tampered with");
    let empty = Chained::new().await;
    let said = empty.audit(&["checkpoint"], &[]);
    assert!(said.status == Some(1) && said.err.contains("no batch is closed yet"), "{}", said.err);
    assert_eq!(empty.audit(&["verify"], &[]).status, Some(0), "an empty chain is whole");
}

/// A database whose owner is no superuser, and an account of the service's that owns nothing.
async fn owned() -> (Chained, String, String) {
    let database = TestDatabase::new().await;
    let (owner, service) = (format!("owner_{}", Uuid::new_v4().simple()), format!("service_{}", Uuid::new_v4().simple()));
    database
        .run(&format!(
            "create role {owner} login createrole password 'x'; create role {service} login password 'x';
             grant token_broker_app, token_broker_lookup to {owner} with admin option; grant token_broker_app to {service}"
        ))
        .await;
    database.run(&format!("create database {owner} owner {owner}")).await;
    let url = |account: &str| database_url(database.url(), account, &owner);
    store::migrate(url(&owner).parse().expect("a URL")).await.expect("a plain owner migrates");
    let chained = Chained::on(TestDatabase::at(url(&service))).await;
    (chained, url(&owner), url(&service))
}

fn database_url(like: &str, account: &str, database: &str) -> String {
    let mut url = reqwest::Url::parse(like).expect("a URL");
    url.set_username(account).expect("it has a host");
    url.set_password(Some("x")).expect("it has a host");
    url.set_path(database);
    url.to_string()
}

#[tokio::test]
async fn the_owner_prunes_and_the_services_account_may_not() {
    let (chained, owner, service) = owned().await;
    let as_owner = TestDatabase::at(owner.clone());
    for _ in 0..2 {
        as_owner
            .run(&format!(
                "insert into audit_events (actor, recognised_by, action, outcome)
                 select 'test', '{{}}', 'test.event', 'done' from generate_series(1, 3) where (select in_team('{}'))",
                Uuid::nil()
            ))
            .await;
        chained.close().await;
    }
    let all = format!("select count(*) from audit_events where (select in_team('{}'))", Uuid::nil());
    let later = "2100-01-01T00:00:00Z";
    let said = chained.audit(&["prune", "--before", later], &[]);
    assert!(said.status == Some(1) && said.err.contains("permission denied"), "{} {}", said.out, said.err);
    let said = chained.audit(&["prune", "--before", later], &[("TOKEN_BROKER_MIGRATE_DATABASE_URL", service.as_str())]);
    assert!(said.status == Some(1) && said.err.contains("permission denied"), "{} {}", said.out, said.err);
    for bad in ["yesterday", "2026-01-31", ""] {
        let said = chained.audit(&["prune", "--before", bad], &[("TOKEN_BROKER_MIGRATE_DATABASE_URL", owner.as_str())]);
        assert_eq!(said.status, Some(2), "{bad}");
    }
    let said =
        chained.audit(&["prune", "--before", "2001-01-01T00:00:00Z"], &[("TOKEN_BROKER_MIGRATE_DATABASE_URL", owner.as_str())]);
    assert!(said.status == Some(0) && said.out.contains("removed 0 events of 0 batches"), "{} {}", said.out, said.err);
    assert_eq!(as_owner.count(&all).await, 6);
    let said = chained.audit(&["prune", "--before", later], &[("TOKEN_BROKER_MIGRATE_DATABASE_URL", owner.as_str())]);
    assert!(said.status == Some(0) && said.out.contains("removed 6 events of 2 batches"), "{} {}", said.out, said.err);
    assert_eq!(as_owner.count(&all).await, 1, "what is left is the event of its pruning");
    assert_eq!(as_owner.count(&format!("{all} and action = 'audit.prune' and actor = 'command-line'")).await, 1);
    let said = chained.audit(&["verify"], &[]);
    assert!(said.status == Some(0) && said.out.contains("2 of the batches were pruned"), "{} {}", said.out, said.err);
}
