//! What a hand-out and a refresh cost, counted and not timed: whoever adds a statement to the hot path finds out here.

use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::future::join_all;
use serde_json::json;

use crate::{
    app::{Client, TestApp, TestDatabase},
    identities::World,
};

/// How often each thing is done: so often that what goes on in the background is not taken for a part of it.
const TIMES: i64 = 60;

/// The worker looks for due jobs, and the listening connection is asked whether it works, whatever else happens.
const BACKGROUND: &str = "^with due as|^select [$]1$";

/// The statements that one time takes, by how they begin, and the transactions among them that write.
async fn cost(app: &TestApp, what: impl AsyncFn()) -> (String, i64) {
    // The first time looks up keys, sealing keys and rules.
    what().await;
    app.database.run("update jobs set due_at = now() + interval '1 day'; select pg_stat_statements_reset()").await;
    let written = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    let before = app.database.count(written).await;
    for _ in 0..TIMES {
        what().await;
    }
    let written = app.database.count(written).await - before;
    let ran = format!(
        "select coalesce(string_agg(times || ' × ' || statement, '; ' order by statement), 'none') from (
             select calls / {TIMES} as times, left(regexp_replace(query, '\\s+', ' ', 'g'), 28) as statement
             from pg_stat_statements s join pg_database d on d.oid = s.dbid and d.datname = current_database()
             where toplevel and calls >= {TIMES} and not query ~ '{BACKGROUND}') ran"
    );
    // Rounded: something in the background may have written now and then.
    (app.database.text(&ran).await, (written + TIMES / 2) / TIMES)
}

async fn hand_out(caller: &Client) {
    caller.refresh("deploy", json!({})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_out_is_one_statement_and_one_commit() {
    let app = TestApp::start_on(TestDatabase::counting().await).await;
    app.register("deploy").await;
    let (statements, written) = cost(&app, async || hand_out(&app.ci).await).await;
    assert_eq!((statements.as_str(), written), ("1 × with judged as ( select *, c", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_floods_readiness_costs_postgres_next_to_nothing() {
    let app = TestApp::start_on(TestDatabase::counting().await).await;
    let nobody = app.ci.nobody();
    app.database.run("select pg_stat_statements_reset()").await;
    let begun = std::time::Instant::now();
    for _ in 0..10 {
        let all = join_all((0..50).map(|_| nobody.get("/health/ready"))).await;
        all.into_iter().for_each(|answer| drop(answer.expect(200)));
    }
    let most = 2 + i64::try_from(begun.elapsed().as_millis() / 100).expect("soon over");
    let looks = "select coalesce(max(calls), 0) from pg_stat_statements where query like '%canary%'";
    let looks = app.database.count(looks).await;
    assert!((1..=most).contains(&looks), "{looks} looks for 500 answers, {most} in the time it took");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_a_jwt_of_its_own_costs_no_more() {
    let world = World::start_on(TestDatabase::counting().await).await;
    world.app.register("deploy").await;
    world.write(world.rule("main", json!({}))).await.expect(201);
    world.felt().await;
    let run = AtomicI64::new(0);
    let job = async || hand_out(&world.job(json!({"run_id": run.fetch_add(1, Ordering::Relaxed).to_string()}))).await;
    let (statements, written) = cost(&world.app, job).await;
    assert_eq!((statements.as_str(), written), ("1 × with judged as ( select *, c", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_is_two_commits_the_hand_out_of_what_came_included() {
    let app = TestApp::start_on(TestDatabase::counting().await).await;
    app.register("deploy").await;
    let refresh = async || {
        let answer = app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
        assert_eq!(answer.json["refreshed"], true);
    };
    let (statements, written) = cost(&app, refresh).await;
    insta::assert_snapshot!(statements);
    // The attempt; the pair with its hand-out. And the signal to other replicas, which has a number and writes nothing.
    assert_eq!(written, 3);
    let audited = |action| format!("select count(*) from audit_events where action = '{action}'");
    for action in ["chain.rotate", "token.hand_out"] {
        assert_eq!(app.database.count(&audited(action)).await, TIMES + 1, "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_of_what_has_become_too_old_costs_one_look_more() {
    let app = TestApp::start_on(TestDatabase::counting().await).await;
    app.register("deploy").await;
    let refresh = async || {
        app.database
            .run("update chains set refreshed_at = refreshed_at - interval '1 day'; update tokens set rotatable_at = 'epoch'")
            .await;
        assert_eq!(app.ci.refresh("deploy", json!({})).await.expect(200).json["refreshed"], true);
    };
    let (statements, written) = cost(&app, refresh).await;
    insta::assert_snapshot!(statements);
    // One of them is the test's own.
    assert_eq!(written, 3 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_share_statements_and_commits() {
    const CALLERS: usize = 64;
    let app = TestApp::start_on(TestDatabase::counting().await).await;
    app.register("deploy").await;
    let together = async || drop(join_all((0..CALLERS).map(|_| hand_out(&app.ci))).await);
    let (statements, written) = cost(&app, together).await;
    let shared: i64 = statements.split(' ').next().and_then(|times| times.parse().ok()).expect("a number");
    assert!(!statements.contains(';') && shared <= 32 && written <= 32, "{written} commits: {statements}");
    let audited = app.database.count("select count(*) from audit_events where action = 'token.hand_out'").await;
    assert_eq!(audited, (TIMES + 1) * i64::try_from(CALLERS).expect("few"), "each has its row");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tokens_that_are_refreshed_at_once_share_them_too() {
    const TOKENS: usize = 24;
    let app = TestApp::start_on(TestDatabase::counting().await).await;
    for token in 0..TOKENS {
        app.register(&format!("deploy-{token}")).await;
    }
    let together = async || {
        let refreshes = (0..TOKENS).map(async |token| {
            let answer = app.admin.refresh(&format!("deploy-{token}"), json!({"max_age": 0})).await.expect(200);
            assert_eq!(answer.json["refreshed"], true);
        });
        join_all(refreshes).await;
    };
    let (statements, written) = cost(&app, together).await;
    // Alone, each has an attempt and a pair to commit, and a signal that has a number: three. How many come together is the machine's.
    let alone = 3 * TOKENS as i64;
    assert!((2..=alone / 2).contains(&written), "{written} commits for {TOKENS} refreshes: {statements}");
    let rotated = app.database.count("select count(*) from audit_events where action = 'chain.rotate'").await;
    assert_eq!(rotated, (TIMES + 1) * TOKENS as i64, "each has its row");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_kept_alive_at_once_share_them_even_more() {
    const TOKENS: i64 = 48;
    let app = TestApp::start_on(TestDatabase::counting().await).await;
    for token in 0..TOKENS {
        app.register(&format!("deploy-{token}")).await;
    }
    app.database
        .run(
            "update chains set refreshed_at = now() - interval '300 d', expires_at = now() + interval '65 d' where letter = 'a';
             update tokens set rotatable_at = 'epoch'; update jobs set due_at = now() where kind = 'keep-alive';
             select pg_stat_statements_reset()",
        )
        .await;
    app.database.until(&format!("(select count(*) from audit_events where action = 'chain.rotate') = {TOKENS}")).await;
    app.database.until("not exists (select from jobs where kind = 'keep-alive' and due_at < now() + interval '1 h')").await;
    // A look before and one after, an attempt, a pair, a signal, the next turn: alone, each would have six, one more that waits for a place.
    let ran = app.database.count(
        "select coalesce(sum(calls), 0)::bigint from pg_stat_statements s join pg_database d on d.oid = s.dbid and d.datname = current_database()
         where toplevel and query ~ '^select t.id|^with locked|^with held|^select pg_notify'",
    );
    let ran = ran.await;
    assert!((6..=TOKENS * 6 / 2).contains(&ran), "{ran} statements for {TOKENS} tokens");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_reads_no_more_rows_for_the_other_tokens_of_its_team() {
    const OTHERS: i64 = 2_000;
    let app = TestApp::start_on(TestDatabase::counting().await).await;
    app.register("deploy").await;
    let columns = "select string_agg(quote_ident(column_name), ', ') from information_schema.columns
                   where table_schema = 'public' and table_name = ";
    let [of_tokens, of_chains] = [
        app.database.text(&format!("{columns} 'tokens' and column_name not in ('id', 'name', 'idempotency_key')")).await,
        app.database.text(&format!("{columns} 'chains' and column_name not in ('id', 'token_id')")).await,
    ];
    let others = format!(
        "insert into tokens (id, name, {of_tokens}) select lpad(n::text, 32, '0')::uuid, 'other-' || n, {of_tokens}
         from tokens, generate_series(1, {OTHERS}) n;
         insert into chains (id, token_id, {of_chains}) select gen_random_uuid(), lpad(n::text, 32, '0')::uuid, {of_chains}
         from chains, generate_series(1, {OTHERS}) n;
         analyze;"
    );
    app.database.run(&others).await;
    let read = "select (sum(coalesce(seq_tup_read, 0)) + sum(coalesce(idx_tup_fetch, 0)))::bigint
                from pg_stat_user_tables where relname in ('tokens', 'chains', 'attempts')";
    // What a connection has counted is seen a second after it last did something.
    let seen = async || {
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        app.database.count(read).await
    };
    app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    let before = seen().await;
    for _ in 0..TIMES {
        app.admin.refresh("deploy", json!({"max_age": 0})).await.expect(200);
    }
    let each = (seen().await - before) / TIMES;
    assert!((1..=100).contains(&each), "a refresh reads {each} rows");
}
