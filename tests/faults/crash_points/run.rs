//! One case, from the registration to the end.

use std::{path::Path, sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use token_broker::{
    dev::simulator::{Fault, Route},
    fault::Point,
};
use tokio_util::sync::CancellationToken;

use super::{
    case::{Action, Case, Flow, Replicas},
    rest,
    witness::Witness,
};
use crate::app::{Answer, Client, TIMING, TestApp, journal::until_pending, process::Replica};

/// Short, so that what was replaced is swept soon.
const REUSE_FOR: Duration = Duration::from_secs(1);
/// From the fault, or the restart, until the token is mended.
const MENDED_WITHIN: Duration = Duration::from_secs(15).saturating_add(TIMING.lease);
/// From there until nothing is left over at JFrog.
const REST_WITHIN: Duration = Duration::from_secs(25);

struct Scene<'a> {
    app: &'a TestApp,
    witness: Arc<Witness>,
    case: Case,
    /// JFrog's user, another in each case.
    user: String,
    journals: [TempDir; 2],
}

/// One case, on parts of an earlier one if they are given.
pub(super) async fn run(given: Option<TestApp>, case: Case) -> TestApp {
    let app = match given {
        Some(app) => app,
        None => parts().await,
    };
    app.simulator.knobs(|knobs| knobs.old_access_token = case.old);
    // A machine that is too busy to register a token tells nothing of the case.
    for _ in 0..5 {
        let user = format!("user-{}", app.simulator.tokens().len());
        // A delete is asked for so that nothing works any more.
        let works_for = if case.flow == Flow::Delete { Duration::ZERO } else { REUSE_FOR };
        let witness = Witness::new(&app, &user, works_for).await;
        let scene = Scene { app: &app, witness, case, user, journals: [directory(), directory()] };
        let set = match scene.set().await {
            Some(armed) => {
                scene.play(armed).await;
                true
            }
            None => false,
        };
        // The next one begins anew.
        scene.witness.run("with gone as (delete from jobs) delete from tokens").await;
        if set {
            return app;
        }
    }
    panic!("the token could not be registered");
}

/// A database with a team, and a simulator. Nobody serves there yet.
async fn parts() -> TestApp {
    let mut app = TestApp::start().await;
    app.stop().await;
    app
}

impl Scene<'_> {
    /// The armed replica, with a token, and whatever must have gone wrong before. `None`: the machine was too slow for it.
    async fn set(&self) -> Option<Replica> {
        let replica = self.launch(0, &[("TOKEN_BROKER_FAULT", &self.case.fault())]).await;
        let (admin, ci) = (replica.client(&self.app.admin), replica.client(&self.app.ci));
        if self.case.flow.has_token() {
            let registered = self.witness.ask(&admin, Method::POST, "/tokens", self.registration()).await?;
            if registered.status != 201 || self.witness.count(rest::MENDED).await != 1 {
                return None;
            }
            self.witness.refresh(&ci, json!({"max_age": 3600})).await?.expect(200);
        }
        if self.case.flow.is_in_background() {
            self.app.once(Fault::DropResponseAfterCommit, Route::Refresh);
            let uncertain = self.witness.refresh(&admin, json!({"max_age": 0})).await?.expect(200);
            if uncertain.json["warnings"] != json!(["refresh-uncertain"]) {
                self.app.simulator.clear_faults();
                return None;
            }
        }
        Some(replica)
    }

    fn registration(&self) -> Value {
        let identity_token = self.app.simulator.identity_token(&self.user);
        json!({"name": "deploy", "reuse_for": REUSE_FOR.as_secs(), "identity_token": identity_token})
    }

    async fn play(&self, mut first: Replica) {
        let case = &self.case;
        let mut second = None;
        // Whoever comes second must not do what the armed one is to do.
        if case.replicas == Replicas::Two && !case.flow.is_in_background() {
            second = Some(self.replica(1).await);
        }
        let asked = self.ask(first.client(&self.app.admin));
        until_logged(&first, "a fault goes off").await;
        if case.action == Action::Kill {
            until(|| first.has_ended(), "the end of the killed replica").await;
        }
        if case.replicas == Replicas::Two && second.is_none() {
            second = Some(self.replica(1).await);
        }
        if case.action == Action::Kill && second.is_none() {
            first = self.replica(0).await;
            self.replayed().await;
        }

        let serving = second.as_ref().unwrap_or(&first);
        let stop = CancellationToken::new();
        let watching = tokio::spawn(Arc::clone(&self.witness).watch(
            serving.client(&self.app.ci),
            // Alone, callers take what there is, so that it is seen what the failure itself has cost.
            case.replicas == Replicas::Two,
            case.flow.serves(),
            stop.clone(),
        ));
        let admin = serving.client(&self.app.admin);
        if case.flow == Flow::Delete {
            self.deleted(&admin).await;
        } else {
            rest::mended(&self.witness, MENDED_WITHIN).await;
        }
        if case.action == Action::Kill && second.is_some() {
            first = self.replica(0).await;
        }
        if case.action == Action::Stall {
            until_logged(&first, "the stall is over").await;
        }
        if let Some(answer) = asked.await.expect("the caller") {
            self.answered(&answer);
        }
        stop.cancel();
        watching.await.expect("it watched");

        let journals = [self.journal(0), self.journal(1)];
        rest::at_rest(&self.witness, &journals, REST_WITHIN).await;
        self.witness.look().await;
        if case.flow == Flow::Delete {
            assert_eq!(
                self.witness
                    .count("select (select count(*) from tokens) + (select count(*) from jobs where kind <> 'close-audit')")
                    .await,
                0
            );
        } else {
            rest::cost(&self.witness, case);
            rest::rotates(&self.witness, &admin, case).await;
        }
        rest::spent_once(&self.witness);
        self.witness.held();
    }

    /// The call that passes the point, if it is not the worker's.
    fn ask(&self, admin: Client) -> tokio::task::JoinHandle<Option<Answer>> {
        let (witness, flow) = (Arc::clone(&self.witness), self.case.flow);
        let (method, path, body) = match flow {
            Flow::Rotate => (Method::POST, "/tokens/deploy/refresh", json!({"max_age": 0, "wait": 20})),
            Flow::Create | Flow::CreateSecond => (Method::POST, "/tokens", self.registration()),
            Flow::Recreate | Flow::RecreateSecond => {
                let identity_token = self.app.simulator.identity_token(&self.user);
                (Method::POST, "/tokens/deploy/recreate", json!({"identity_token": identity_token}))
            }
            Flow::Delete => (Method::DELETE, "/tokens/deploy", Value::Null),
            Flow::Heal | Flow::Recover => return tokio::spawn(async { None }),
        };
        tokio::spawn(async move { witness.ask(&admin, method, path, body).await })
    }

    /// What the caller of the failed replica was told, if anything.
    fn answered(&self, answer: &Answer) {
        if self.case.flow == Flow::Rotate {
            assert_eq!(answer.status, 200, "a refresh hands out what there is: {}", answer.text);
        }
    }

    /// A pair in the journal is committed before the replica is ready again, with no other call to JFrog.
    async fn replayed(&self) {
        if self.case.point != Point::Journaled {
            return;
        }
        until_pending(self.journal(0), 0).await;
        // The others go on at once with what is missing still.
        if self.case.flow == Flow::Rotate {
            assert_eq!(self.witness.count(rest::MENDED).await, 1, "the pair is the current one at once");
        }
    }

    /// A delete that failed is repeated until it has worked.
    async fn deleted(&self, admin: &Client) {
        for _ in 0..MENDED_WITHIN.as_secs() * 4 {
            let answer = self.witness.ask(admin, Method::DELETE, "/tokens/deploy", Value::Null).await.expect("an answer");
            if answer.status == 204 || answer.status == 404 {
                return;
            }
            // Busy until the lease is over; or JFrog could not be told.
            assert!([409, 503].contains(&answer.status), "{}", answer.text);
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("it cannot be deleted");
    }

    async fn replica(&self, which: usize) -> Replica {
        self.launch(which, &[]).await
    }

    /// With few connections: the replicas of all cases share one Postgres.
    async fn launch(&self, which: usize, more: &[(&str, &str)]) -> Replica {
        let variables = [&[("RUST_LOG", "info"), ("TOKEN_BROKER_DATABASE_CONNECTIONS", "4")], more].concat();
        Replica::launch(self.app, self.journal(which), &variables).await.unwrap_or_else(|log| panic!("not ready: {log}"))
    }

    fn journal(&self, which: usize) -> &Path {
        self.journals[which].path()
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

async fn until_logged(replica: &Replica, what: &str) {
    until(|| replica.log().contains(what), what).await;
}

async fn until(mut holds: impl FnMut() -> bool, what: &str) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came: {what}");
}
