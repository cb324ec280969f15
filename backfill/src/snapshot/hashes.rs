//! Row hashes as they are stored.

use bytes::Bytes;

/// Row hashes as they are stored: eight little-endian bytes each, wherever they begin in memory. They are compared far
/// more often than they are looked at, and comparing needs no numbers.
#[derive(Debug, Clone)]
pub(crate) struct Hashes {
    bytes: Bytes,
}

/// How many bytes one comparison takes in while it looks for the end of an equal run: enough to be vectorised.
const STRIDE_BYTES: usize = 256;

const HASH_BYTES: usize = size_of::<u64>();

impl Hashes {
    /// Hashes out of their stored bytes, or nothing if they are not whole.
    pub(super) fn from_stored(bytes: Bytes) -> Option<Self> {
        bytes.len().is_multiple_of(HASH_BYTES).then_some(Self { bytes })
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / HASH_BYTES
    }

    pub(crate) fn get(&self, row: usize) -> u64 {
        u64::from_le_bytes(self.bytes.as_chunks().0[row])
    }

    /// The rows of a range. Shares the memory.
    pub(crate) fn slice(&self, start: usize, rows: usize) -> Self {
        Self { bytes: self.bytes.slice(start * HASH_BYTES..(start + rows) * HASH_BYTES) }
    }

    /// How many of the next `max` hashes, from `row` here and `other_row` there, are pairwise equal before the first
    /// that is not.
    pub(crate) fn equal_prefix(&self, row: usize, other: &Self, other_row: usize, max: usize) -> usize {
        let left = &self.bytes[row * HASH_BYTES..(row + max) * HASH_BYTES];
        let right = &other.bytes[other_row * HASH_BYTES..(other_row + max) * HASH_BYTES];
        let strides = left
            .chunks_exact(STRIDE_BYTES)
            .zip(right.chunks_exact(STRIDE_BYTES))
            .take_while(|(left, right)| left == right)
            .count();
        let start = strides * STRIDE_BYTES;
        let (left, right) =
            (left[start..].as_chunks::<HASH_BYTES>().0, right[start..].as_chunks::<HASH_BYTES>().0);
        start / HASH_BYTES + left.iter().zip(right).take_while(|(left, right)| left == right).count()
    }
}

impl FromIterator<u64> for Hashes {
    fn from_iter<T: IntoIterator<Item = u64>>(hashes: T) -> Self {
        let bytes: Vec<u8> = hashes.into_iter().flat_map(u64::to_le_bytes).collect();
        Self { bytes: bytes.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equal_run_ends_exactly_where_it_ends() {
        let hashes: Hashes = (0..200_u64).collect();
        for length in [0, 1, 31, 32, 33, 64, 150] {
            let other: Hashes =
                (0..200_u64).map(|hash| if hash == length as u64 + 3 { 9_999 } else { hash }).collect();
            assert_eq!(hashes.equal_prefix(3, &other, 3, 197), length);
            assert_eq!(hashes.equal_prefix(3, &hashes, 3, length), length);
        }
        assert_eq!(hashes.equal_prefix(0, &hashes, 1, 100), 0);
        assert_eq!(hashes.slice(5, 10).get(2), 7);
        assert_eq!(hashes.slice(5, 10).len(), 10);
    }
}
