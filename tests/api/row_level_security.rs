//! The wall in Postgres: what the service's role sees and changes, whatever its SQL says.

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};

use crate::app::TestApp;

/// As the service connects.
async fn service_connection(app: &TestApp) -> PgConnection {
    let options: PgConnectOptions = app.database.url().parse().expect("a URL");
    PgConnection::connect_with(&options.options([("role", "token_broker_app")])).await.expect("connects")
}

async fn number(connection: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(connection).await.expect(sql)
}

/// Two teams with everything a team can have; the ids of ours and theirs.
async fn two_teams(app: &TestApp) -> (String, String) {
    app.platform.post("/teams", json!({"name": "orders"})).await.expect(201);
    let orders = app.team_key("orders", "admin", json!({"role": "admin"})).await;
    app.register("deploy").await;
    orders.post("/tokens", json!({"name": "deploy", "identity_token": app.simulator.add_user("o", false)})).await.expect(201);
    app.database
        .run(
            "insert into attempts (token_id, id, team_id, kind, spent_generation, lease_until, replica, actor)
             select id, gen_random_uuid(), team_id, 'sweep', 1, now() + interval '1 h', gen_random_uuid(), 'test' from tokens;
             insert into trust_rules (id, team_id, name, issuer, claims, whole_organisation, role, token_patterns, session_max, single_use,
                                      created_by)
             select gen_random_uuid(), id, 'main', 'https://issuer.example', '{}', false, 'ci', '{*}', 60, false, 'test' from teams;
             insert into sessions (id, team_id, public_id, secret_sha256, actor, recognised_by, rule_ids, expires_at)
             select gen_random_uuid(), team_id, id::text, sha256('x'), 'test', '{}', array[id], now() + interval '1 h' from trust_rules;
             insert into webhooks (id, team_id, name, origin, target, events, created_by)
             select gen_random_uuid(), id, 'w', 'https://hooks.example', 'x', '{token.lost}', 'test' from teams;
             insert into children (id, team_id, token_id, state, expires_at, actor, recognised_by, credential)
             select gen_random_uuid(), team_id, id, 'issuing', now() + interval '1 h', 'test', '{}', 'test' from tokens;
             insert into lockdowns (id, team_id, reason, renew, by_platform, created_by)
             select gen_random_uuid(), id, '', false, false, 'test' from teams;
             insert into webhook_notices (id, team_id, webhook_id, event, data)
             select gen_random_uuid(), team_id, id, 'token.lost', '{}' from webhooks",
        )
        .await;
    let id = |team: &'static str| {
        app.database.text(if team == "payments" {
            "select id::text from teams where name = 'payments'"
        } else {
            "select id::text from teams where name = 'orders'"
        })
    };
    (id("payments").await, id("orders").await)
}

/// Every table with a team, and `teams` itself, with the column that says whose a row is.
async fn tables_of_teams(app: &TestApp) -> Vec<(String, String)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text from information_schema.columns where table_schema = 'public' and column_name = 'team_id' order by 1",
    )
    .fetch_all(&mut app.database.connect().await)
    .await
    .expect("tables");
    assert!(tables.len() >= 8, "{tables:?}");
    let owned = tables.into_iter().map(|table| (table, "team_id".to_owned()));
    owned.chain([("teams".to_owned(), "id".to_owned())]).collect()
}

#[tokio::test]
async fn without_a_team_nothing_of_any_team_is_visible() {
    let app = TestApp::start().await;
    two_teams(&app).await;
    let mut service = service_connection(&app).await;
    for (table, _) in tables_of_teams(&app).await {
        assert_eq!(number(&mut service, &format!("select count(*) from {table}")).await, 0, "{table}");
        assert!(app.database.count(&format!("select count(*) from {table}")).await >= 2, "{table} has rows of both");
    }
}

#[tokio::test]
async fn with_one_team_no_row_of_another_is_visible_changeable_or_deletable() {
    let app = TestApp::start().await;
    let (ours, theirs) = two_teams(&app).await;
    let mut service = service_connection(&app).await;
    for (table, column) in tables_of_teams(&app).await {
        let of = |team: &str| format!("select count(*) from {table} where (select in_team('{ours}')) and {column} = '{team}'");
        assert!(number(&mut service, &of(&ours)).await >= 1, "{table}: ours are visible");
        assert_eq!(number(&mut service, &of(&theirs)).await, 0, "{table}: theirs are not");
        if table == "audit_events" {
            continue;
        }
        // As if the application had forgotten every condition of its own.
        let everything = format!("update {table} set {column} = {column} where (select in_team('{ours}'))");
        let done = sqlx::query(AssertSqlSafe(everything.clone())).execute(&mut service).await.expect("runs");
        let own = app.database.count(&format!("select count(*) from {table} where {column} = '{ours}'")).await;
        assert_eq!(i64::try_from(done.rows_affected()).expect("few"), own, "{everything}");
        let before = app
            .database
            .text(&format!("select md5(string_agg(t::text, '' order by t::text)) from {table} t where {column} = '{theirs}'"))
            .await;
        for change in [
            "update {table} set {column} = {column} where (select in_team('{ours}')) and {column} = '{theirs}'",
            "delete from {table} where (select in_team('{ours}')) and {column} = '{theirs}'",
        ] {
            let sql = change
                .replace("{table}", &table)
                .replace("{column}", &column)
                .replace("{ours}", &ours)
                .replace("{theirs}", &theirs);
            let done = sqlx::query(AssertSqlSafe(sql.clone())).execute(&mut service).await.expect("runs");
            assert_eq!(done.rows_affected(), 0, "{sql}");
        }
        let after = app
            .database
            .text(&format!("select md5(string_agg(t::text, '' order by t::text)) from {table} t where {column} = '{theirs}'"))
            .await;
        assert_eq!(before, after, "{table}");
    }
}

#[tokio::test]
async fn a_row_cannot_be_slipped_into_another_team_nor_moved_there() {
    let app = TestApp::start().await;
    let (ours, theirs) = two_teams(&app).await;
    let mut service = service_connection(&app).await;
    let insertions = [
        format!("insert into api_keys (id, team_id, name, role, token_patterns, public_id, secret_sha256, created_by)
                 select gen_random_uuid(), '{theirs}', 'evil', 'admin', '{{*}}', 'evil', sha256('x'), 'me' where (select in_team('{ours}'))"),
        format!("insert into api_keys (id, team_id, name, role, token_patterns, public_id, secret_sha256, created_by)
                 select gen_random_uuid(), null, 'evil', 'platform-admin', '{{*}}', 'evil', sha256('x'), 'me' where (select in_team('{ours}'))"),
        format!("insert into data_keys (id, team_id, master_key_id, wrapped, current)
                 select gen_random_uuid(), '{theirs}', (select id from master_keys limit 1), 'x', false where (select in_team('{ours}'))"),
        format!("insert into audit_events (team_id, actor, recognised_by, action, outcome)
                 select '{theirs}', 'me', '{{}}', 'x', 'done' where (select in_team('{ours}'))"),
        format!("insert into teams (id, name, description, created_by) select gen_random_uuid(), 'evil', '', 'me' where (select in_team('{ours}'))"),
        format!("insert into trust_rules (id, team_id, name, issuer, claims, whole_organisation, role, token_patterns, session_max, single_use, created_by)
                 select gen_random_uuid(), '{theirs}', 'evil', 'x', '{{}}', false, 'admin', '{{*}}', 60, false, 'me' where (select in_team('{ours}'))"),
        format!("update sessions set team_id = '{theirs}' where (select in_team('{ours}'))"),
        format!("update trust_rules set team_id = '{theirs}' where (select in_team('{ours}'))"),
        format!("update tokens set team_id = '{theirs}' where (select in_team('{ours}'))"),
        format!("update chains set team_id = '{theirs}' where (select in_team('{ours}'))"),
        format!("update api_keys set team_id = null, role = 'platform-admin' where (select in_team('{ours}'))"),
        format!("update api_keys set team_id = '{theirs}' where (select in_team('{ours}')) and name = 'ci'"),
    ];
    for sql in insertions {
        let error = sqlx::query(AssertSqlSafe(sql.clone())).execute(&mut service).await.expect_err(&sql);
        assert!(error.to_string().contains("row-level security"), "{sql}: {error}");
    }
}

#[tokio::test]
async fn the_service_can_neither_change_nor_remove_an_audit_row() {
    let app = TestApp::start().await;
    let (ours, _) = two_teams(&app).await;
    let mut service = service_connection(&app).await;
    for sql in [
        format!("update audit_events set actor = 'someone else' where (select in_team('{ours}'))"),
        format!("delete from audit_events where (select in_team('{ours}'))"),
        "truncate audit_events".to_owned(),
        "alter table audit_events disable row level security".to_owned(),
        "drop table audit_events".to_owned(),
        "set row_security = off; select count(*) from audit_events".to_owned(),
    ] {
        let error = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut service).await.expect_err(&sql);
        let text = error.to_string();
        assert!(
            ["permission denied", "must be owner", "affected by row-level security"].iter().any(|why| text.contains(why)),
            "{sql}: {text}"
        );
    }
}

#[tokio::test]
async fn every_table_with_a_team_is_behind_the_wall_and_its_owner_too() {
    let app = TestApp::start().await;
    for (table, _) in tables_of_teams(&app).await {
        let walled =
            format!("select count(*) from pg_class where relname = '{table}' and relrowsecurity and relforcerowsecurity");
        assert_eq!(app.database.count(&walled).await, 1, "{table}");
    }
    let loose = "select count(*) from pg_roles where rolname in ('token_broker_app', 'token_broker_lookup') and (rolsuper or rolbypassrls or rolcanlogin)";
    assert_eq!(app.database.count(loose).await, 0);
}
