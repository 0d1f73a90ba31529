//! The broker on two hosts: the real binary twice, one Postgres, a journal each.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use token_broker::dev::simulator::{OldAccessToken, Route, Rule};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::schedule::{Caller, Fate, Moment, Round, Store};
use crate::app::{
    Client, TestApp,
    journal::{PENDING, entries},
    process::Replica,
};

/// A heal waits for a lease of three seconds; everything else is start-up and a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);
/// Hosts take longer to start than most rounds.
const ROUNDS_IN_TURN: usize = 6;

/// Postgres has no room for exactly what the save writes.
const REFUSE: &str = "create function refuse() returns trigger language plpgsql as
                          $$ begin raise exception 'no space left' using errcode = 'disk_full'; end $$;
                      create trigger refuse before update of access_token on chains for each row execute function refuse();";
const REMEMBER: &str = "create table kept_tokens as select * from tokens; create table kept_chains as select * from chains;";
/// Everything is as it was, and all connections are gone, as after a failover.
const FORGET: &str = "begin;
                      delete from tokens;
                      insert into tokens select * from kept_tokens; insert into chains select * from kept_chains;
                      commit;
                      select pg_terminate_backend(pid) from pg_stat_activity
                      where datname = current_database() and application_name = 'token-broker';";

struct Hosts {
    app: TestApp,
    journals: [TempDir; 2],
    replicas: [Replica; 2],
    admins: [Client; 2],
}

/// Whether the token was lost, round by round.
pub(super) async fn play(rounds: &[Round], old_access_token: OldAccessToken, room: &Semaphore) -> Vec<bool> {
    let (struck, unharmed): (Vec<_>, Vec<_>) = rounds.iter().enumerate().partition(|(_, round)| round.caller.0.is_some());
    // A replica that is to die or to stall has hosts of its own; of the other rounds, some follow one another on the same ones.
    let games = unharmed.chunks(ROUNDS_IN_TURN).chain(struck.chunks(1)).map(|rounds| async move {
        let _place = room.acquire().await.expect("it is never closed");
        let mut hosts = Hosts::start(rounds, old_access_token).await;
        let mut lost = Vec::new();
        for &(number, round) in rounds {
            lost.push((number, hosts.lose(&token(number), round).await));
        }
        lost
    });
    let mut lost = join_all(games).await.concat();
    lost.sort_unstable();
    lost.into_iter().map(|(_, lost)| lost).collect()
}

impl Hosts {
    /// With a token for each round.
    async fn start(rounds: &[(usize, &Round)], old_access_token: OldAccessToken) -> Self {
        let mut app = TestApp::start().await;
        app.simulator.knobs(|knobs| knobs.old_access_token = old_access_token);
        for (number, _) in rounds {
            app.register(&token(*number)).await;
        }
        // What follows is the replicas' alone.
        app.stop().await;
        let journals = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let first = async {
            match rounds.iter().find_map(|(_, round)| fault(round.caller)) {
                Some(fault) => Replica::armed(&app, journals[0].path(), &fault).await,
                None => Replica::start(&app, journals[0].path(), "info").await,
            }
        };
        let replicas: [Replica; 2] = tokio::join!(first, Replica::start(&app, journals[1].path(), "info")).into();
        let admins = [replicas[0].client(&app.admin), replicas[1].client(&app.admin)];
        Self { app, journals, replicas, admins }
    }

    /// One round; whether its token was lost.
    async fn lose(&mut self, token: &str, round: &Round) -> bool {
        match round.store {
            Store::Saves => {}
            Store::Refuses => self.app.database.run(REFUSE).await,
            Store::Forgets => self.app.database.run(REMEMBER).await,
        }
        if let Some(fault) = &round.jfrog {
            self.app.simulator.fault(Rule::once(fault.clone(), Route::Refresh));
        }
        let second = async {
            if let Some(delay) = round.second_after {
                sleep(delay).await;
                assert!(ask(&self.admins[1], token).await.is_some(), "{}: nothing happened to the second", round.name);
            }
        };
        let (answered, ()) = tokio::join!(ask(&self.admins[0], token), second);
        self.until(round, "met its fault", || self.app.simulator.faults().is_empty()).await;
        match round.store {
            Store::Saves => {}
            Store::Refuses => {
                self.until(round, "kept the pair in its journal", || self.pending() > 0).await;
                self.app.database.run("drop trigger refuse on chains").await;
            }
            Store::Forgets => {
                assert!(answered.as_ref().is_some_and(|answer| answer["refreshed"] == true), "it was saved: {answered:?}");
                self.app.database.run(FORGET).await;
            }
        }
        match round.caller.0 {
            Some((_, Fate::Killed)) => {
                self.until_it_is_dead(token).await;
                self.start_again().await;
            }
            // The other replica has mended the token meanwhile. (Or the machine is so busy that JFrog's answer did not come in time.)
            Some((_, Fate::Stalled)) => {
                let late =
                    || ["gave back a pair", "outcome=\"unknown\""].iter().any(|word| self.replicas[0].log().contains(word));
                self.until(round, "went on, and was too late", late).await;
            }
            None => assert!(answered.is_some(), "{}: it lives", round.name),
        }
        let rotated = self.can_rotate(token).await;
        let at_once = self.app.simulator.max_refreshes_in_flight();
        assert!(at_once <= 1, "{}: a refresh token was sent twice at the same time", round.name);
        if !rotated {
            println!("{}\n{}\n{}", round.name, self.replicas[0].log(), self.replicas[1].log());
        }
        !rotated
    }

    /// Where JFrog's answer came too late for the busy machine, the point was not reached: it is asked again.
    async fn until_it_is_dead(&self, token: &str) {
        let deadline = Instant::now() + PATIENCE;
        while ask(&self.admins[0], token).await.is_some() {
            assert!(Instant::now() < deadline, "it did not die: {}", self.replicas[0].log());
        }
    }

    /// As whatever runs it does, on the volume that it had.
    async fn start_again(&mut self) {
        self.replicas[0].kill();
        self.replicas[0] = Replica::start(&self.app, self.journals[0].path(), "info").await;
        self.admins[0] = self.replicas[0].client(&self.app.admin);
    }

    async fn until(&self, round: &Round, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "{}: it never {what}\n{}", round.name, self.replicas[0].log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Pairs that Postgres does not have yet.
    fn pending(&self) -> usize {
        entries(self.journals[0].path(), PENDING)
    }

    /// The oracle: a refresh for real by each replica, without a person.
    async fn can_rotate(&self, token: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        for admin in &self.admins {
            while !self.rotates(admin, token).await {
                if Instant::now() > deadline {
                    return false;
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
        true
    }

    async fn rotates(&self, admin: &Client, token: &str) -> bool {
        let before = self.app.simulator.refreshes();
        let answer = admin.refresh(token, json!({"max_age": 0, "wait": 5})).await;
        let rotated = answer.status == 200 && answer.json["refreshed"] == true && self.app.simulator.refreshes() > before;
        rotated && self.app.simulator.is_alive(answer.access_token())
    }
}

fn token(round: usize) -> String {
    format!("round-{round}")
}

/// The same moments, as `src/fault.rs` calls them.
fn fault(caller: Caller) -> Option<String> {
    let (moment, fate) = caller.0?;
    let point = match moment {
        Moment::Answered => "answered",
        Moment::Saving => "journaled",
        Moment::Saved => "committed",
    };
    let action = match fate {
        Fate::Killed => "kill",
        Fate::Stalled => "stall",
    };
    Some(format!("{point}:{action}"))
}

/// Asks for a rotation for real; what was answered, if anything.
async fn ask(admin: &Client, token: &str) -> Option<Value> {
    let request = admin.request(Method::POST, &format!("/tokens/{token}/refresh")).json(&json!({"max_age": 0, "wait": 4}));
    request.send().await.ok()?.json().await.ok()
}
