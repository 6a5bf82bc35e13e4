//! A subtree of BLAKE3 that is cut into leaves, so that the zeros of holes are hashed once and not
//! once for each file.
//!
//! The value of a leaf of zeros depends on nothing but its offset. Sparse files have most of their
//! holes at the same offsets, and each is hashed at the source and again when it is read back: the
//! first one to need a value computes it, all others look it up.

use std::sync::OnceLock;

use blake3::hazmat::HasherExt;

use super::chunk::{Piece, Value, hash_zeros, hasher_at};
use super::sums::Tree;
use crate::limits::{ZERO_BYTES_MAX, ZERO_LEAF_BYTES};

/// Values of leaves of zeros, by index: of all in files that are not proved by their extents.
static ZERO_LEAVES: [OnceLock<Value>; (ZERO_BYTES_MAX / ZERO_LEAF_BYTES) as usize] =
    [const { OnceLock::new() }; (ZERO_BYTES_MAX / ZERO_LEAF_BYTES) as usize];

/// The value of the subtree of `len` zeros at `offset`, which is aligned as a subtree's is.
pub(super) fn zero_value(offset: u64, len: u64) -> Value {
    let mut subtree = Subtree::at(offset);
    subtree.feed(Piece::Zeros(len));
    subtree.value()
}

/// The value of `len` zeros at `offset`, no more than a leaf.
fn leaf_of_zeros(offset: u64, len: u64) -> Value {
    let compute = || {
        let mut hasher = hasher_at(offset);
        hash_zeros(&mut hasher, len);
        hasher.finalize_non_root()
    };
    let index = usize::try_from(offset / ZERO_LEAF_BYTES).unwrap_or(usize::MAX);
    match ZERO_LEAVES.get(index) {
        Some(known) if len == ZERO_LEAF_BYTES => *known.get_or_init(compute),
        _ => compute(),
    }
}

/// Hashes a subtree, bytes and holes in order; at least one byte.
#[derive(Debug)]
pub(super) struct Subtree {
    /// Where it begins in the file.
    offset: u64,
    /// Bytes so far.
    fed: u64,
    /// The leaves that are whole.
    leaves: Tree,
    /// The leaf that is under way, from its first byte on.
    leaf: Option<blake3::Hasher>,
}

impl Subtree {
    pub(super) fn at(offset: u64) -> Self {
        Self { offset, fed: 0, leaves: Tree::default(), leaf: None }
    }

    pub(super) fn feed(&mut self, mut piece: Piece<'_>) {
        while piece.len() > 0 {
            let left = ZERO_LEAF_BYTES - self.fed % ZERO_LEAF_BYTES;
            let (part, rest) = piece.split_at(left);
            let start = self.offset + self.fed;
            self.fed += part.len();
            piece = rest;
            match (part, &mut self.leaf) {
                (Piece::Zeros(ZERO_LEAF_BYTES), None) => self.leaves.push(leaf_of_zeros(start, ZERO_LEAF_BYTES)),
                (part, leaf) => {
                    let hasher = leaf.get_or_insert_with(|| hasher_at(start));
                    part.hash(hasher);
                    if part.len() == left {
                        self.leaves.push(hasher.finalize_non_root());
                        *leaf = None;
                    }
                }
            }
        }
    }

    /// The subtree's value; of at least one byte.
    pub(super) fn value(mut self) -> Value {
        if let Some(leaf) = self.leaf.take() {
            self.leaves.push(leaf.finalize_non_root());
        }
        self.leaves.value()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::CHUNK_BYTES;

    fn in_one_go(offset: u64, bytes: &[u8]) -> Value {
        let mut hasher = hasher_at(offset);
        hasher.update(bytes);
        hasher.finalize_non_root()
    }

    #[test]
    fn zeros_at_any_place_have_the_value_that_they_have_when_hashed_in_one_go() {
        let zeros = vec![0; 3 << 20];
        for offset in [0, CHUNK_BYTES, 63 * CHUNK_BYTES, 64 * CHUNK_BYTES, 1 << 40] {
            for len in [1, 1024, ZERO_LEAF_BYTES - 1, ZERO_LEAF_BYTES, ZERO_LEAF_BYTES + 1, 3 << 20] {
                // Twice: computed, and looked up.
                for _ in 0..2 {
                    let expected = in_one_go(offset, &zeros[..usize::try_from(len).unwrap()]);
                    assert_eq!(zero_value(offset, len), expected, "{len} at {offset}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn holes_and_bytes_in_any_pieces_hash_as_their_bytes(
            chunk in 0u64..70,
            pieces in proptest::collection::vec((any::<bool>(), 1u64..600_000), 1..8),
        ) {
            let mut all = Vec::new();
            let mut subtree = Subtree::at(chunk * CHUNK_BYTES);
            for (hole, len) in pieces {
                let bytes = vec![if hole { 0 } else { 7 }; usize::try_from(len).unwrap()];
                subtree.feed(if hole { Piece::Zeros(len) } else { Piece::Bytes(&bytes) });
                all.extend(bytes);
            }
            prop_assert_eq!(subtree.value(), in_one_go(chunk * CHUNK_BYTES, &all));
        }
    }
}
