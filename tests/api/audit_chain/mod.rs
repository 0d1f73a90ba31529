//! Tamper evidence: what is closed, what is found by `audit verify`, what may be pruned.

mod closing;
mod command;
mod pruning;
mod rights;
mod service;
mod tampering;

use std::time::Duration;

use token_broker::{
    audit::{Checkpoint, Finding},
    broker::{AuditChain, Closed, Keys, Verified},
    crypto::MasterKeys,
    store::Store,
};

use crate::app::{TestDatabase, some_master_key};

/// A chain without a service that adds to it.
struct Chained {
    database: TestDatabase,
    store: Store,
    master: MasterKeys,
    master_keys: String,
}

impl Chained {
    async fn new() -> Self {
        Self::on(TestDatabase::new().await).await
    }

    async fn on(database: TestDatabase) -> Self {
        let master_keys = some_master_key("k1");
        let read = || MasterKeys::parse(&master_keys).expect("keys");
        let store = Store::connect(database.url().parse().expect("a URL"), 4).await.expect("connects");
        Keys::open(read(), &store, Duration::from_secs(60)).await.expect("the first use of the key");
        Self { store, master: read(), database, master_keys: master_keys.clone() }
    }

    /// A chain of so many batches, with gaps between the ids in and around each.
    async fn of(batches: usize) -> Self {
        let chained = Self::new().await;
        for _ in 0..batches {
            chained.write(4).await;
            chained.write(5).await;
            chained.close().await;
        }
        chained
    }

    fn chain(&self) -> AuditChain<'_> {
        AuditChain::new(&self.store, &self.master)
    }

    /// Rows of several teams and of none, with and without what may be null, behind a gap as a statement that failed leaves it.
    async fn write(&self, rows: usize) {
        self.database
            .run(&format!(
                "select nextval(pg_get_serial_sequence('audit_events', 'id'));
                 insert into audit_events (team_id, actor, recognised_by, action, outcome, reason, token_id, token_name, jfrog_token_id,
                                           fingerprint, generation, request_id, address, detail)
                 select case when n % 3 > 0 then gen_random_uuid() end, 'key:payments/ci-' || n, jsonb_build_object('type', 'api-key', 'n', n),
                        'test.event', (array['done', 'refused', 'failed'])[n % 3 + 1], case when n % 3 > 0 then 'because' end,
                        case when n % 2 = 0 then gen_random_uuid() end, case when n % 2 = 0 then 'deploy' end,
                        case when n % 4 = 0 then gen_random_uuid()::text end, case when n % 4 = 0 then md5(n::text) end,
                        case when n % 2 = 0 then n end, md5(random()::text), '127.0.0.1', case when n % 2 > 0 then '{{\"a\": [1.0, null]}}'::jsonb end
                 from generate_series(1, {rows}) n"
            ))
            .await;
    }

    async fn close(&self) -> Checkpoint {
        match self.chain().close().await.expect("it closes") {
            Closed::Batch { checkpoint, .. } => checkpoint,
            other => panic!("nothing was closed: {other:?}"),
        }
    }

    async fn verify(&self, checkpoints: &[Checkpoint]) -> Verified {
        self.chain().verify(checkpoints).await.expect("it can be told")
    }

    async fn found(&self, checkpoints: &[Checkpoint]) -> Option<Finding> {
        self.verify(checkpoints).await.finding
    }

    async fn is_whole(&self, batches: i64) {
        let seen = self.verify(&[]).await;
        assert_eq!((seen.finding, seen.batches), (None, batches));
    }
}

#[tokio::test]
async fn what_nobody_touched_is_whole_while_more_is_written() {
    let chained = Chained::of(3).await;
    let checkpoints = [chained.chain().verify(&[]).await.expect("whole").newest.expect("three")];
    for batches in 4..8 {
        chained.write(6).await;
        let seen = chained.verify(&checkpoints).await;
        assert_eq!((seen.finding, seen.batches, seen.events, seen.unclosed), (None, batches - 1, 27 + (batches - 4) * 6, 6));
        let checkpoint = chained.close().await;
        let seen = chained.verify(&checkpoints).await;
        assert_eq!((seen.finding, seen.unclosed, seen.newest), (None, 0, Some(checkpoint)));
    }
    assert_eq!(chained.chain().close().await.expect("it looks"), Closed::Nothing);
}

#[tokio::test]
async fn a_row_reads_the_same_whatever_the_session_and_the_database_are_set_to() {
    let chained = Chained::of(1).await;
    let name = chained.database.text("select current_database()").await;
    for setting in
        ["timezone = 'Asia/Kathmandu'", "datestyle = 'SQL, DMY'", "intervalstyle = 'iso_8601'", "bytea_output = 'escape'"]
    {
        chained.database.run(&format!("alter database {name} set {setting}")).await;
    }
    let elsewhere = Store::connect(chained.database.url().parse().expect("a URL"), 1).await.expect("connects");
    let seen = AuditChain::new(&elsewhere, &chained.master).verify(&[]).await.expect("it can be told");
    assert_eq!((seen.finding, seen.events), (None, 9));
}

#[tokio::test]
async fn more_rows_than_fit_into_a_batch_make_several() {
    let chained = Chained::new().await;
    chained.write(12_000).await;
    let mut sizes = Vec::new();
    while let Closed::Batch { checkpoint, more } = chained.chain().close().await.expect("it closes") {
        assert_eq!(more, checkpoint.events == 5000);
        sizes.push(checkpoint.events);
    }
    assert_eq!(sizes, [5000, 5000, 2000]);
    let seen = chained.verify(&[]).await;
    assert_eq!((seen.finding, seen.events), (None, 12_000));
}
