//! A dead JFrog is probed, not hammered: after failures in a row, calls to that instance are not sent for a while; then one is let
//! through to find out. And where JFrog says how long it wants to be left alone, it is. Nothing is lost by it: what is not sent is
//! not spent.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Failures in a row that open the circuit.
const PATIENCE: u32 = 5;
/// The first pause; each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause that failures make.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The circuits of all instances, by name.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<HashMap<String, Circuit>>);

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// An answer, whatever it said.
    Answer,
    /// No connection, silence, 5xx, or a rate limit without a time.
    Failure,
    /// JFrog asks to be left alone for so long.
    Wait(Duration),
}

#[derive(Debug, Default)]
struct Circuit {
    failures: u32,
    /// As JFrog asked: no answer to an earlier call ends it.
    left_alone_until: Option<Instant>,
    closed_again_at: Option<Instant>,
}

impl Breaker {
    /// Whether a call may be sent now; else how long to wait. Whoever is let through after a pause is the probe: the others wait on.
    pub(super) fn admit(&self, instance: &str, now: Instant) -> Result<(), Duration> {
        let mut circuits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(circuit) = circuits.get_mut(instance) else { return Ok(()) };
        if let Some(at) = circuit.left_alone_until.filter(|at| *at > now) {
            return Err(at - now);
        }
        match circuit.closed_again_at {
            Some(at) if at > now => Err(at - now),
            Some(_) => {
                circuit.closed_again_at = Some(now + pause(circuit.failures));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Takes down what came of a call.
    pub(super) fn record(&self, instance: &str, heard: Heard, now: Instant) {
        let mut circuits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // As many circuits as configured instances.
        let circuit = circuits.entry(instance.to_owned()).or_default();
        match heard {
            Heard::Answer => (circuit.failures, circuit.closed_again_at) = (0, None),
            Heard::Wait(wait) => circuit.left_alone_until = circuit.left_alone_until.max(Some(now + wait)),
            Heard::Failure => {
                circuit.failures = circuit.failures.saturating_add(1);
                if circuit.failures >= PATIENCE {
                    circuit.closed_again_at = Some(now + pause(circuit.failures));
                }
            }
        }
    }
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(PATIENCE).min(5);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn failures_in_a_row_open_the_circuit_and_one_probe_closes_it() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..PATIENCE {
            assert_eq!(breaker.admit("main", start), Ok(()));
            breaker.record("main", Heard::Failure, start);
        }
        assert_eq!(breaker.admit("main", start), Err(seconds(2)));
        assert_eq!(breaker.admit("eu", start), Ok(()), "another instance is another circuit");
        assert_eq!(breaker.admit("main", start + seconds(2)), Ok(()), "the probe");
        assert_eq!(breaker.admit("main", start + seconds(2)), Err(seconds(2)), "one at a time");
        breaker.record("main", Heard::Failure, start + seconds(2));
        assert_eq!(breaker.admit("main", start + seconds(3)), Err(seconds(3)), "the pause grows");
        breaker.record("main", Heard::Answer, start + seconds(6));
        assert_eq!(breaker.admit("main", start + seconds(6)), Ok(()));
    }

    #[test]
    fn a_failure_between_answers_opens_nothing() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..20 {
            breaker.record("main", Heard::Failure, start);
            breaker.record("main", Heard::Answer, start);
        }
        assert_eq!(breaker.admit("main", start), Ok(()));
    }

    #[test]
    fn who_asks_to_be_left_alone_is_for_as_long_as_asked_whatever_else_is_heard() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        breaker.record("main", Heard::Wait(seconds(17)), start);
        breaker.record("main", Heard::Wait(seconds(3)), start);
        breaker.record("main", Heard::Answer, start);
        assert_eq!(breaker.admit("main", start + seconds(16)), Err(seconds(1)));
        assert_eq!(breaker.admit("eu", start), Ok(()));
        assert_eq!(breaker.admit("main", start + seconds(17)), Ok(()));
    }

    #[test]
    fn the_pause_has_an_end() {
        assert_eq!((pause(5), pause(6), pause(1_000)), (seconds(2), seconds(4), seconds(60)));
    }
}
