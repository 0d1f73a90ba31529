//! Pairs of a team that are committed together: each has its own outcome.

use std::time::Duration;

use futures_util::future::join_all;
use token_broker::{
    actor::Actor,
    names::Asked,
    secret::Sealed,
    store::{Attempt, ChainState, Committed, Lane, NewAttempt, NewPair, Store, TokenView},
};
use uuid::Uuid;

use crate::app::TestApp;

struct Desk {
    app: TestApp,
    store: Store,
    team: Uuid,
}

impl Desk {
    async fn open() -> Self {
        let app = TestApp::start().await;
        let store = Store::connect(app.database.url().parse().expect("a URL"), 2).await.expect("connects");
        let team = app.database.text("select id::text from teams where name = 'payments'").await.parse().expect("an id");
        Self { app, store, team }
    }

    async fn token(&self, name: &str) -> TokenView {
        self.store.token(self.team, name).await.expect("Postgres is there").expect("it is there")
    }

    /// As a replica would that rotates its first chain.
    async fn begin(&self, token: &TokenView) -> Option<Attempt> {
        let chain = token.chains.first().expect("two chains");
        let new = NewAttempt {
            id: Uuid::now_v7(),
            team_id: self.team,
            token_id: token.id,
            chain_id: chain.id,
            kind: "rotate",
            seen_generation: chain.generation,
            respect_rotatable_at: false,
            lease: Duration::from_secs(60),
            replica: Uuid::nil(),
            asked: Asked::default(),
            master_key: None,
        };
        self.store.begin_attempt(&new, &Actor::system()).await.expect("Postgres is there")
    }

    async fn commit(&self, attempt: &Attempt, pair: &NewPair) -> Result<Committed, String> {
        self.store
            .commit_pair(attempt, pair, None, &Actor::system())
            .await
            .map(|(committed, _)| committed)
            .map_err(|error| error.to_string())
    }
}

/// Sealed bytes as far as Postgres looks at them.
fn pair(fingerprint: &str, data_key: Option<Uuid>) -> NewPair {
    let sealed = match data_key {
        Some(key) => [b"\x01\x24".as_slice(), key.to_string().as_bytes(), b"sealed"].concat(),
        None => b"sealed".to_vec(),
    };
    NewPair {
        access_token: Sealed::from_bytes(sealed.clone()),
        refresh_token: Sealed::from_bytes(sealed),
        reference_token: None,
        jfrog_token_id: None,
        fingerprint: fingerprint.to_owned(),
        scope: None,
        subject: None,
        expires_in: Some(3600),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_of_one_token_that_come_together_are_committed_one_after_the_other() {
    let desk = Desk::open().await;
    for name in ["deploy", "release"] {
        desk.app.register(name).await;
    }
    let (deploy, release) = (desk.token("deploy").await, desk.token("release").await);
    let (one, other) = (desk.begin(&deploy).await.expect("begun"), desk.begin(&release).await.expect("begun"));
    let (mine, late, theirs) = (pair("mine", None), pair("late", None), pair("theirs", None));
    // The first has a statement of its own; the others wait for it, and share the next.
    let asked = [(&other, &theirs), (&one, &mine), (&one, &mine), (&one, &late)];
    let outcomes = join_all(asked.map(|(attempt, pair)| desk.commit(attempt, pair))).await;
    let (yes, superseded) = (Ok(Committed::Yes), Ok(Committed::Superseded));
    assert_eq!(outcomes, [yes.clone(), yes.clone(), yes, superseded]);
    let now = desk.token("deploy").await;
    let chain = now.chains.first().expect("two chains");
    assert_eq!((chain.fingerprint.as_deref(), chain.generation, chain.state), (Some("mine"), 2, ChainState::Active));
    assert_eq!((now.generation, now.attempt.is_none()), (deploy.generation + 1, true));
    let audited = desk.app.database.count("select count(*) from audit_events where action = 'chain.rotate'").await;
    assert_eq!(audited, 2, "one a pair");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_pair_is_refused_for_stops_no_other() {
    let desk = Desk::open().await;
    let (mut attempts, names) = (Vec::new(), ["deploy", "release", "nightly", "docs"]);
    for name in names {
        desk.app.register(name).await;
        attempts.push(desk.begin(&desk.token(name).await).await.expect("begun"));
    }
    // Sealed with a data key that is closed, or of nobody.
    let unknown = Some(Uuid::new_v4());
    let asked = attempts.iter().zip(names).map(|(attempt, name)| (attempt, pair(name, unknown.filter(|_| name == "nightly"))));
    let asked: Vec<_> = asked.collect();
    let outcomes = join_all(asked.iter().map(|(attempt, pair)| desk.commit(attempt, pair))).await;
    for (name, outcome) in names.iter().zip(outcomes) {
        match outcome {
            Err(error) => assert!(*name == "nightly" && error.contains("sealed_by_open_key"), "{name}: {error}"),
            committed => assert!(*name != "nightly" && committed == Ok(Committed::Yes), "{name}"),
        }
    }
    assert_eq!(desk.app.database.count("select count(*) from attempts").await, 1, "of the one that is to be sealed anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_many_look_at_together_is_seen_by_each_as_it_is() {
    let desk = Desk::open().await;
    for name in ["deploy", "release"] {
        desk.app.register(name).await;
    }
    let names = ["release", "deploy", "deploy", "release", "deploy"];
    let seen = join_all(names.map(async |name| (name, desk.token(name).await))).await;
    for (name, view) in seen {
        let letters: Vec<&str> = view.chains.iter().map(|chain| chain.letter.as_str()).collect();
        assert_eq!((view.name.as_str(), letters), (name, vec!["a", "b"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_attempts_on_one_token_that_begin_together_one_does() {
    let desk = Desk::open().await;
    for name in ["deploy", "release"] {
        desk.app.register(name).await;
    }
    let (deploy, release) = (desk.token("deploy").await, desk.token("release").await);
    let begun = join_all([&release, &deploy, &deploy, &deploy].map(|token| desk.begin(token))).await;
    let begun: Vec<bool> = begun.iter().map(Option::is_some).collect();
    assert!(begun[0], "another token's is its own matter");
    assert_eq!(begun[1..].iter().filter(|begun| **begun).count(), 1, "{begun:?}");
    assert_eq!(desk.app.database.count("select count(*) from jobs where kind = 'settle'").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_postponed_together_wait_for_nobody_who_has_one_of_them() {
    use sqlx::{Connection, Executor};
    let Desk { mut app, store, .. } = Desk::open().await;
    // Nobody else takes them.
    app.stop().await;
    let store = store.unhurried();
    let notices = "insert into jobs (kind, subject, due_at) select 'webhook', lpad(n::text, 32, '0')::uuid, now() from generate_series(1, 3) n";
    app.database.run(notices).await;
    let jobs = store.take_jobs(Lane::Notices, 3, Duration::from_secs(900)).await.expect("takes");
    assert_eq!(jobs.len(), 3);
    let by = |last: u128| jobs.iter().find(|job| job.subject.as_u128() == last).expect("taken").clone();
    app.database.run("update jobs set due_at = now() + interval '2 h' where subject = lpad('2', 32, '0')::uuid").await;
    let mut somebody = app.database.connect().await;
    let mut has_it = somebody.begin().await.expect("begins");
    has_it.execute("select from jobs where subject = lpad('3', 32, '0')::uuid for update").await.expect("locks");
    let (free, moved, locked) = (by(1), by(2), by(3));
    let later = Duration::from_secs(60);
    let together = async {
        tokio::try_join!(
            store.postpone_job(&locked, later, 4),
            store.postpone_job(&free, later, 5),
            store.postpone_job(&moved, later, 6)
        )
    };
    tokio::time::timeout(Duration::from_secs(5), together).await.expect("nobody is waited for").expect("postponed");
    drop(has_it);
    let now =
        "select string_agg(failures || ' in ' || round(extract(epoch from due_at - now()) / 60) || ' min', ', ' order by subject)
               from jobs where kind = 'webhook'";
    insta::assert_snapshot!(app.database.text(now).await, @"5 in 1 min, 0 in 120 min, 0 in 15 min");
}
