//! States that differ in names only are one state: times and generations are counted from the oldest that is remembered, pairs
//! from the oldest that matters, and the replicas are alike. So the number of states does not grow with the number of rotations.

use crate::{
    broken::Broken,
    flow::{Attempt, Entry, Flow, Kind},
    state::{Letter, PairId, Protocol, State},
};

impl State {
    pub(crate) fn rename(&mut self, protocol: &Protocol) {
        if protocol.broken != Some(Broken::BeginWithoutALook) {
            self.forget_what_is_over();
        }
        self.forget_what_is_dead();
        self.rank_times();
        for letter in 0..2 {
            self.rank_generations(letter);
        }
        self.forget_pairs();
        self.strays.sort_unstable();
        self.replicas.iter_mut().for_each(|replica| replica.journal.sort_unstable());
        self.replicas.sort_unstable();
    }

    /// A generation never comes back: what was planned on an old one comes to nothing, and of a pair spent from an old one it is
    /// the same when it was.
    fn forget_what_is_over(&mut self) {
        let generations: Vec<u8> = self.postgres.chains.iter().map(|chain| chain.generation).collect();
        let over = |letter: Letter, generation| generations[usize::from(letter)] != generation;
        let forget = |Entry { attempt, .. }: &mut Entry| {
            if over(attempt.chain, attempt.spent_generation) {
                *attempt = Attempt { begun: 0, kind: Kind::Rotate, chain: attempt.chain, spent_generation: 0 };
            }
        };
        for replica in &mut self.replicas {
            replica.journal.iter_mut().for_each(forget);
            match &mut replica.flow {
                Flow::Saving { entry, .. } | Flow::GivingBack { entry: Some(entry), .. } => forget(entry),
                Flow::Marking { entry, .. } => forget(entry),
                Flow::Planned { chain, seen_generation, .. } if over(*chain, *seen_generation) => replica.flow = Flow::Idle,
                Flow::PlannedSweep { seen_generation, .. } if over(0, *seen_generation) => replica.flow = Flow::Idle,
                _ => {}
            }
        }
    }

    /// Of a dead pair, and of one whose refresh token nobody can send any more, less matters.
    fn forget_what_is_dead(&mut self) {
        let mut may_be_sent = 0u64;
        self.postgres.chains.iter().for_each(|chain| may_be_sent |= 1 << chain.pair);
        for replica in &mut self.replicas {
            if let Flow::Planned { request, .. } | Flow::Begun { request, .. } | Flow::Calling { request, .. } = &mut replica.flow
            {
                may_be_sent |= 1 << *request.pair();
            }
        }
        for (id, pair) in self.ledger.iter_mut().enumerate() {
            (pair.in_use, pair.fresh) = (pair.in_use && pair.alive, pair.fresh && pair.alive);
            pair.sends *= u8::from(may_be_sent >> id & 1 == 1);
        }
    }

    fn rank_times(&mut self) {
        let mut seen = 1u64;
        self.each_attempt(&mut |attempt| seen |= 1 << attempt.begun);
        self.postgres.chains.iter().for_each(|chain| seen |= 1 << chain.begun);
        self.each_attempt(&mut |attempt| attempt.begun = rank(seen, attempt.begun));
        self.postgres.chains.iter_mut().for_each(|chain| chain.begun = rank(seen, chain.begun));
        self.latest = rank(seen, 63);
    }

    fn rank_generations(&mut self, letter: Letter) {
        let Some(chain) = self.postgres.chains.get(usize::from(letter)) else { return };
        let mut seen = 1 | 1u64 << chain.generation;
        self.each_generation(letter, &mut |generation| seen |= 1 << *generation);
        self.each_generation(letter, &mut |generation| *generation = rank(seen, *generation));
        let chain = self.postgres.chain(letter);
        chain.generation = rank(seen, chain.generation);
    }

    /// A pair that nobody remembers matters only while JFrog lists it.
    fn forget_pairs(&mut self) {
        let mut kept = 0u64;
        self.each_pair(&mut |pair| kept |= 1 << *pair);
        for (id, pair) in self.ledger.iter().enumerate() {
            kept |= u64::from(pair.listed()) << id;
        }
        self.each_pair(&mut |pair| *pair = rank(kept, *pair));
        let mut id = 0;
        self.ledger.retain(|_| {
            id += 1;
            kept >> (id - 1) & 1 == 1
        });
    }

    fn each_attempt(&mut self, visit: &mut impl FnMut(&mut Attempt)) {
        self.postgres.attempt.iter_mut().for_each(|row| visit(&mut row.attempt));
        for replica in &mut self.replicas {
            replica.journal.iter_mut().for_each(|entry| visit(&mut entry.attempt));
            replica.flow.attempt().into_iter().for_each(&mut *visit);
        }
    }

    fn each_generation(&mut self, letter: Letter, visit: &mut impl FnMut(&mut u8)) {
        self.each_attempt(&mut |attempt| {
            if attempt.chain == letter {
                visit(&mut attempt.spent_generation);
            }
        });
        for replica in &mut self.replicas {
            match &mut replica.flow {
                Flow::Planned { chain, seen_generation, .. } if *chain == letter => visit(seen_generation),
                Flow::PlannedSweep { seen_generation, .. } if letter == 0 => visit(seen_generation),
                _ => {}
            }
        }
    }

    fn each_pair(&mut self, visit: &mut impl FnMut(&mut PairId)) {
        for chain in &mut self.postgres.chains {
            visit(&mut chain.pair);
            chain.replaced.iter_mut().for_each(&mut *visit);
        }
        self.strays.iter_mut().for_each(|request| visit(request.pair()));
        for replica in &mut self.replicas {
            replica.journal.iter_mut().for_each(|entry| visit(&mut entry.pair));
            replica.flow.each_pair(visit);
        }
    }
}

/// How many of `seen` are below `value`.
fn rank(seen: u64, value: u8) -> u8 {
    u8::try_from((seen & ((1 << value) - 1)).count_ones()).expect("64 at most")
}
