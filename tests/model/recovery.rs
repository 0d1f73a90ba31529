//! Recovery has an end: from every state there is a way back to rest on which nothing more fails and nothing is rotated anew.
//! Stateright looks at states one by one; this looks at the ways between them.

use std::collections::HashMap;

use stateright::Model;

use crate::{
    actions::Action,
    flow::{Flow, Kind},
    state::{Protocol, State},
};

impl State {
    /// What is done to mend the token.
    pub(crate) fn mends(&self, protocol: &Protocol, action: Action) -> bool {
        match action {
            Action::Decide(_) => !matches!(self.plan(protocol), Some(Flow::Planned { kind: Kind::Rotate, .. })),
            Action::RevokedByOthers(_) => false,
            other => !other.is_fault(),
        }
    }
}

/// How many states there are, and one from which there is no way back.
pub(crate) fn states_and_a_dead_end(protocol: &Protocol) -> (usize, Option<State>) {
    let mut found: HashMap<State, usize> = HashMap::new();
    let mut states = protocol.init_states();
    let mut comes_from: Vec<Vec<usize>> = vec![Vec::new()];
    found.insert(states[0].clone(), 0);
    let mut next = 0;
    while next < states.len() {
        let state = states[next].clone();
        let mut actions = Vec::new();
        protocol.actions(&state, &mut actions);
        for action in actions {
            let after = protocol.next_state(&state, action).expect("each action changes something");
            let id = *found.entry(after.clone()).or_insert_with(|| {
                states.push(after);
                comes_from.push(Vec::new());
                states.len() - 1
            });
            if state.mends(protocol, action) {
                comes_from[id].push(next);
            }
        }
        next += 1;
    }
    let mut back: Vec<bool> = states.iter().map(State::at_rest).collect();
    let mut ways: Vec<usize> = (0..states.len()).filter(|id| back[*id]).collect();
    while let Some(id) = ways.pop() {
        for &before in &comes_from[id] {
            if !std::mem::replace(&mut back[before], true) {
                ways.push(before);
            }
        }
    }
    let dead_end = back.iter().position(|back| !back).map(|id| states[id].clone());
    (states.len(), dead_end)
}
