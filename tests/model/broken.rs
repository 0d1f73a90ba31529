//! The protocol broken on purpose, one line at a time: the checker must notice each.

/// What is left out, or done the way others do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Nothing is written before JFrog is called, so nobody sees that another is at it.
    NoAttemptRow,
    /// An attempt begins without looking at the generation that the decision was made on.
    BeginWithoutALook,
    /// A pair is committed without looking at the generation it was spent from.
    NoFence,
    /// A call that timed out is sent again.
    BlindRetry,
    /// The journal has the pair, so the caller is answered.
    ReplyBeforeCommit,
    /// Whoever lost its attempt throws its pair away, though the row is still where the pair was spent from.
    DiscardOnLostRace,
    /// Whoever moves no row revokes its pair, without asking whether it is the row's own and whether the row's is alive.
    RevokeOnLostRace,
    /// One chain is in doubt, and the other is rotated instead of making the first anew.
    SecondChainInDoubt,
    /// The sweep revokes all that the user has and we don't know.
    SweepWithoutMarker,
    /// What a lost answer left at JFrog is not looked for.
    NeverSweeps,
    /// The end of any attempt forgets that the refresh token was sent once more to find out.
    ForgetsThatItWasSent,
    /// The sweep revokes the orphans of a chain that is lost, too.
    SweepBesideALostChain,
}
