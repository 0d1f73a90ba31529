//! What a replica has in its hands and in its journal.

use crate::state::{Letter, PairId};

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Replica {
    /// Survives a crash.
    pub journal: Vec<Entry>,
    /// Does not.
    pub flow: Flow,
}

/// A pair in the journal that is not marked committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub attempt: Attempt,
    pub pair: PairId,
}

/// A call that makes a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Request {
    /// Spends this pair's refresh token.
    Refresh(PairId),
    /// Makes a new pair for this chain, with this pair's access token as bearer.
    Create(Letter, PairId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Answer {
    Pair(PairId),
    /// 404: the refresh token was spent.
    NotFound,
    /// 401: the bearer is dead.
    Unauthenticated,
}

/// How an attempt that brought no pair ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Ending {
    NotSent,
    Unknown,
    Spent,
    Refused,
}

/// What became of a pair that was to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Saved {
    /// Postgres has it. `replayed`: from an earlier life's entry.
    Yes { kind: Kind, replayed: bool },
    /// Something newer was there; it is given back next.
    Superseded,
    /// And was given back, as far as could be.
    GivenBack,
    /// Thrown away without a look, which is wrong.
    Discarded,
}

/// Where a replica's one flow is; what it holds in memory is in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Flow {
    Idle,
    /// Decided on what was read; nothing is written yet.
    Planned {
        kind: Kind,
        chain: Letter,
        seen_generation: u8,
        request: Request,
    },
    Begun {
        attempt: Attempt,
        request: Request,
    },
    /// The request is on its way.
    Calling {
        attempt: Attempt,
        request: Request,
    },
    Answered {
        attempt: Attempt,
        answer: Answer,
    },
    /// The pair is in the journal, not yet in Postgres. `replayed`: from an earlier life's entry.
    Saving {
        entry: Entry,
        replayed: bool,
    },
    /// Postgres has it, or something newer; the entry is to be marked.
    Marking {
        entry: Entry,
        saved: Saved,
    },
    /// Came too late: given back if the row's younger chain is alive (`sure`: it is). `entry`: still to be marked.
    GivingBack {
        pair: PairId,
        entry: Option<Entry>,
        sure: bool,
    },
    Ending {
        attempt: Attempt,
        ending: Ending,
    },
    /// JFrog knows nothing of it any more: a person must be called.
    Concluding,
    PlannedSweep {
        seen_generation: u8,
        bearer: PairId,
        replaced: [Option<PairId>; 2],
    },
    RevokingReplaced {
        attempt: Attempt,
        bearer: PairId,
        replaced: [Option<PairId>; 2],
    },
    ForgettingReplaced {
        attempt: Attempt,
        bearer: PairId,
        replaced: [Option<PairId>; 2],
    },
    Listing {
        attempt: Attempt,
        bearer: PairId,
    },
    Comparing {
        attempt: Attempt,
        listed: Vec<PairId>,
    },
    RevokingOrphans {
        attempt: Attempt,
        orphans: Vec<PairId>,
        complete: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Rotate,
    Heal,
    /// The one resend of a refresh token whose outcome is unknown.
    Settle,
    Sweep,
}

/// An attempt as its owner and its journal entry know it. When it began is its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Attempt {
    pub begun: u8,
    pub kind: Kind,
    pub chain: Letter,
    pub spent_generation: u8,
}

impl Request {
    pub(crate) fn pair(&mut self) -> &mut PairId {
        match self {
            Self::Refresh(pair) | Self::Create(_, pair) => pair,
        }
    }
}

impl Flow {
    /// What has an attempt was stalled already when time passes.
    pub(crate) fn is_about_to_go_on(&self) -> bool {
        use Flow::{Concluding, GivingBack, Marking, Planned, PlannedSweep};
        matches!(self, Planned { .. } | PlannedSweep { .. } | Concluding | Marking { .. } | GivingBack { .. })
    }

    /// Whether it is this attempt's owner, and not done with it.
    pub(crate) fn works_on(&self, begun: u8) -> bool {
        let done = matches!(self, Self::Marking { .. } | Self::GivingBack { .. });
        !done && self.clone().attempt().is_some_and(|attempt| attempt.begun == begun)
    }

    /// The attempt that is in this flow's hands.
    pub(crate) fn attempt(&mut self) -> Option<&mut Attempt> {
        match self {
            Self::Begun { attempt, .. }
            | Self::Calling { attempt, .. }
            | Self::Answered { attempt, .. }
            | Self::Ending { attempt, .. }
            | Self::RevokingReplaced { attempt, .. }
            | Self::ForgettingReplaced { attempt, .. }
            | Self::Listing { attempt, .. }
            | Self::Comparing { attempt, .. }
            | Self::RevokingOrphans { attempt, .. } => Some(attempt),
            Self::Saving { entry, .. } | Self::Marking { entry, .. } => Some(&mut entry.attempt),
            Self::GivingBack { entry, .. } => entry.as_mut().map(|entry| &mut entry.attempt),
            Self::Idle | Self::Planned { .. } | Self::PlannedSweep { .. } | Self::Concluding => None,
        }
    }

    /// The pairs that this flow remembers.
    pub(crate) fn each_pair(&mut self, visit: &mut impl FnMut(&mut u8)) {
        match self {
            Self::Planned { request, .. } | Self::Begun { request, .. } | Self::Calling { request, .. } => visit(request.pair()),
            Self::Answered { answer: Answer::Pair(pair), .. } => visit(pair),
            Self::Saving { entry, .. } | Self::Marking { entry, .. } => visit(&mut entry.pair),
            Self::GivingBack { pair, entry, .. } => {
                visit(pair);
                entry.iter_mut().for_each(|entry| visit(&mut entry.pair));
            }
            Self::PlannedSweep { bearer, replaced, .. }
            | Self::RevokingReplaced { bearer, replaced, .. }
            | Self::ForgettingReplaced { bearer, replaced, .. } => {
                visit(bearer);
                replaced.iter_mut().flatten().for_each(visit);
            }
            Self::Listing { bearer, .. } => visit(bearer),
            Self::Comparing { listed: pairs, .. } | Self::RevokingOrphans { orphans: pairs, .. } => {
                pairs.iter_mut().for_each(visit);
            }
            Self::Idle | Self::Answered { .. } | Self::Ending { .. } | Self::Concluding => {}
        }
    }
}
