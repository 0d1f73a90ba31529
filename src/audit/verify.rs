//! What a comparison finds: the chain is walked batch by batch, and each batch's rows are compared with its list in one pass.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Batch, Digest, RowList};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wrong {
    /// A row is not what it was.
    Changed,
    /// A row is not there any more.
    Removed,
    /// A row was not there.
    SlippedIn,
    /// The batch is not there any more.
    BatchMissing,
    /// The batch was changed, or made without the key.
    BatchChanged,
    /// The rows are not there, and nobody with the key removed them.
    NotPruned,
    /// A checkpoint knows of the batch, and the chain ends before it.
    CutOff,
    /// A checkpoint knows of another batch under this number.
    Rewritten,
}

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// In which batch.
    pub batch: i64,
    /// Which row; `None`: the batch itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<i64>,
    /// What.
    pub wrong: Wrong,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.event {
            Some(event) => write!(f, "event {event} of batch {} ", self.batch)?,
            None => write!(f, "batch {} ", self.batch)?,
        }
        f.write_str(match self.wrong {
            Wrong::Changed => "was changed",
            Wrong::Removed => "was removed",
            Wrong::SlippedIn => "was slipped in later",
            Wrong::BatchMissing => "is missing from the chain",
            Wrong::BatchChanged => "was changed, or was made without the chain's key",
            Wrong::NotPruned => "has lost its events, and not by `audit prune`",
            Wrong::CutOff => "was cut off: the checkpoint knows it, and the chain ends before it",
            Wrong::Rewritten => "was rewritten: the checkpoint knows it otherwise",
        })
    }
}

/// The head of a batch, to be kept where who writes the database does not get at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The batch's number.
    pub batch: i64,
    /// Its head, in hex: vouches for all rows up to this batch.
    pub head: String,
    /// How many rows the batch has.
    pub events: i32,
    /// The last row's id.
    pub last_event: i64,
    /// When it was closed.
    #[serde(with = "time::serde::rfc3339")]
    pub closed_at: OffsetDateTime,
}

impl Checkpoint {
    /// Of this batch.
    pub fn of(batch: &Batch, head: &[u8]) -> Self {
        Self {
            batch: batch.number,
            head: hex::encode(head),
            events: batch.events,
            last_event: batch.last_id,
            closed_at: batch.closed_at,
        }
    }

    /// Reads checkpoints, one a line.
    ///
    /// # Errors
    /// There is none, or a line is none: the rest of a sentence.
    pub fn read(text: &str) -> Result<Vec<Self>, String> {
        let mut checkpoints = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let read = serde_json::from_str::<Self>(line).ok();
            // One that no batch can have would never be compared with any.
            let sound = read.filter(|kept| kept.batch > 0 && hex::decode(&kept.head).is_ok_and(|head| head.len() == 32));
            checkpoints.push(sound.ok_or_else(|| format!("line {} is no checkpoint", number + 1))?);
        }
        if checkpoints.is_empty() { Err("there is no checkpoint in it".to_owned()) } else { Ok(checkpoints) }
    }
}

/// Walks the chain from its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The last good batch's number; 0 before the first.
    pub number: i64,
    /// The first id that a row of the next batch may have.
    pub from: i64,
    /// The last good batch's head.
    pub head: Digest,
}

impl Default for Walk {
    fn default() -> Self {
        Self { number: 0, from: i64::MIN, head: Digest::default() }
    }
}

impl Walk {
    /// Steps onto the next batch, whose head `hmac` makes with the chain's key.
    ///
    /// # Errors
    /// It is not the next one, or not what it was.
    pub fn step(&mut self, batch: &Batch, head: &[u8], hmac: impl FnOnce(&[u8]) -> Digest) -> Result<(), Finding> {
        let wrong = |batch, wrong| Finding { batch, event: None, wrong };
        let next = self.number + 1;
        if batch.number != next {
            return Err(wrong(next, Wrong::BatchMissing));
        }
        // Compared as it comes: nobody can try heads and measure.
        let expected = hmac(&batch.bytes(&self.head));
        if head != expected || batch.last_id < self.from {
            return Err(wrong(next, Wrong::BatchChanged));
        }
        *self = Self { number: next, from: batch.last_id.saturating_add(1), head: expected };
        Ok(())
    }

    /// Compares the batch that was stepped onto with what was kept elsewhere.
    ///
    /// # Errors
    /// It is another one.
    pub fn compare(&self, checkpoints: &[Checkpoint]) -> Result<(), Finding> {
        let head = hex::encode(self.head);
        let other = |kept: &Checkpoint| kept.batch == self.number && !kept.head.eq_ignore_ascii_case(&head);
        let found = Finding { batch: self.number, event: None, wrong: Wrong::Rewritten };
        if checkpoints.iter().any(other) { Err(found) } else { Ok(()) }
    }

    /// At the end of the chain: whether what was kept elsewhere goes further.
    ///
    /// # Errors
    /// It does.
    pub fn end(&self, checkpoints: &[Checkpoint]) -> Result<(), Finding> {
        let beyond = checkpoints.iter().map(|kept| kept.batch).filter(|batch| *batch > self.number).min();
        beyond.map_or(Ok(()), |batch| Err(Finding { batch, event: None, wrong: Wrong::CutOff }))
    }
}

/// Compares the rows of a batch, one after the other by id, with its list.
#[derive(Debug)]
pub struct Comparison<'a> {
    batch: i64,
    list: &'a RowList,
    at: usize,
}

impl<'a> Comparison<'a> {
    /// With the list of batch `batch`.
    pub fn new(batch: i64, list: &'a RowList) -> Self {
        Self { batch, list, at: 0 }
    }

    /// The next row that is there.
    ///
    /// # Errors
    /// It, or one before it, is not as it was.
    pub fn row(&mut self, id: i64, digest: &Digest) -> Result<(), Finding> {
        match self.list.get(self.at) {
            Some((expected, _)) if expected < id => Err(self.wrong(expected, Wrong::Removed)),
            Some((expected, same)) if expected == id => {
                self.at += 1;
                if same == *digest { Ok(()) } else { Err(self.wrong(id, Wrong::Changed)) }
            }
            _ => Err(self.wrong(id, Wrong::SlippedIn)),
        }
    }

    /// There is no other row.
    ///
    /// # Errors
    /// There was one.
    pub fn end(&self) -> Result<(), Finding> {
        self.list.get(self.at).map_or(Ok(()), |(expected, _)| Err(self.wrong(expected, Wrong::Removed)))
    }

    fn wrong(&self, event: i64, wrong: Wrong) -> Finding {
        Finding { batch: self.batch, event: Some(event), wrong }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u8 = 5;

    type Change = fn(&mut Vec<(Batch, Digest)>);

    /// Not a digest, but as hard to foresee as these tests need.
    fn toy(bytes: &[u8]) -> Digest {
        let mut out = [KEY; 32];
        for (at, byte) in bytes.iter().enumerate() {
            out[at % 32] = out[at % 32].wrapping_mul(31).wrapping_add(*byte);
        }
        out
    }

    fn chain(batches: i64) -> Vec<(Batch, Digest)> {
        let mut chain: Vec<(Batch, Digest)> = Vec::new();
        for number in 1..=batches {
            let digest = [u8::try_from(number).expect("few"); 32];
            let batch = Batch { number, last_id: number * 10, events: 3, digest, closed_at: OffsetDateTime::UNIX_EPOCH };
            let previous = chain.last().map_or([0; 32], |(_, head)| *head);
            let head = toy(&batch.bytes(&previous));
            chain.push((batch, head));
        }
        chain
    }

    fn walked(chain: &[(Batch, Digest)], checkpoints: &[Checkpoint]) -> Result<Walk, Finding> {
        let mut walk = Walk::default();
        for (batch, head) in chain {
            walk.step(batch, head, toy)?;
            walk.compare(checkpoints)?;
        }
        walk.end(checkpoints).map(|()| walk)
    }

    #[test]
    fn a_whole_chain_is_walked_to_its_end() {
        let chain = chain(5);
        let checkpoints = [1, 4].map(|at: usize| Checkpoint::of(&chain[at].0, &chain[at].1));
        let walk = walked(&chain, &checkpoints).expect("whole");
        assert_eq!((walk.number, walk.from, walk.head), (5, 51, chain[4].1));
    }

    #[test]
    fn what_was_done_to_the_chain_is_told() {
        let whole = chain(5);
        let checkpoint = [Checkpoint::of(&whole[3].0, &whole[3].1)];
        let cases: [(Change, i64, Wrong); 8] = [
            (|chain| _ = chain.remove(0), 1, Wrong::BatchMissing),
            (|chain| _ = chain.remove(2), 3, Wrong::BatchMissing),
            (|chain| chain.truncate(3), 4, Wrong::CutOff),
            (|chain| chain.clear(), 4, Wrong::CutOff),
            (|chain| chain[1].0.last_id = 21, 2, Wrong::BatchChanged),
            (|chain| chain[1].0.last_id = 10, 2, Wrong::BatchChanged),
            (|chain| chain[4].1[7] ^= 1, 5, Wrong::BatchChanged),
            (
                |chain| {
                    let (a, b) = (chain[1].0.number, chain[2].0.number);
                    (chain[1].0.number, chain[2].0.number) = (b, a);
                    chain.swap(1, 2);
                },
                2,
                Wrong::BatchChanged,
            ),
        ];
        for (at, (change, batch, wrong)) in cases.into_iter().enumerate() {
            let mut changed = whole.clone();
            change(&mut changed);
            assert_eq!(walked(&changed, &checkpoint), Err(Finding { batch, event: None, wrong }), "case {at}");
        }
    }

    #[test]
    fn who_has_the_key_is_betrayed_by_the_checkpoint_alone() {
        let whole = chain(5);
        let mut forged: Vec<(Batch, Digest)> = Vec::new();
        for (batch, _) in &whole {
            let batch = Batch { digest: [99; 32], ..batch.clone() };
            let previous = forged.last().map_or([0; 32], |(_, head)| *head);
            let head = toy(&batch.bytes(&previous));
            forged.push((batch, head));
        }
        assert!(walked(&forged, &[]).is_ok());
        let checkpoint = [Checkpoint::of(&whole[2].0, &whole[2].1)];
        assert_eq!(walked(&forged, &checkpoint), Err(Finding { batch: 3, event: None, wrong: Wrong::Rewritten }));
    }

    #[test]
    fn the_first_row_that_differs_is_named() {
        let mut list = RowList::default();
        for id in [3, 5, 8] {
            list.push(id, &toy(&[id as u8]));
        }
        let compared = |rows: &[(i64, u8)]| {
            let mut comparison = Comparison::new(7, &list);
            rows.iter().try_for_each(|(id, content)| comparison.row(*id, &toy(&[*content])))?;
            comparison.end()
        };
        let found = |event, wrong| Err(Finding { batch: 7, event: Some(event), wrong });
        assert_eq!(compared(&[(3, 3), (5, 5), (8, 8)]), Ok(()));
        assert_eq!(compared(&[(3, 3), (5, 9), (8, 8)]), found(5, Wrong::Changed));
        assert_eq!(compared(&[(3, 3), (8, 8)]), found(5, Wrong::Removed));
        assert_eq!(compared(&[(3, 3), (5, 5)]), found(8, Wrong::Removed));
        assert_eq!(compared(&[]), found(3, Wrong::Removed));
        assert_eq!(compared(&[(3, 3), (4, 4), (5, 5), (8, 8)]), found(4, Wrong::SlippedIn));
        assert_eq!(compared(&[(3, 3), (5, 5), (8, 8), (9, 9)]), found(9, Wrong::SlippedIn));
        assert_eq!(compared(&[(3, 5), (5, 3), (8, 8)]), found(3, Wrong::Changed));
        assert_eq!(compared(&[(3, 3), (6, 5), (8, 8)]), found(5, Wrong::Removed));
    }

    #[test]
    fn checkpoints_are_read_as_they_are_written_and_nothing_else_is() {
        let (batch, head) = chain(2).remove(1);
        let checkpoint = Checkpoint::of(&batch, &head);
        let line = serde_json::to_string(&checkpoint).expect("JSON");
        assert_eq!(Checkpoint::read(&format!("{line}\n\n{line}\n")), Ok(vec![checkpoint.clone(), checkpoint]));
        let head = hex::encode(head);
        for bad in [
            "",
            "{}",
            "null",
            "no checkpoint",
            &line[1..],
            &line.replace(&head, "abc"),
            &line.replace("\"batch\":2", "\"batch\":0"),
        ] {
            assert!(Checkpoint::read(bad).is_err(), "{bad}");
        }
    }
}
