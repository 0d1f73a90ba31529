//! A model of the refresh protocol of DESIGN.md, every interleaving of which is visited: "A refresh", "Settle" and "Orphans".
//!
//! Read `state.rs` and `flow.rs` (what there is), `actions.rs` (what can happen), `steps.rs`, `sweep.rs`, `postgres.rs` and
//! `jfrog.rs` (what it does: the lines of `src/broker` and `src/store/attempts.rs`, one step wherever somebody else may come
//! between), `properties.rs` (what must hold), `broken.rs` (what is found out when a line is left out). `canonical.rs` makes equal
//! states one.
//!
//! Modelled: two replicas with a flow and a journal each; one token with two chains (or one); JFrog, which kills the old access
//! token with each rotation (or not); a person's token beside ours. Rotations without end. Failures: a crash at any step with a
//! restart at any time or never; a call that is given up, and executed at once, later or never; an owner that is stalled beyond
//! its lease, with the request or the answer in hand; a replica that stands still between two lines while `reuse_for` goes by.
//! As many failures as the run says may come together; once the token is at rest again, as many may come again. In a run of its
//! own, others revoke one of our chains at JFrog while the token is at rest.
//!
//! Not modelled: registering, deleting, `recreate`, import; a Postgres that fails over, a disk that fails; refusals of JFrog
//! other than 404 and 401, and so a token that lives on one of its two chains; expiry, `max_age: 0`; calls that JFrog executes
//! after `reuse_for`. The order of jobs is free: a sweep may come before the heal that is due. That recovery comes to its end is
//! not modelled as time, but as a way: from everywhere there is one (`recovery.rs`).

mod actions;
mod broken;
mod canonical;
mod flow;
mod jfrog;
mod postgres;
mod properties;
mod recovery;
mod state;
mod steps;
mod sweep;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::{
    actions::Action,
    broken::Broken,
    properties::{CURRENT_KEPT, FORWARD, LEFT_ALIVE, LEFT_TO_OTHERS, NEVER_LOST, NO_ORPHAN, ROTATES, SAVED_FIRST, SENT_ONCE},
    recovery::states_and_a_dead_end,
    state::{Protocol, State},
};

/// As designed, with the worst JFrog.
const TWO_CHAINS: Protocol =
    Protocol { chains: 2, faults: 1, rotation_kills: true, reuse: true, answers_vanish: true, outsiders: false, broken: None };
/// The weaker promise: what JFrog made reaches a journal.
const ONE_CHAIN: Protocol = Protocol { chains: 1, reuse: false, answers_vanish: false, ..TWO_CHAINS };

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::registered(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        state.possible(self, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.apply(self, action);
        state.rename(self);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.promises()
    }
}

#[test]
fn with_two_chains_neither_one_failure_nor_two_lose_a_token_or_break_a_job() {
    for faults in [1, 2] {
        holds("two chains", Protocol { faults, ..TWO_CHAINS });
    }
}

#[test]
fn with_a_chain_that_others_revoke_a_failure_more_loses_no_token() {
    holds("two chains, revoked by others", Protocol { outsiders: true, ..TWO_CHAINS });
}

#[test]
fn with_one_chain_nothing_is_lost_that_reached_a_journal() {
    for faults in [1, 2] {
        holds("one chain", Protocol { faults, ..ONE_CHAIN });
    }
}

#[test]
fn with_one_chain_nothing_is_lost_at_all_while_old_access_tokens_live() {
    for faults in [1, 2] {
        let protocol = Protocol { faults, rotation_kills: false, answers_vanish: true, ..ONE_CHAIN };
        holds("one chain, old access tokens live", protocol);
    }
}

#[test]
fn from_everywhere_there_is_a_way_back_to_rest_without_luck() {
    let outsiders = Protocol { outsiders: true, ..TWO_CHAINS };
    for (name, protocol) in [("two chains", TWO_CHAINS), ("revoked by others", outsiders), ("one chain", ONE_CHAIN)] {
        let (states, dead_end) = states_and_a_dead_end(&protocol);
        println!("{name}: a way back to rest from each of {states} states");
        assert_eq!(dead_end, None, "{name}");
    }
    let (_, lost) = states_and_a_dead_end(&Protocol { answers_vanish: true, ..ONE_CHAIN });
    assert!(lost.is_some(), "a token that is lost is one: no way leads back");
}

#[test]
fn each_line_that_is_left_out_is_missed() {
    let in_pairs = Protocol { faults: 2, ..TWO_CHAINS };
    let table = [
        (Some(Broken::NoAttemptRow), TWO_CHAINS, SENT_ONCE),
        (Some(Broken::BeginWithoutALook), TWO_CHAINS, SENT_ONCE),
        (Some(Broken::NoFence), TWO_CHAINS, FORWARD),
        (Some(Broken::BlindRetry), TWO_CHAINS, SENT_ONCE),
        (Some(Broken::ReplyBeforeCommit), TWO_CHAINS, SAVED_FIRST),
        (Some(Broken::DiscardOnLostRace), ONE_CHAIN, NEVER_LOST),
        (Some(Broken::RevokeOnLostRace), TWO_CHAINS, CURRENT_KEPT),
        (Some(Broken::SecondChainInDoubt), TWO_CHAINS, LEFT_ALIVE),
        (Some(Broken::SecondChainInDoubt), Protocol { reuse: false, ..in_pairs }, NEVER_LOST),
        (Some(Broken::SweepWithoutMarker), TWO_CHAINS, LEFT_TO_OTHERS),
        (Some(Broken::NeverSweeps), TWO_CHAINS, NO_ORPHAN),
        (Some(Broken::ForgetsThatItWasSent), Protocol { faults: 2, ..ONE_CHAIN }, SENT_ONCE),
        (Some(Broken::SweepBesideALostChain), Protocol { outsiders: true, ..TWO_CHAINS }, ROTATES),
        // Why there are two chains.
        (None, Protocol { answers_vanish: true, ..ONE_CHAIN }, NEVER_LOST),
    ];
    for (broken, protocol, property) in table {
        let name = broken.map_or("OneChainOnly".to_owned(), |broken| format!("{broken:?}"));
        let Some(story) = shortest(Protocol { broken, ..protocol }, property) else {
            panic!("{name}: nobody noticed");
        };
        println!("{name} violates \"{property}\" in {} steps: {}", story.len(), story.join(", "));
    }
}

fn holds(name: &str, protocol: Protocol) {
    let began = Instant::now();
    let checked = protocol.checker().finish_when(HasDiscoveries::AnyFailures).threads(2).spawn_bfs().join();
    println!(
        "{name}, {} failures at a time: holds in {} states ({} steps between them, depth {}), {:.1} s",
        protocol.faults,
        checked.unique_state_count(),
        checked.state_count(),
        checked.max_depth(),
        began.elapsed().as_secs_f64()
    );
    checked.assert_properties();
}

/// The shortest way to where the property does not hold.
fn shortest(protocol: Protocol, property: &'static str) -> Option<Vec<String>> {
    // Stateright looks on for a while after the first find: it is asked again for a shorter one until there is none.
    let mut found = find(protocol, property, usize::MAX)?;
    while let Some(shorter) = find(protocol, property, found.len()) {
        found = shorter;
    }
    Some(found)
}

/// A way of fewer steps than `limit`.
fn find(protocol: Protocol, property: &'static str, limit: usize) -> Option<Vec<String>> {
    let finish = HasDiscoveries::AllOf([property].into());
    // Its depth counts states, and stops before the last.
    let checker = protocol.checker().finish_when(finish).target_max_depth(limit.saturating_add(1));
    let steps = checker.spawn_bfs().join().discovery(property)?.into_vec();
    Some(steps.into_iter().filter_map(|(state, action)| Some(action?.told(&state))).collect())
}
