//! A hundred random tamperings of each kind, by who can write everything in the database: each is found, and the row is named.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use sqlx::{AssertSqlSafe, PgConnection, Row};
use token_broker::{
    audit::{Batch, Checkpoint, Finding, RowList, Wrong, row_bytes},
    crypto::{Key, hmac_sha256, random_bytes, sha256},
};
use uuid::Uuid;

use super::Chained;

const TIMES: usize = 100;
const BATCHES: usize = 4;

/// A chain, a copy of it that each tampering begins with, and chance.
struct Bench {
    chained: Chained,
    /// One for all: hundreds of times a new one takes long.
    connection: PgConnection,
    /// Ids of all rows, with their batch.
    rows: Vec<(i64, i64)>,
    checkpoints: Vec<Checkpoint>,
    chance: StdRng,
    seed: u64,
}

impl Bench {
    async fn new() -> Self {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
        println!("SEED={seed}");
        let chained = Chained::new().await;
        let mut checkpoints = Vec::new();
        for _ in 0..BATCHES {
            chained.write(4).await;
            chained.write(3).await;
            checkpoints.push(chained.close().await);
        }
        // Where a batch's keys and rows may be written over, as by who owns the tables.
        chained
            .database
            .run("create table kept_events as table audit_events; create table kept_batches as table audit_batches")
            .await;
        let rows = "select id, (select min(number) from audit_batches where last_id >= id) from audit_events order by id";
        let rows: Vec<(i64, i64)> = sqlx::query_as(rows).fetch_all(&mut chained.database.connect().await).await.expect("rows");
        assert_eq!(rows.len(), BATCHES * 7);
        let connection = chained.database.connect().await;
        Self { chained, connection, rows, checkpoints, chance: StdRng::seed_from_u64(seed), seed }
    }

    /// As it was before any tampering.
    async fn restore(&mut self) {
        self.run(
            "delete from audit_events; insert into audit_events overriding system value table kept_events;
             delete from audit_batches; insert into audit_batches table kept_batches",
        )
        .await;
    }

    async fn run(&mut self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.connection).await.expect(sql);
    }

    /// How many rows it touched.
    async fn touch(&mut self, sql: &str) -> u64 {
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut self.connection).await.expect(sql).rows_affected()
    }

    fn some_row(&mut self) -> (i64, i64) {
        *self.rows.choose(&mut self.chance).expect("there are rows")
    }

    /// With no checkpoint at all, this is what is found.
    async fn finds(&self, what: &str, (event, batch): (i64, i64), wrong: Wrong) {
        let expected = Some(Finding { batch, event: Some(event), wrong });
        assert_eq!(self.chained.found(&[]).await, expected, "{what}, SEED={}", self.seed);
    }
}

/// The columns of a table, with their types.
async fn columns(bench: &Bench, table: &str) -> Vec<(String, String)> {
    let sql = format!(
        "select column_name::text, data_type::text from information_schema.columns where table_name = '{table}' order by ordinal_position"
    );
    sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut bench.chained.database.connect().await).await.expect("columns")
}

#[tokio::test]
async fn a_row_whose_columns_were_edited() {
    let mut bench = Bench::new().await;
    let columns = columns(&bench, "audit_events").await;
    assert!(columns.len() >= 16, "{columns:?}");
    let mut done = 0;
    while done < TIMES {
        // Each column in turn: one that comes later and is not digested is noticed here.
        let (column, kind) = &columns[1 + done % (columns.len() - 1)];
        let new: &[&str] = match (column.as_str(), kind.as_str()) {
            ("outcome", _) => &["'done'", "'refused'", "'failed'"],
            ("actor" | "action", _) => &["$ || ' '", "''", "upper($)"],
            (_, "text") => &["null", "''", "concat($, 'x')", "' ' || $"],
            (_, "uuid") => &["null", "gen_random_uuid()"],
            (_, "bigint") => &["null", "coalesce($, 0) + 1", "0"],
            ("recognised_by", _) => &["'{}'::jsonb", "$ || '{\"n\": 0}'", "$ - 'type'", "'null'::jsonb"],
            (_, "jsonb") => {
                &["null", "'null'::jsonb", "'{\"a\": [1.00, null]}'::jsonb", "'{\"a\": [1.0]}'::jsonb", "'{}'::jsonb"]
            }
            (_, "timestamp with time zone") => {
                &["$ + interval '1 microsecond'", "$ - interval '1 year'", "'infinity'::timestamptz", "'-infinity'::timestamptz"]
            }
            other => panic!("what can be written there? {other:?}"),
        };
        let new = new.choose(&mut bench.chance).expect("some").replace('$', column);
        let row = bench.some_row();
        // Compared as texts: 1.0 and 1.00 are equal as jsonb.
        let edit = format!(
            "update audit_events set {column} = {new} where id = {} and {column}::text is distinct from ({new})::text",
            row.0
        );
        if bench.touch(&edit).await == 0 {
            continue;
        }
        bench.finds(&edit, row, Wrong::Changed).await;
        bench.restore().await;
        done += 1;
    }
    assert_eq!(bench.chained.found(&bench.checkpoints).await, None, "restored, it is whole");
}

#[tokio::test]
async fn rows_that_were_deleted() {
    let mut bench = Bench::new().await;
    for _ in 0..TIMES {
        let (first, other) = (bench.some_row(), bench.some_row());
        let delete = match bench.chance.random_range(0..4) {
            0 => format!("delete from audit_events where id in ({}, {})", first.0, other.0),
            1 => format!("delete from audit_events where id >= {}", first.0),
            _ => format!("delete from audit_events where id = {}", first.0),
        };
        let lowest = if delete.contains(',') { first.min(other) } else { first };
        assert!(bench.touch(&delete).await > 0);
        bench.finds(&delete, lowest, Wrong::Removed).await;
        bench.restore().await;
    }
}

#[tokio::test]
async fn rows_that_were_slipped_in() {
    let mut bench = Bench::new().await;
    let last = bench.rows.last().expect("rows").0;
    let mut free: Vec<i64> = (-3..last).filter(|id| bench.rows.iter().all(|(taken, _)| taken != id)).collect();
    free.push(i64::MIN);
    for _ in 0..TIMES {
        let id = *free.choose(&mut bench.chance).expect("ids without a row");
        let batch = bench.rows.iter().find(|(taken, _)| *taken > id).expect("it is before the end").1;
        let like = bench.some_row().0;
        let insert = format!(
            "insert into audit_events overriding system value
             select ({id})::bigint, at, team_id, actor, recognised_by, action, outcome, reason, token_id, token_name, jfrog_token_id, fingerprint,
                    generation, request_id, address, detail
             from audit_events where id = {like}"
        );
        assert_eq!(bench.touch(&insert).await, 1);
        bench.finds(&insert, (id, batch), Wrong::SlippedIn).await;
        bench.restore().await;
    }
}

#[tokio::test]
async fn rows_that_were_reordered() {
    let mut bench = Bench::new().await;
    let names: Vec<String> = columns(&bench, "audit_events").await.into_iter().skip(1).map(|(name, _)| name).collect();
    let (names, of_other) = (names.join(", "), names.iter().map(|name| format!("b.{name}")).collect::<Vec<_>>().join(", "));
    let mut done = 0;
    while done < TIMES {
        let (one, two) = (bench.some_row(), bench.some_row());
        if one == two {
            continue;
        }
        let swap = format!(
            "update audit_events a set ({names}) = row({of_other}) from audit_events b
             where (a.id, b.id) in (({}, {}), ({}, {}))",
            one.0, two.0, two.0, one.0
        );
        assert_eq!(bench.touch(&swap).await, 2);
        bench.finds(&swap, one.min(two), Wrong::Changed).await;
        bench.restore().await;
        done += 1;
    }
}

#[tokio::test]
async fn batches_that_were_edited_removed_or_exchanged() {
    let mut bench = Bench::new().await;
    for _ in 0..TIMES {
        let number = bench.chance.random_range(1..=BATCHES as i64);
        let other = number % BATCHES as i64 + 1;
        let byte = bench.chance.random_range(0..32);
        let (what, of, wrong) = match bench.chance.random_range(0..9) {
            0 => ("last_id = last_id - 1".to_owned(), number, Wrong::BatchChanged),
            1 => ("events = events + 1".to_owned(), number, Wrong::BatchChanged),
            2 => (format!("digest = set_byte(digest, {byte}, get_byte(digest, {byte}) # 1)"), number, Wrong::BatchChanged),
            3 => (format!("rows = set_byte(rows, {byte}, get_byte(rows, {byte}) # 1)"), number, Wrong::BatchChanged),
            4 => (format!("head = set_byte(head, {byte}, get_byte(head, {byte}) # 1)"), number, Wrong::BatchChanged),
            5 => ("closed_at = closed_at - interval '1 day'".to_owned(), number, Wrong::BatchChanged),
            // As if they had been pruned.
            6 => ("rows = null, pruned = sha256(head)".to_owned(), number, Wrong::NotPruned),
            7 => (format!("number = {BATCHES} + 2"), number, Wrong::BatchMissing),
            _ => ("exchanged".to_owned(), number.min(other), Wrong::BatchChanged),
        };
        if what == "exchanged" {
            bench
                .run(&format!(
                    "drop table if exists pair; create temporary table pair as select * from audit_batches where number in ({number}, {other});
                     delete from audit_batches where number in ({number}, {other});
                     update pair set number = {number} + {other} - number;
                     insert into audit_batches table pair"
                ))
                .await;
        } else {
            assert_eq!(bench.touch(&format!("update audit_batches set {what} where number = {number}")).await, 1);
        }
        let found = bench.chained.found(&[]).await;
        assert_eq!(found, Some(Finding { batch: of, event: None, wrong }), "{what} of batch {number}, SEED={}", bench.seed);
        bench.restore().await;
    }
}

#[tokio::test]
async fn a_tail_that_was_cut_off_is_found_with_a_checkpoint() {
    let mut bench = Bench::new().await;
    for time in 0..TIMES {
        let left = bench.chance.random_range(0..BATCHES);
        let known = bench.chance.random_range(left + 1..=BATCHES);
        let last_id = if left == 0 { 0 } else { bench.checkpoints[left - 1].last_event };
        bench.run(&format!("delete from audit_batches where number > {left}")).await;
        if bench.chance.random() {
            bench.run(&format!("delete from audit_events where id > {last_id}")).await;
        }
        let checkpoint = [bench.checkpoints[known - 1].clone()];
        assert_eq!(bench.chained.found(&[]).await, None, "without one it looks whole");
        let cut = Finding { batch: known as i64, event: None, wrong: Wrong::CutOff };
        assert_eq!(bench.chained.found(&checkpoint).await, Some(cut), "SEED={}", bench.seed);
        if time % 5 == 0 {
            // The service goes on with what it finds: other batches under the same numbers.
            for _ in left..BATCHES {
                bench.chained.write(2).await;
                bench.chained.close().await;
            }
            let rewritten = Finding { batch: known as i64, event: None, wrong: Wrong::Rewritten };
            assert_eq!(bench.chained.found(&checkpoint).await, Some(rewritten), "SEED={}", bench.seed);
        }
        bench.restore().await;
    }
}

impl Bench {
    /// Edits a row, and makes every list, digest and head fit, with this key; the number of its batch.
    async fn rewrite(&mut self, hmac: impl Fn(&[u8]) -> [u8; 32]) -> i64 {
        let (id, edited) = self.some_row();
        assert_eq!(self.touch(&format!("update audit_events set actor = 'key:payments/innocent' where id = {id}")).await, 1);
        let (mut from, mut previous) = (i64::MIN, [0; 32]);
        for batch in self.chained.store.audit_batches(0, 100).await.expect("batches") {
            let mut list = RowList::default();
            for row in self.chained.store.audit_rows(from, batch.last_id, 100).await.expect("rows") {
                list.push(row.id, &sha256(&row_bytes(row.id, &row.fields)));
            }
            let made = Batch {
                number: batch.number,
                last_id: batch.last_id,
                events: batch.events,
                digest: sha256(list.as_bytes()),
                closed_at: batch.closed_at,
            };
            previous = hmac(&made.bytes(&previous));
            from = batch.last_id + 1;
            sqlx::query("update audit_batches set digest = $2, rows = $3, head = $4 where number = $1")
                .bind(batch.number)
                .bind(made.digest.as_slice())
                .bind(list.as_bytes())
                .bind(previous.as_slice())
                .execute(&mut self.connection)
                .await
                .expect("rewrites");
        }
        edited
    }

    /// The chain's key, as who has a master key gets at it.
    async fn key(&self) -> Key {
        let row = sqlx::query("select id from audit_keys").fetch_one(&mut self.chained.database.connect().await).await;
        let id: Uuid = row.expect("one key").get(0);
        let row = self.chained.store.audit_key(id).await.expect("reads").expect("is there");
        self.chained.master.unwrap(Uuid::nil(), &id.to_string(), &row.wrapped).await.expect("unwraps")
    }
}

#[tokio::test]
async fn everything_rewritten_without_the_key() {
    let mut bench = Bench::new().await;
    for _ in 0..TIMES {
        let own: [u8; 32] = random_bytes();
        if bench.chance.random() {
            bench.rewrite(|bytes| hmac_sha256(&own, bytes)).await;
        } else {
            bench.rewrite(sha256).await;
        }
        let found = bench.chained.found(&[]).await;
        assert_eq!(found, Some(Finding { batch: 1, event: None, wrong: Wrong::BatchChanged }), "SEED={}", bench.seed);
        bench.restore().await;
    }
}

#[tokio::test]
async fn everything_rewritten_with_the_key_is_found_with_a_checkpoint() {
    let mut bench = Bench::new().await;
    let key = bench.key().await;
    for _ in 0..TIMES {
        let edited = bench.rewrite(|bytes| key.hmac(bytes)).await;
        assert_eq!(bench.chained.found(&[]).await, None, "without one it looks whole");
        let known = bench.chance.random_range(edited..=BATCHES as i64);
        let checkpoint = [bench.checkpoints[known as usize - 1].clone()];
        let rewritten = Finding { batch: known, event: None, wrong: Wrong::Rewritten };
        assert_eq!(bench.chained.found(&checkpoint).await, Some(rewritten), "SEED={}", bench.seed);
        bench.restore().await;
    }
    assert_eq!(bench.chained.found(&bench.checkpoints).await, None, "restored, it is whole");
}
