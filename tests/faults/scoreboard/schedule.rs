//! What goes wrong: one fault a round, the same for every player, each round with a fresh token.

use std::time::Duration;

use token_broker::dev::simulator::Fault;

/// How long a stalled caller sleeps: as `src/fault.rs` makes a replica's task sleep, longer than every lock and lease here.
const STALL: Duration = Duration::from_secs(8);
/// By then each lock and lease that the stalled caller held is over, and it still sleeps.
const AFTER_THE_LEASE: Duration = Duration::from_secs(4);

/// One fault.
pub(super) struct Round {
    pub name: &'static str,
    /// What JFrog does to the first refresh.
    pub jfrog: Option<Fault>,
    /// What happens to the first caller.
    pub caller: Caller,
    /// A second caller comes so much later, on the other host.
    pub second_after: Option<Duration>,
    /// What the store does with the first caller's save.
    pub store: Store,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    Saves,
    Refuses,
    /// It said yes; then a standby took over that had not heard of it, or a backup was put back.
    Forgets,
}

/// Where a caller is struck, and how; `None`: it is not.
#[derive(Clone, Copy)]
pub(super) struct Caller(pub Option<(Moment, Fate)>);

/// Moments of a refresh that every player has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// JFrog's answer is in memory, and nowhere else.
    Answered,
    /// Half-way through the save.
    Saving,
    /// Saved; nobody was answered yet.
    Saved,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Killed,
    Stalled,
}

/// The caller is gone: nothing of it runs any more.
#[derive(Debug, thiserror::Error)]
#[error("killed")]
pub(super) struct Killed;

impl Caller {
    pub(super) const UNHARMED: Self = Self(None);

    /// Suffers what is due at this moment. Returning at once is what a kill looks like from inside: no line after it runs.
    pub(super) async fn reaches(self, moment: Moment) -> Result<(), Killed> {
        match self.0 {
            Some((at, Fate::Killed)) if at == moment => return Err(Killed),
            Some((at, Fate::Stalled)) if at == moment => tokio::time::sleep(STALL).await,
            _ => {}
        }
        Ok(())
    }
}

pub(super) fn rounds() -> Vec<Round> {
    let quiet = |name| Round { name, jfrog: None, caller: Caller::UNHARMED, second_after: None, store: Store::Saves };
    let jfrog = |name, fault| Round { jfrog: Some(fault), ..quiet(name) };
    let struck = |name, moment, fate| Round { caller: Caller(Some((moment, fate))), ..quiet(name) };
    vec![
        quiet("nothing"),
        jfrog("connection dropped before JFrog commits", Fault::DropBeforeCommit),
        jfrog("503", Fault::Unavailable),
        jfrog("502, an HTML page", Fault::BadGatewayHtml),
        // Longer than the broker's timeout for JFrog; the plain ones wait, as curl, Go and axios do unless told otherwise.
        jfrog("JFrog takes 3 s", Fault::DelayBeforeCommit { ms: 3_000 }),
        jfrog("answer lost after JFrog committed", Fault::DropResponseAfterCommit),
        jfrog("answer cut in half", Fault::TruncatedJson),
        jfrog("answer without a refresh token", Fault::NoRefreshToken),
        struck("killed after the answer, before the save", Moment::Answered, Fate::Killed),
        struck("killed during the save", Moment::Saving, Fate::Killed),
        struck("killed after the save", Moment::Saved, Fate::Killed),
        // No lock is needed to survive these two: JFrog answers only one of two, and the other one saves nothing.
        Round { second_after: Some(Duration::ZERO), ..quiet("two callers at once, on two hosts") },
        Round {
            second_after: Some(AFTER_THE_LEASE),
            ..struck("stalled before the save, beyond the lock", Moment::Answered, Fate::Stalled)
        },
        Round { store: Store::Refuses, ..quiet("the store refuses the save") },
        Round { store: Store::Forgets, ..quiet("the store fails over and forgets the save") },
    ]
}
