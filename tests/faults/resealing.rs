//! Data keys are rotated and master keys replaced under load: no request fails, kill -9 loses nothing, every row opens afterwards.
//! `cargo test --test faults resealing -- --nocapture` says how long it takes.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rand::RngExt;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, QueryBuilder};
use token_broker::{
    crypto::{Key, MasterKeys, Place},
    secret::{Sealed, Wrapped},
};
use uuid::Uuid;

use crate::app::{Client, TestApp, process::Replica};

const COLUMNS: [&str; 3] = ["access_token", "refresh_token", "reference_token"];

/// The team's current data key, unwrapped by the test.
async fn current_key(app: &TestApp) -> (Uuid, Key) {
    let (id, team, master_key_id, wrapped): (Uuid, Uuid, String, Vec<u8>) =
        sqlx::query_as("select id, team_id, master_key_id, wrapped from data_keys where current")
            .fetch_one(&mut app.database.connect().await)
            .await
            .expect("one team");
    let wrapped = Wrapped { master_key_id, sealed: Sealed::from_bytes(wrapped) };
    let keys = MasterKeys::parse(&app.master_keys).expect("keys");
    (team, keys.unwrap(team, &id.to_string(), &wrapped).await.expect("unwraps"))
}

fn place(row: Uuid, column: &'static str, generation: i64) -> Place<'static> {
    Place { table: "chains", row, column, generation }
}

/// So many chains that hold something, of tokens that nothing else happens to.
async fn fill(app: &TestApp, rows: usize) {
    let (team, key) = current_key(app).await;
    let mut connection = app.database.connect().await;
    for page in (0..rows).collect::<Vec<_>>().chunks(1000) {
        let tokens: Vec<Uuid> = page.iter().map(|_| Uuid::now_v7()).collect();
        let mut insert = QueryBuilder::new(
            "insert into tokens (id, team_id, name, description, instance, include_reference_token, reuse_for, imported, chain_count,
                                 state, generation, created_by) ",
        );
        insert.push_values(&tokens, |mut row, token| {
            row.push_bind(token)
                .push_bind(team)
                .push_bind(format!("t-{token}"))
                .push("'', 'main', true, 60, false, 1, 'registered', 1, 'test'");
        });
        insert.build().execute(&mut connection).await.expect("tokens");
        let mut insert = QueryBuilder::new(
            "insert into chains (id, token_id, team_id, letter, state, generation, access_token, refresh_token, reference_token, refreshed_at) ",
        );
        insert.push_values(&tokens, |mut row, token| {
            let id = Uuid::now_v7();
            row.push_bind(id).push_bind(token).push_bind(team).push("'a', 'active', 3");
            for column in COLUMNS {
                row.push_bind(key.seal(place(id, column, 3), format!("{column} of {id}").as_bytes()).as_bytes().to_vec());
            }
            row.push("now()");
        });
        insert.build().execute(&mut connection).await.expect("chains");
    }
}

/// Every row opens with the current key, and says what it said.
async fn look(app: &TestApp, rows: usize) {
    let (_, key) = current_key(app).await;
    let mut seen = 0;
    for column in COLUMNS {
        let sql = format!("select c.id, c.{column} from chains c join tokens t on t.id = c.token_id where t.name like 't-%'");
        let found: Vec<(Uuid, Vec<u8>)> =
            sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut app.database.connect().await).await.expect("chains");
        for (id, sealed) in found {
            let open = key.open(place(id, column, 3), &Sealed::from_bytes(sealed)).expect("it opens with the new key");
            assert_eq!(open.as_slice(), format!("{column} of {id}").as_bytes());
            seen += 1;
        }
    }
    assert_eq!(seen, rows * COLUMNS.len());
}

async fn status(platform: &Client) -> Value {
    platform.get("/encryption-keys").await.expect(200).json
}

/// Hand-outs and rotations without a pause, until it is over; none may fail.
async fn load(client: &Client, admin: &Client, over: &AtomicBool, answered: &AtomicUsize) {
    let ask = async |holder: &Client, body: Value| {
        while !over.load(Ordering::SeqCst) {
            holder.refresh("deploy", body.clone()).await.expect(200);
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    tokio::join!(ask(client, json!({})), ask(client, json!({})), ask(admin, json!({"max_age": 0, "wait": 30})));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_sealed_anew_under_load_while_replicas_are_killed_and_no_request_fails() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let rows = 3_000;
    let mut app = TestApp::start().await;
    app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
    fill(&app, rows).await;
    app.stop().await;
    let journals = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let steady = Replica::start(&app, journals[0].path(), "info").await;
    let (ci, admin, platform) = (steady.client(&app.ci), steady.client(&app.admin), steady.client(&app.platform));
    let (over, answered, began) = (AtomicBool::new(false), AtomicUsize::new(0), Instant::now());
    platform.post("/encryption-keys/rotate", json!({})).await.expect(202);
    let (mut kills, mut took) = (0, Duration::ZERO);
    let rotating = async {
        loop {
            let mut other = Replica::start(&app, journals[1].path(), "info").await;
            tokio::time::sleep(Duration::from_millis(rand::rng().random_range(50..500))).await;
            other.kill();
            kills += 1;
            let rotation = status(&platform).await["rotation"].clone();
            if rotation["done"] == true && kills >= 3 {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(180), "{rotation}");
        }
        took = began.elapsed();
        over.store(true, Ordering::SeqCst);
    };
    tokio::join!(rotating, load(&ci, &admin, &over, &answered));
    let answered = answered.load(Ordering::Relaxed);
    println!(
        "{rows} rows sealed anew in {} ms, {kills} kills of one replica, {answered} requests, none failed",
        took.as_millis()
    );
    assert!(answered > 20, "there was load: {answered}");
    look(&app, rows).await;

    // And the old key goes, with the load's last rows.
    for seconds in [200, 700] {
        app.database
            .run(&format!(
                "update data_keys set rotated_at = rotated_at - interval '{seconds} s', closed_at = closed_at - interval '{seconds} s';
                 update jobs set due_at = now() where kind = 'reseal'"
            ))
            .await;
        let closed = "(select count(*) from data_keys where not current and closed_at is null) = 0";
        app.database.until(closed).await;
    }
    app.database.until("(select count(*) from data_keys) = 1").await;
    look(&app, rows).await;
    assert_eq!(admin.refresh("deploy", json!({"max_age": 0})).await.expect(200).json["refreshed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_rows_take_less_than_a_minute_under_load() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let mut app = TestApp::start().await;
    app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
    fill(&app, 10_000).await;
    app.stop().await;
    let journal = tempfile::tempdir().expect("a directory");
    let lease = [("RUST_LOG", "info"), ("TOKEN_BROKER_LEASE_SECONDS", "90")];
    let replica = Replica::launch(&app, journal.path(), &lease).await.expect("starts");
    let (ci, admin, platform) = (replica.client(&app.ci), replica.client(&app.admin), replica.client(&app.platform));
    let (over, answered, began) = (AtomicBool::new(false), AtomicUsize::new(0), Instant::now());
    let rotating = async {
        platform.post("/encryption-keys/rotate", json!({})).await.expect(202);
        while status(&platform).await["rotation"]["done"] != true {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        over.store(true, Ordering::SeqCst);
        began.elapsed()
    };
    let (took, ()) = tokio::join!(rotating, load(&ci, &admin, &over, &answered));
    println!("10000 rows sealed anew in {} ms beside {} requests", took.as_millis(), answered.load(Ordering::Relaxed));
    assert!(took < Duration::from_secs(60), "{took:?}");
    look(&app, 10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_replicas_pair_is_sealed_anew_when_its_data_key_was_closed_meanwhile() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let mut app = TestApp::start().await;
    app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
    app.stop().await;
    let journals = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let other = Replica::launch(&app, journals[0].path(), &[("RUST_LOG", "info")]).await.expect("starts");
    let variables = [("RUST_LOG", "info"), ("TOKEN_BROKER_LEASE_SECONDS", "60"), ("TOKEN_BROKER_FAULT", "answered:stall")];
    let stalled = Replica::launch(&app, journals[1].path(), &variables).await.expect("starts");
    let admin = stalled.client(&app.admin);
    let asked = tokio::spawn(async move { admin.refresh("deploy", json!({"max_age": 0, "wait": 60})).await });
    while !stalled.log().contains("a fault goes off") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Its sealing key is in its hand. Elsewhere that key is rotated, closed and, needed by no row, deleted.
    let platform = other.client(&app.platform);
    platform.post("/encryption-keys/rotate", json!({"team": "payments"})).await.expect(202);
    app.database.until("(select count(*) from data_keys) = 2").await;
    for seconds in [200, 700] {
        app.database
            .run(&format!(
                "update data_keys set rotated_at = rotated_at - interval '{seconds} s', closed_at = closed_at - interval '{seconds} s'"
            ))
            .await;
        let next = if seconds == 200 {
            "(select count(*) from data_keys where closed_at is not null) = 1"
        } else {
            "(select count(*) from data_keys) = 1"
        };
        for _ in 0..50 {
            app.database.run("update jobs set due_at = now() where kind = 'reseal'").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            if app.database.count(&format!("select count(*) where {next}")).await == 1 {
                break;
            }
        }
        app.database.until(next).await;
    }
    let answer = asked.await.expect("an answer").expect(200);
    assert_eq!(answer.json["refreshed"], true, "{}", answer.text);
    assert!(stalled.log().contains("a pair is sealed anew: its data key was closed"), "{}", stalled.log());
    let sealed_by_others = "select count(*) from chains, data_keys where sealed_by(access_token) <> data_keys.id";
    assert_eq!(app.database.count(sealed_by_others).await, 0);
    for replica in [&other, &stalled] {
        let held = replica.client(&app.ci).refresh("deploy", json!({})).await.expect(200);
        assert!(app.simulator.is_alive(held.access_token()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_is_replaced_under_load_on_two_replicas() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let mut app = TestApp::start().await;
    app.register_with("deploy", json!({"reuse_for": 1})).await.expect(201);
    for team in 0..40 {
        app.platform.post("/teams", json!({"name": format!("team-{team}")})).await.expect(201);
    }
    app.stop().await;
    // It would count as a replica that has not got the new key.
    app.database.run("delete from journals").await;
    app.master_keys = format!("{},{}", crate::app::some_master_key("k2"), app.master_keys);
    let journals = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let replicas = join_all(journals.iter().map(|journal| Replica::start(&app, journal.path(), "info"))).await;
    let clients: Vec<_> =
        replicas.iter().map(|replica| [&app.ci, &app.admin, &app.platform].map(|who| replica.client(who))).collect();
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let rewrapping = async {
        clients[0][2].post("/encryption-keys/rewrap", json!({})).await.expect(202);
        for _ in 0..300 {
            if status(&clients[1][2]).await["rewrap"].is_null() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        over.store(true, Ordering::SeqCst);
    };
    let loads = clients.iter().map(|[ci, admin, _]| load(ci, admin, &over, &answered));
    tokio::join!(rewrapping, join_all(loads));
    assert_eq!(app.database.count("select count(*) from data_keys where master_key_id <> 'k2'").await, 0);
    assert!(answered.load(Ordering::Relaxed) > 5);
}
