//! The broker on two hosts: the real binary twice, one Postgres, a journal each.

use std::{fs, time::Duration};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use token_broker::dev::simulator::{OldAccessToken, Route, Rule};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::schedule::{Caller, Fate, Moment, Round};
use crate::app::{Client, TestApp, process::Replica};

/// A heal waits for a lease of three seconds; everything else is start-up and a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);
/// Hosts take longer to start than most rounds.
const ROUNDS_IN_TURN: usize = 5;

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
        if round.store_refuses {
            self.refuse_saves().await;
        }
        if let Some(fault) = &round.jfrog {
            self.app.simulator.fault(Rule::once(fault.clone(), Route::Refresh));
        }
        let second = async {
            if let Some(delay) = round.second_after {
                sleep(delay).await;
                assert!(ask(&self.admins[1], token).await, "{}: nothing happened to the second", round.name);
            }
        };
        let (answered, ()) = tokio::join!(ask(&self.admins[0], token), second);
        assert!(self.app.simulator.faults().is_empty(), "{}: JFrog did it", round.name);
        if round.store_refuses {
            assert_eq!(self.pending(), 1, "the pair is in the journal only");
            self.app.database.run("drop trigger refuse on chains").await;
        }
        match round.caller.0 {
            Some((_, Fate::Killed)) => {
                assert!(!answered, "{}: it is dead", round.name);
                self.start_again().await;
            }
            Some((_, Fate::Stalled)) => self.wake_too_late().await,
            None => assert!(answered, "{}: it lives", round.name),
        }
        let rotated = self.can_rotate(token).await;
        let at_once = self.app.simulator.max_refreshes_in_flight();
        assert!(at_once <= 1, "{}: a refresh token was sent twice at the same time", round.name);
        if !rotated {
            println!("{}\n{}\n{}", round.name, self.replicas[0].log(), self.replicas[1].log());
        }
        !rotated
    }

    /// As whatever runs it does, on the volume that it had.
    async fn start_again(&mut self) {
        self.replicas[0].kill();
        self.replicas[0] = Replica::start(&self.app, self.journals[0].path(), "info").await;
        self.admins[0] = self.replicas[0].client(&self.app.admin);
    }

    /// Until the stalled task went on, and found that the other replica had mended the token meanwhile.
    async fn wake_too_late(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.replicas[0].log().contains("gave back a pair") {
            assert!(Instant::now() < deadline, "it never woke: {}", self.replicas[0].log());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Postgres has no room for exactly what the save writes.
    async fn refuse_saves(&self) {
        let refuse = "create function refuse() returns trigger language plpgsql as
                          $$ begin raise exception 'no space left' using errcode = 'disk_full'; end $$;
                      create trigger refuse before update of access_token on chains for each row execute function refuse();";
        self.app.database.run(refuse).await;
    }

    /// Pairs that Postgres does not have yet.
    fn pending(&self) -> usize {
        let files = fs::read_dir(self.journals[0].path()).expect("the journal").flatten();
        files.filter(|file| file.path().extension().is_some_and(|extension| extension == "pending")).count()
    }

    /// The oracle: a refresh for real, by either replica, without a person.
    async fn can_rotate(&self, token: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        for admin in self.admins.iter().cycle() {
            let before = self.app.simulator.refreshes();
            let answer = admin.refresh(token, json!({"max_age": 0, "wait": 5})).await;
            let rotated = answer.status == 200 && answer.json["refreshed"] == true && self.app.simulator.refreshes() > before;
            if rotated && self.app.simulator.is_alive(answer.access_token()) {
                return true;
            }
            if Instant::now() > deadline {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        false
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

/// Asks for a rotation for real; whether anything was answered.
async fn ask(admin: &Client, token: &str) -> bool {
    let request = admin.request(Method::POST, &format!("/tokens/{token}/refresh")).json(&json!({"max_age": 0, "wait": 2}));
    request.send().await.is_ok()
}
