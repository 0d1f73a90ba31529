//! Which bytes stand for a row and for a batch: everything behind its length or of a fixed one, so that no two different ones give
//! the same bytes.

use time::OffsetDateTime;

/// SHA-256, or HMAC-SHA-256.
pub type Digest = [u8; 32];

/// Bytes of one entry of a [`RowList`].
const ENTRY: usize = 8 + 32;

/// The bytes of an audit row: its id, and each column that is not null with its position. A column that is appended to the table
/// later changes nothing for the rows that do not have it.
pub fn row_bytes(id: i64, fields: &[Option<String>]) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    for (position, text) in fields.iter().enumerate() {
        if let Some(text) = text {
            bytes.extend((position as u64).to_be_bytes());
            bytes.extend((text.len() as u64).to_be_bytes());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// The rows of a batch in the order of their ids, each with its digest: what tells which row was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowList(Vec<u8>);

impl RowList {
    /// As it is stored; `None` where it is no list.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        bytes.len().is_multiple_of(ENTRY).then_some(Self(bytes))
    }

    /// To be stored, and digested.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends a row.
    pub fn push(&mut self, id: i64, digest: &Digest) {
        self.0.extend(id.to_be_bytes());
        self.0.extend(digest);
    }

    /// How many rows.
    pub fn count(&self) -> usize {
        self.0.len() / ENTRY
    }

    /// The id and the digest of one.
    pub fn get(&self, at: usize) -> Option<(i64, Digest)> {
        let (id, digest) = self.0.chunks_exact(ENTRY).nth(at)?.split_at(8);
        Some((i64::from_be_bytes(id.try_into().ok()?), digest.try_into().ok()?))
    }
}

/// A closed batch: what its head vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// From 1 without a gap.
    pub number: i64,
    /// It is every row after the last batch's up to this id.
    pub last_id: i64,
    /// How many rows.
    pub events: i32,
    /// Of the [`RowList`].
    pub digest: Digest,
    /// When.
    pub closed_at: OffsetDateTime,
}

impl Batch {
    /// The bytes whose HMAC is its head. `previous` is the last batch's head; zeros for the first.
    pub fn bytes(&self, previous: &Digest) -> Vec<u8> {
        [
            b"token-broker audit batch, version 1".as_slice(),
            &self.number.to_be_bytes(),
            &self.last_id.to_be_bytes(),
            &self.events.to_be_bytes(),
            &self.digest,
            &self.closed_at.unix_timestamp_nanos().to_be_bytes(),
            previous,
        ]
        .concat()
    }
}

/// The bytes whose HMAC says that the rows of the batch with this head were removed by an operator who has the key.
pub fn pruned_bytes(head: &Digest) -> Vec<u8> {
    [b"token-broker audit batch pruned, version 1".as_slice(), head].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn different_rows_have_different_bytes(
            a in (0..3_i64, prop::collection::vec(prop::option::of("[a-c\0]{0,3}"), 0..5)),
            b in (0..3_i64, prop::collection::vec(prop::option::of("[a-c\0]{0,3}"), 0..5)),
        ) {
            // Nulls at the end are columns that were not there yet.
            let plain = |(id, fields): &(i64, Vec<Option<String>>)| {
                let length = fields.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
                (*id, fields[..length].to_vec())
            };
            prop_assert_eq!(row_bytes(a.0, &a.1) == row_bytes(b.0, &b.1), plain(&a) == plain(&b));
        }
    }

    #[test]
    fn null_empty_and_moved_texts_are_told_apart() {
        let text = |text: &str| Some(text.to_owned());
        let rows = [
            vec![text("ab"), text("c")],
            vec![text("a"), text("bc")],
            vec![text("abc"), None],
            vec![None, text("abc")],
            vec![text("abc"), text("")],
            vec![text(""), text("abc")],
        ];
        let mut bytes: Vec<_> = rows.iter().map(|row| row_bytes(1, row)).collect();
        bytes.push(row_bytes(2, &rows[0]));
        for (at, one) in bytes.iter().enumerate() {
            assert!(!bytes[at + 1..].contains(one), "{at}");
        }
        assert_eq!(row_bytes(1, &rows[2]), row_bytes(1, &rows[2][..1]), "a column that came later and is null");
    }

    #[test]
    fn a_head_vouches_for_each_field_and_for_what_came_before() {
        let batch = Batch { number: 3, last_id: 70, events: 20, digest: [1; 32], closed_at: OffsetDateTime::UNIX_EPOCH };
        let before = batch.bytes(&[2; 32]);
        let others = [
            Batch { number: 4, ..batch.clone() }.bytes(&[2; 32]),
            Batch { last_id: 71, ..batch.clone() }.bytes(&[2; 32]),
            Batch { events: 21, ..batch.clone() }.bytes(&[2; 32]),
            Batch { digest: [3; 32], ..batch.clone() }.bytes(&[2; 32]),
            Batch { closed_at: batch.closed_at + time::Duration::MICROSECOND, ..batch.clone() }.bytes(&[2; 32]),
            batch.bytes(&[3; 32]),
            pruned_bytes(&[2; 32]),
        ];
        for other in others {
            assert_ne!(other, before);
        }
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_half_an_entry_is_none() {
        let mut list = RowList::default();
        list.push(5, &[7; 32]);
        list.push(9, &[8; 32]);
        let read = RowList::from_bytes(list.as_bytes().to_vec()).expect("a list");
        assert_eq!((read.count(), read.get(0), read.get(1), read.get(2)), (2, Some((5, [7; 32])), Some((9, [8; 32])), None));
        assert_eq!(RowList::from_bytes(list.as_bytes()[1..].to_vec()), None);
    }
}
