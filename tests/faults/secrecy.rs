//! No secret of a run anywhere but where it belongs.

use std::fs;

use serde_json::json;
use token_broker::dev::simulator::{Fault, Route, Rule};

use crate::app::{TestApp, issuer::Issuer, process::Replica};

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_database_the_journal_or_the_logs_at_trace() {
    let app = TestApp::start().await;
    let journal = tempfile::tempdir().expect("a directory");
    let issuer = Issuer::start().await;
    let trusted = [("RUST_LOG", "trace"), ("TOKEN_BROKER_OIDC_ISSUERS", issuer.url())];
    let mut replica = Replica::launch(&app, journal.path(), &trusted).await.expect("it starts");
    let admin = replica.client(&app.admin);

    let rule = json!({"name": "jobs", "issuer": issuer.url(), "claims": {"sub": "a-job"}, "role": "ci"});
    admin.post("/teams/payments/trust-rules", rule).await.expect(201);
    let signed = |subject: &str| {
        let mut claims = issuer.claims();
        claims["sub"] = json!(subject);
        issuer.sign(&claims)
    };
    let (job, stranger) = (admin.with_key(signed("a-job")), admin.with_key(signed("another")));
    let session = job.post("/sessions", json!({})).await.expect(201).json["session"].as_str().expect("a session").to_owned();
    admin.with_key(session.clone()).get("/whoami").await.expect(200);
    stranger.get("/whoami?team=payments").await.expect(401);
    admin.post("/teams/payments/trust-rules/explain", json!({"jwt": stranger.key()})).await.expect(200);

    let reference =
        json!({"name": "deploy", "include_reference_token": true, "identity_token": app.simulator.add_user("someone", false)});
    admin.post("/tokens", reference).await.expect(201);
    let refused = json!({"name": "refused", "identity_token": "eyJub3QiOiJhIHRva2VuIn0.eyJzdWIiOiJub2JvZHkifQ.c2lnbmF0dXJl"});
    admin.post("/tokens", refused.clone()).await.expect(422);
    for fault in [
        None,
        Some(Fault::DropResponseAfterCommit),
        Some(Fault::TruncatedJson),
        Some(Fault::Unauthorized),
        Some(Fault::Unavailable),
    ] {
        if let Some(fault) = fault {
            app.simulator.fault(Rule::once(fault, Route::Refresh));
        }
        let answer = admin.refresh("deploy", json!({"max_age": 0, "wait": 8})).await;
        assert!(answer.status == 200 || answer.status == 503, "{}", answer.text);
    }
    // Secrets in the wrong field must not come back in the answer or the log either.
    let misplaced = admin.post("/tokens", json!({"name": "x", "identity_token": {"misplaced-secret-4711": 1}})).await.expect(422);
    assert!(!misplaced.text.contains("4711"));
    assert!(replica.terminate());

    let mut secrets = app.simulator.secrets();
    assert!(secrets.len() >= 12, "there was something to find: {}", secrets.len());
    secrets.push(refused["identity_token"].as_str().expect("text").to_owned());
    secrets.push("misplaced-secret-4711".to_owned());
    for client in [&app.admin, &app.ci, &app.platform, &job, &stranger] {
        secrets.push(client.key().to_owned());
    }
    secrets.push(job.key().rsplit('.').next().expect("a signature").to_owned());
    secrets.push(session);
    secrets.push(app.master_keys.split_once(':').expect("a key").1.to_owned());

    let log = replica.log();
    let dump = app.database.dump().await;
    assert!(log.contains("TRACE") && log.contains("deploy") && dump.contains("deploy"), "the places were really read");
    let journal_files: Vec<u8> = walk(journal.path());
    assert!(journal_files.len() > 8 * 1024, "the journal has entries");
    for secret in &secrets {
        assert!(!log.contains(secret.as_str()), "a secret is in the log");
        assert!(!dump.contains(secret.as_str()), "a secret is in the database");
        assert!(!dump.contains(&hex::encode(secret)), "a secret is in a binary column of the database");
        assert!(!contains(&journal_files, secret.as_bytes()), "a secret is in the journal");
    }
}

fn walk(dir: &std::path::Path) -> Vec<u8> {
    let files = fs::read_dir(dir).expect("the directory").flatten();
    files.flat_map(|file| fs::read(file.path()).expect("a file")).collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
