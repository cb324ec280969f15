//! Large memory that threads share.

use std::sync::atomic::AtomicU64;

use zerocopy::{FromBytes, IntoBytes};

/// Zeroed numbers for threads to share. The system gives large memory out zeroed, and what nobody writes to costs none; atomic
/// numbers that are made one by one are all written.
pub(super) struct Memory(Vec<u64>);

impl Memory {
    /// So many numbers.
    pub(super) fn new(numbers: u64) -> Self {
        Self(vec![0; numbers as usize])
    }

    pub(super) fn numbers(&mut self) -> &[AtomicU64] {
        <[AtomicU64]>::mut_from_bytes(self.0.as_mut_bytes()).expect("both are as wide, and lie alike")
    }

    pub(super) fn pairs(&mut self) -> &[[AtomicU64; 2]] {
        self.numbers().as_chunks().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn it_is_zeroed_and_as_long_as_was_asked_for() {
        let mut memory = Memory::new(5001);
        assert_eq!((memory.numbers().len(), memory.pairs().len()), (5001, 2500));
        assert!(memory.numbers().iter().all(|number| number.load(Ordering::Relaxed) == 0));
        memory.pairs()[2499][1].store(7, Ordering::Relaxed);
        assert_eq!(memory.numbers()[4999].load(Ordering::Relaxed), 7);
        assert_eq!(Memory::new(0).numbers().len(), 0);
    }
}
