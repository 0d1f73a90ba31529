//! Whether what was read of who may do what still holds, without reading it again.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What the listening connection vouches for.
#[derive(Debug, Default)]
pub struct Assurance(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the connection was last asked a question that it answered: of what was changed before, it had told by then.
    heard: Option<Instant>,
    /// When it last told of a change, or began to listen.
    changed: Option<Instant>,
    /// When this process last made one.
    changed_here: Option<Instant>,
}

impl Assurance {
    /// Whether what was read from `begun` on still holds: it is newer than a change may take to be felt, or the change would have been
    /// heard of. What this process changed itself is felt at once.
    pub fn holds(&self, begun: Instant, felt_within: Duration) -> bool {
        let state = self.state();
        if state.changed_here.is_some_and(|changed| changed >= begun) {
            return false;
        }
        if begun.elapsed() < felt_within {
            return true;
        }
        // A change that was heard of after the reading began was perhaps not read.
        state.heard.is_some_and(|heard| heard.elapsed() < felt_within) && state.changed.is_some_and(|changed| changed < begun)
    }

    /// The connection begins to listen: of what was changed before, it tells nothing.
    pub(super) fn begun(&self, asked: Instant) {
        let mut state = self.state();
        (state.heard, state.changed) = (Some(asked), Some(Instant::now()));
    }

    /// It answered a question that was asked then.
    pub(super) fn heard(&self, asked: Instant) {
        self.state().heard = Some(asked);
    }

    /// It told that something has changed.
    pub(super) fn changed(&self) {
        self.state().changed = Some(Instant::now());
    }

    /// This process has changed something.
    pub(super) fn changed_here(&self) {
        self.state().changed_here = Some(Instant::now());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ago(milliseconds: u64) -> Instant {
        Instant::now().checked_sub(Duration::from_millis(milliseconds)).expect("the machine is up for longer")
    }

    fn assurance(heard: Option<u64>, changed: Option<u64>) -> Assurance {
        Assurance(Mutex::new(State { heard: heard.map(ago), changed: changed.map(ago), changed_here: None }))
    }

    #[test]
    fn without_a_connection_a_reading_holds_for_a_second() {
        for none in [assurance(None, None), assurance(Some(1500), Some(60_000)), assurance(None, Some(60_000))] {
            assert!(none.holds(ago(500), SECOND));
            assert!(!none.holds(ago(1500), SECOND));
        }
    }

    #[test]
    fn with_one_it_holds_until_a_change_is_heard_of() {
        let assurance = assurance(Some(300), Some(60_000));
        assert!(assurance.holds(ago(30_000), SECOND));
        assert!(!assurance.holds(ago(90_000), SECOND), "it was read before the connection listened");
        assurance.changed();
        assert!(!assurance.holds(ago(30_000), SECOND));
        assert!(assurance.holds(ago(10), SECOND), "another process' change has its time");
        assurance.changed_here();
        assert!(!assurance.holds(ago(10), SECOND), "its own has none");
        std::thread::sleep(Duration::from_millis(1));
        assert!(assurance.holds(Instant::now(), SECOND));
    }

    #[test]
    fn a_connection_that_begins_anew_vouches_for_nothing_earlier() {
        let assurance = assurance(Some(300), Some(60_000));
        assurance.begun(Instant::now());
        assert!(!assurance.holds(ago(30_000), SECOND));
    }
}
