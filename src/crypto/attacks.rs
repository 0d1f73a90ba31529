//! What the sealed format must withstand, tried: bytes that are swapped, and a ciphertext that is made to open under two keys.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    cipher::{AES_256, EncryptingKey, UnboundCipherKey},
};
use uuid::Uuid;

use super::seal::{Key, OpenError, Place, associated_data};
use crate::secret::Sealed;

const ROWS: u128 = 200;
const COLUMNS: [&str; 4] = ["access_token", "refresh_token", "reference_token", "identity_token"];

#[test]
fn of_200_rows_no_value_opens_in_another_row_column_or_generation() {
    let key = Key::generate();
    let places: Vec<Place<'_>> = (0..ROWS)
        .map(|row| {
            let column = COLUMNS[usize::try_from(row % 4).expect("small")];
            Place { table: "chains", row: Uuid::from_u128(row / 4), column, generation: i64::try_from(row % 3).expect("small") }
        })
        .collect();
    let values: Vec<Sealed> = places.iter().map(|place| key.seal(*place, place.column.as_bytes())).collect();
    for (at, place) in places.iter().enumerate() {
        for (from, value) in values.iter().enumerate() {
            let opened = key.open(*place, value);
            assert_eq!(opened.is_ok(), at == from, "{place:?} with the bytes of {:?}", places[from]);
            assert!(at == from || opened == Err(OpenError::Tampered));
        }
        for generation in (-1..5).filter(|generation| *generation != place.generation) {
            assert_eq!(key.open(Place { generation, ..*place }, &values[at]), Err(OpenError::Tampered));
        }
        for table in ["tokens", "webhooks", "journal", "chain", "chainss"] {
            assert_eq!(key.open(Place { table, ..*place }, &values[at]), Err(OpenError::Tampered));
        }
    }
}

/// In GCM's field, whose bits are written backwards.
fn times(x: u128, y: u128) -> u128 {
    let (mut product, mut v) = (0, y);
    for bit in (0..128).rev() {
        if x >> bit & 1 == 1 {
            product ^= v;
        }
        v = if v & 1 == 1 { v >> 1 ^ 0xe1 << 120 } else { v >> 1 };
    }
    product
}

/// x^(2^128 - 2).
fn inverse(x: u128) -> u128 {
    let (mut power, mut square) = (1 << 127, x);
    for _ in 1..128 {
        square = times(square, square);
        power = times(power, square);
    }
    power
}

/// One block of AES alone.
fn aes(key: &[u8], block: u128) -> u128 {
    let key = EncryptingKey::ecb(UnboundCipherKey::new(&AES_256, key).expect("a key")).expect("a cipher");
    let mut bytes = block.to_be_bytes();
    key.encrypt(&mut bytes).expect("a block");
    u128::from_be_bytes(bytes)
}

/// What the tag of one block of zeros would be, and what the block is multiplied with on its way into the tag.
fn tag_of_nothing(key: &[u8], nonce: [u8; 12], aad: &[u8]) -> (u128, u128) {
    let h = aes(key, 0);
    let mut hash = 0;
    for chunk in aad.chunks(16) {
        let mut block = [0; 16];
        block[..chunk.len()].copy_from_slice(chunk);
        hash = times(hash ^ u128::from_be_bytes(block), h);
    }
    hash = times(hash, h);
    hash = times(hash ^ (aad.len() as u128 * 8) << 64 ^ 128, h);
    let mut first = [0; 16];
    first[..12].copy_from_slice(&nonce);
    first[15] = 1;
    (hash ^ aes(key, u128::from_be_bytes(first)), times(h, h))
}

/// AES-GCM alone, as it would be without a commitment.
fn opens_without_commitment(key: &[u8], nonce: [u8; 12], aad: &[u8], body: &[u8]) -> bool {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("a key"));
    key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut body.to_vec()).is_ok()
}

#[test]
fn a_ciphertext_that_is_made_to_open_under_two_keys_is_refused_by_one_of_them() {
    let place = Place { table: "chains", row: Uuid::from_u128(7), column: "refresh_token", generation: 3 };
    let keys = [Key::generate_with_id("k"), Key::generate_with_id("k")];
    let (salt, nonce) = ([5; 32], [7; 12]);
    let derived = [keys[0].okm(&salt), keys[1].okm(&salt)];
    let header = [&[1, 1], b"k".as_slice()].concat();
    let aad = associated_data(&header, place);
    // Two equations for one block: c·h² + t is the tag, for both.
    let [(t0, h0), (t1, h1)] = [0, 1].map(|key| tag_of_nothing(&derived[key][..32], nonce, &aad));
    let block = times(t0 ^ t1, inverse(h0 ^ h1));
    let tag = times(block, h0) ^ t0;
    let body = [block.to_be_bytes(), tag.to_be_bytes()].concat();
    for key in &derived {
        assert!(opens_without_commitment(&key[..32], nonce, &aad, &body), "the attack works on AES-GCM alone");
    }
    for (committed, other) in [(0, 1), (1, 0)] {
        let value = Sealed::from_bytes([&header, &salt[..], &derived[committed][32..], &nonce, &body].concat());
        assert!(keys[committed].open(place, &value).is_ok());
        assert_eq!(keys[other].open(place, &value), Err(OpenError::WrongKey));
    }
}
