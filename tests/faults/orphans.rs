//! Several brokers, several teams and a person use one JFrog as one user, and answers are lost: what is left over is found and
//! revoked, and nothing else is touched.

use std::{collections::HashMap, time::Duration};

use reqwest::Method;
use serde_json::json;
use token_broker::dev::simulator::{Fault, Filter, Route, Rule, Simulator, TokenView};
use uuid::Uuid;

use crate::app::{
    Answer, Client, TestApp, TestDatabase,
    jfrog::{both_active, chain_ids, made_by_hand, sorted},
    process::Replica,
};

const USER: &str = "shared-user";
/// Each meets each token once.
const CRASHES: [&str; 3] = ["answered:kill", "journaled:kill", "answered:kill:2"];

/// One token with its team's admin.
struct Held<'a> {
    app: &'a TestApp,
    admin: Client,
    name: &'static str,
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_of_every_broker_are_found_and_nothing_of_anybody_else_is_touched() {
    let _alone = crate::ONE_AT_A_TIME.lock().await;
    let one = TestApp::start().await;
    let other = TestApp::start_at(TestDatabase::new().await, one.simulator.clone()).await;
    one.platform.post("/teams", json!({"name": "billing"})).await.expect(201);
    let billing = one.team_key("billing", "admin", json!({"role": "admin"})).await;
    let held = [
        Held { app: &one, admin: one.admin.clone(), name: "x" },
        Held { app: &one, admin: one.admin.clone(), name: "y" },
        Held { app: &one, admin: billing, name: "x" },
        Held { app: &other, admin: other.admin.clone(), name: "x" },
    ];
    for token in &held {
        let identity_token = one.simulator.identity_token(USER);
        let body = json!({"name": token.name, "reuse_for": 1, "identity_token": identity_token});
        token.admin.post("/tokens", body).await.expect(201);
    }
    let persons = look_alikes(&one.simulator).await;

    let loses = |route| Rule { route: Filter::Only(route), probability: 0.4, ..Rule::always(Fault::DropResponseAfterCommit) };
    for crash in CRASHES {
        one.simulator.fault(loses(Route::Create));
        one.simulator.fault(loses(Route::Refresh));
        futures_util::future::join_all(held.iter().map(Held::refreshes)).await;
        one.simulator.clear_faults();
        futures_util::future::join_all(held.iter().map(|token| token.dies(crash))).await;
    }
    for token in &held {
        token.whole().await;
    }
    at_rest(&held, &persons, &one.simulator).await;
    let orphans = orphans(&one.simulator);
    println!("{orphans} orphans of four tokens of three teams of two brokers, all found; {} pairs beside them", persons.len());
    assert!(orphans >= 2 * held.len(), "each crash with the answer in memory alone leaves one: {orphans}");

    // A delete finds by the same marks.
    held[0].admin.delete("/tokens/x").await.expect(204);
    at_rest(&held[1..], &persons, &one.simulator).await;
}

/// What a person made as the same user: beside it, and looking as if it were a broker's.
async fn look_alikes(simulator: &Simulator) -> Vec<String> {
    let mut persons = vec![made_by_hand(simulator, USER, "made by hand").await];
    for token in simulator.tokens().into_iter().filter(|token| !token.identity) {
        let Some((installation, id, chain)) = marker_of(&token.description) else { continue };
        let (marker, another) = (format!("tb:{installation}:{id}:{chain}"), Uuid::new_v4());
        for description in [
            format!("tb:{installation}:{another}:{chain}"),
            format!("tb:{another}:{id}:{chain}"),
            format!("tb:{installation}:{id}:c"),
            format!("tb:{installation}:{id}:"),
            format!("tb:{installation}:{id}"),
            format!("{marker}b"),
            format!("{marker}-old"),
            format!("{marker}:2"),
            format!("{marker},"),
            format!("copy of {marker}"),
            format!("\"{marker}\""),
            marker.to_uppercase(),
        ] {
            persons.push(made_by_hand(simulator, USER, &description).await);
        }
    }
    let id = |pair: Option<serde_json::Value>| pair.expect("an answer")["token_id"].as_str().expect("an id").to_owned();
    persons.into_iter().map(id).collect()
}

impl Held<'_> {
    /// Rotations whose answers are lost now and then, and those of the heals too.
    async fn refreshes(&self) {
        for _ in 0..8 {
            let answer = self.admin.refresh(self.name, json!({"max_age": 0, "wait": 1})).await;
            assert!([200, 503].contains(&answer.status), "{}", answer.text);
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }

    /// A replica dies with the answer in its memory, or in its journal, and comes back later.
    async fn dies(&self, fault: &str) {
        self.whole().await;
        let journal = tempfile::tempdir().expect("a directory");
        let dying = Replica::armed(self.app, journal.path(), fault).await;
        let client = dying.client(&self.admin);
        let path = format!("/tokens/{}/refresh", self.name);
        let mut died = false;
        for _ in 0..20 {
            let request = client.request(Method::POST, &path).json(&json!({"max_age": 0, "wait": 5}));
            died = died || Answer::try_of(request).await.is_err();
            if died {
                break;
            }
        }
        assert!(died, "{fault}: {}", dying.log());
        self.whole().await;
        let mut back = Replica::start(self.app, journal.path(), "info").await;
        assert!(back.terminate(), "exit code 0");
        self.whole().await;
    }

    async fn whole(&self) -> Vec<String> {
        let mut token = json!(null);
        for _ in 0..200 {
            token = self.admin.get(&format!("/tokens/{}", self.name)).await.expect(200).json;
            if both_active(&token) {
                return chain_ids(&token);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it never is whole: {token:#}");
    }
}

/// After `reuse_for` and a lease: what lives is what is registered and the person's, and nobody touched another's.
async fn at_rest(held: &[Held<'_>], persons: &[String], simulator: &Simulator) {
    let (mut alive, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        ours = persons.to_vec();
        for token in held {
            ours.extend(token.whole().await);
        }
        ours = sorted(ours);
        alive = held[0].app.alive();
        if alive == ours {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(alive, ours);
    nothing_else_was_touched(simulator);
    for call in simulator.calls().into_iter().filter(|call| call.route != Route::Create) {
        for id in [call.token_id, call.target_token_id].into_iter().flatten() {
            assert!(!persons.contains(&id.to_string()), "the person's own: {call:#?}");
        }
    }
}

/// Pairs that were revoked by another pair: what nobody had any more.
fn orphans(simulator: &Simulator) -> usize {
    let revoked = simulator.calls().into_iter().filter(|call| call.route == Route::Revoke && call.committed);
    revoked.filter(|call| call.token_id != call.target_token_id).count()
}

/// Installation, token and chain of exactly a marker, as `src/broker/marker.rs` writes it.
pub(super) fn marker_of(description: &str) -> Option<(Uuid, Uuid, String)> {
    let marker = description.split(' ').next()?.strip_prefix("tb:")?;
    let [installation, token, chain] = marker.split(':').collect::<Vec<_>>()[..] else { return None };
    let written = |uuid: &str| uuid.parse::<Uuid>().ok().filter(|parsed| parsed.to_string() == uuid);
    ["a", "b"].contains(&chain).then_some((written(installation)?, written(token)?, chain.to_owned()))
}

/// Fails the test if any pair was revoked or refreshed by another than itself, unless it bears the marker of a token of ours, and of
/// the same as the one that did it; an identity token or a pair that was imported bears none.
pub(super) fn nothing_else_was_touched(simulator: &Simulator) {
    let tokens: HashMap<Uuid, TokenView> = simulator.tokens().into_iter().map(|token| (token.token_id, token)).collect();
    for call in simulator.calls().into_iter().filter(|call| [Route::Revoke, Route::Refresh].contains(&call.route)) {
        let Some((bearer, target)) = call.token_id.zip(call.target_token_id) else { continue };
        let (bearer, target) = (&tokens[&bearer], &tokens[&target]);
        let (by, of) = (marker_of(&bearer.description), marker_of(&target.description));
        let same = by.clone().zip(of.clone()).is_some_and(|(by, of)| (by.0, by.1) == (of.0, of.1));
        let fine = bearer.token_id == target.token_id || same || by.is_none() && of.is_some();
        assert!(fine, "{:?} of {target:#?} by {bearer:#?}", call.route);
    }
}
