//! The bytes that frames are written to. Where memory runs out they are not written and the output
//! is torn, which is asked once, at the end of a frame: writers need not look at every byte.

use std::fmt;
use std::ops::Deref;

/// There was no memory for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory for an event")
    }
}

impl std::error::Error for OutOfMemory {}

/// A `Vec` of bytes that does not abort the process where it cannot grow.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    is_torn: bool,
}

impl Output {
    /// Makes room for `additional` bytes, and returns whether there is.
    #[inline]
    pub fn reserve(&mut self, additional: usize) -> bool {
        // Written as in `Vec`, so that its own check is not made a second time.
        additional <= self.bytes.capacity().wrapping_sub(self.bytes.len()) || self.grow(additional)
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, additional: usize) -> bool {
        // Not tried again: the rest of a torn frame would ask the system for every byte.
        self.is_torn = self.is_torn || self.bytes.try_reserve(additional).is_err();
        !self.is_torn
    }

    /// Appends one byte.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        if self.reserve(1) {
            self.bytes.push(byte);
        }
    }

    /// Appends `bytes`.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        if self.reserve(bytes.len()) {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Appends `N` bytes to be written to.
    #[inline]
    pub fn extend_by<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        if !self.reserve(N) {
            return None;
        }
        self.bytes.extend_from_slice(&[0; N]);
        self.bytes.last_chunk_mut()
    }

    /// Drops what is behind the first `len` bytes.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// Whether everything was written.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    #[inline]
    pub fn check(&self) -> Result<(), OutOfMemory> {
        if self.is_torn {
            Err(OutOfMemory)
        } else {
            Ok(())
        }
    }
}

impl From<Vec<u8>> for Output {
    fn from(bytes: Vec<u8>) -> Self {
        let is_torn = false;
        Self { bytes, is_torn }
    }
}

impl From<Output> for Vec<u8> {
    fn from(output: Output) -> Self {
        output.bytes
    }
}

impl Deref for Output {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_noticed_and_nothing_before_it_is_lost() {
        let mut output = Output::from(b"abc".to_vec());
        assert!(!output.reserve(usize::MAX));
        assert_eq!(output.check(), Err(OutOfMemory));
        output.push(b'd');
        assert!(output.starts_with(b"abc"));
        assert_eq!(output.check(), Err(OutOfMemory));
        assert_eq!(Output::from(Vec::from(output)).check(), Ok(()));
    }
}
