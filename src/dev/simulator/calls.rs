//! The log of calls: what a test counts.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use uuid::Uuid;

/// Calls kept; the counters go on.
const KEPT: usize = 100_000;

/// What kind of call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// POST tokens with `client_credentials`.
    Create,
    /// POST tokens with `refresh_token`.
    Refresh,
    /// DELETE of a token, by id or `me`.
    Revoke,
    /// GET tokens/me.
    Me,
    /// GET tokens/{id}.
    Get,
    /// GET tokens.
    List,
    /// Either ping.
    Ping,
    /// An address that does not exist.
    Other,
}

/// One call, logged when it ended.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    /// When it arrived, in milliseconds since 1970 on the simulator's clock.
    pub at_ms: i64,
    /// How long it took, in real milliseconds.
    pub duration_ms: u64,
    /// What it was.
    pub route: Route,
    /// The status answered; `None` (JSON `null`): the connection was dropped without an answer.
    pub status: Option<u16>,
    /// The bearer's user, when the bearer was accepted.
    pub user: Option<String>,
    /// The bearer's token, when the bearer was accepted.
    pub token_id: Option<Uuid>,
    /// The token that was refreshed, revoked or read.
    pub target_token_id: Option<Uuid>,
    /// The token that was made.
    pub new_token_id: Option<Uuid>,
    /// Whether it changed a token at the simulator, whatever was answered.
    pub committed: bool,
    /// The fault it met.
    pub fault: Option<super::Fault>,
}

/// Totals of one route since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counter {
    /// All calls.
    pub calls: usize,
    /// Calls that changed a token at the simulator.
    pub committed: usize,
    /// Calls answered with a 2xx.
    pub succeeded: usize,
    /// Calls whose connection was dropped without an answer.
    pub dropped: usize,
}

#[derive(Default)]
pub(super) struct CallLog {
    calls: VecDeque<Call>,
    counters: BTreeMap<Route, Counter>,
    /// Refreshes under way, by refresh token.
    in_flight: HashMap<String, usize>,
    max_in_flight: usize,
}

impl CallLog {
    pub(super) fn add(&mut self, call: Call) {
        let counter = self.counters.entry(call.route).or_default();
        counter.calls += 1;
        counter.committed += usize::from(call.committed);
        counter.succeeded += usize::from(call.status.is_some_and(|s| (200..300).contains(&s)));
        counter.dropped += usize::from(call.status.is_none());
        if self.calls.len() == KEPT {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    /// A refresh of this refresh token begins.
    pub(super) fn begin(&mut self, refresh_token: &str) {
        let count = self.in_flight.entry(refresh_token.to_owned()).or_default();
        *count += 1;
        self.max_in_flight = self.max_in_flight.max(*count);
    }

    /// A refresh that began has ended.
    pub(super) fn end(&mut self, refresh_token: &str) {
        if let Some(count) = self.in_flight.get_mut(refresh_token) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(refresh_token);
            }
        }
    }

    /// The last calls, oldest first.
    pub(super) fn last(&self, count: usize) -> Vec<Call> {
        let skipped = self.calls.len().saturating_sub(count);
        self.calls.iter().skip(skipped).cloned().collect()
    }

    pub(super) fn counters(&self) -> BTreeMap<Route, Counter> {
        self.counters.clone()
    }

    pub(super) fn refreshes(&self) -> usize {
        self.counters.get(&Route::Refresh).map_or(0, |c| c.committed)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.values().sum()
    }

    pub(super) fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }
}
